"""csrc/kernels/vector.cuh: arrays that begin at any element, where vectors of four would be misaligned."""

import numpy as np
import pytest

from zfcuda import ops

POOL = {"window": 3, "stride": 2, "padding": 1}


def misaligned(device, array):
    """The array, copied to where its address is four (or one) bytes past a multiple of sixteen."""
    aligned = device.array(np.empty(array.size + 64 // array.itemsize, array.dtype))
    address = aligned.data.ptr if device.name == "cuda" else aligned.ctypes.data
    skip = -address % 16 // array.itemsize + 1
    view = aligned[skip : skip + array.size].reshape(array.shape)
    view[...] = device.array(array)
    return view


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def pool_and_unpool(to):
    y, switches = ops.max_pool2d(to(normal(2, 7, 6, 8)), **POOL)
    return ops.max_unpool2d(to(y), to(switches), **POOL, output_size=(7, 6))


def sgd_step(to):
    w, g, v = to(normal(5, 13)), to(normal(13, 5).T.copy()), to(-normal(5, 13))
    ops.sgd_step(w, g, v, lr=0.1, weight_decay=0.1)
    return w


CALLS = {
    "relu": lambda to: ops.relu(to(normal(9, 7))),
    "relu_grad": lambda to: ops.relu_grad(to(normal(9, 7)), to(normal(7, 9).T.copy())),
    "dropout": lambda to: ops.dropout(to(normal(9, 7)), probability=0.5, seed=1),
    "sgd_step": sgd_step,
    "pool and unpool": pool_and_unpool,
    "spatial_max": lambda to: ops.spatial_max(to(normal(2, 5, 4, 8)))[0],
    "local_response_norm": lambda to: ops.local_response_norm(to(normal(5, 16)), alpha=1.0),
    "local_response_norm_grad": lambda to: ops.local_response_norm_grad(
        to(normal(5, 16)), to(-normal(5, 16)), alpha=1.0
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_misaligned_arrays_give_the_same_result(device, call):
    aligned = device.numpy(call(device.array))
    shifted = device.numpy(call(lambda array: misaligned(device, device.numpy(array))))
    np.testing.assert_allclose(shifted, aligned, rtol=1e-6, atol=1e-7)


def test_misaligned_output(device):
    images, corners, flips = np.arange(96, dtype=np.uint8).reshape(1, 8, 4, 3), np.ones((1, 2), np.int32), np.ones(1)
    to = device.array
    arguments = (to(images), None, to(corners), to(flips.astype(np.uint8)))
    out = misaligned(device, np.full((1, 4, 4, 3), np.nan, np.float32))
    ops.crop_images(*arguments, size=4, out=out)
    np.testing.assert_array_equal(device.numpy(out), device.numpy(ops.crop_images(*arguments, size=4)))
