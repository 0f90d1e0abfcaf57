"""csrc/kernels/vector.cuh: arrays that begin at any element, where vectors would be misaligned."""

import numpy as np
import pytest

from tests.accuracy import assert_close
from tests.shapes import BF16
from zfcuda import ops

POOL = {"window": 3, "stride": 2, "padding": 1}


def misaligned(device, array):
    """The array, copied to where its address is one element past a multiple of sixteen."""
    aligned = device.array(np.empty(array.size + 64 // array.itemsize, array.dtype))
    address = aligned.data.ptr if device.name == "cuda" else aligned.ctypes.data
    skip = -address % 16 // array.itemsize + 1
    view = aligned[skip : skip + array.size].reshape(array.shape)
    view[...] = device.array(array)
    return view


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(dtype)


def pool_and_unpool(to, dtype=np.float32):
    y, switches = ops.max_pool2d(to(normal(2, 7, 6, 8, dtype=dtype)), **POOL)
    return ops.max_unpool2d(to(y), to(switches), **POOL, output_size=(7, 6))


def sgd_step(to):
    w, g, v = to(normal(5, 13)), to(normal(13, 5).T.copy()), to(-normal(5, 13))
    ops.sgd_step(w, g, v, lr=0.1, weight_decay=0.1)
    return w


def norm_grad(to, dtype=np.float32):
    dy, x = normal(5, 16, dtype=dtype), -normal(5, 16, dtype=dtype)
    return ops.local_response_norm_grad(to(dy), to(x), alpha=1.0)


def relu_grad(to, dtype=np.float32):
    return ops.relu_grad(to(normal(9, 7, dtype=dtype)), to(normal(7, 9, dtype=dtype).T.copy()))


def add(to, dtype=np.float32):
    return ops.add(to(normal(9, 7, dtype=dtype)), to(normal(7, 9, dtype=dtype).T.copy()))


def copy_channels(to, dtype=np.float32):
    return ops.copy_channels(
        to(normal(5, 24, dtype=dtype)), to(np.zeros((5, 32), dtype)), source=8, target=16, channels=8
    )


def avg_pool_and_back(to, dtype=np.float32):
    y = ops.avg_pool2d(to(normal(2, 7, 6, 8, dtype=dtype)), **POOL)
    return ops.avg_pool2d_grad(to(y), **POOL, output_size=(7, 6))


def depthwise_and_back(to, dtype=np.float32):
    w = to(normal(16, 3, 3, 1, dtype=dtype))
    y = ops.depthwise_conv2d(to(normal(2, 7, 6, 16, dtype=dtype)), w, to(normal(16)), stride=2, padding=1)
    return ops.depthwise_conv2d_data_grad(to(y), w, stride=2, padding=1, output_size=(7, 6))


def depthwise_weight_grad(to, dtype=np.float32):
    x, dy = normal(2, 7, 6, 16, dtype=dtype), normal(2, 5, 4, 16, dtype=dtype)
    return ops.depthwise_conv2d_weight_grad(to(x), to(dy), kernel_size=3)


def batch_norm(to, dtype=np.float32):
    x = to(normal(9, 16, dtype=dtype))
    mean, variance = ops.batch_norm_statistics(x)
    return ops.batch_norm(x, to(mean), to(variance), to(normal(16)), to(normal(16)))


def batch_norm_grad(to, dtype=np.float32):
    of_channels = [to(abs(normal(16))) for _ in range(3)]
    return ops.batch_norm_grad(to(normal(9, 16, dtype=dtype)), to(-normal(9, 16, dtype=dtype)), *of_channels)[0]


def prelu_weight_grad(to, dtype=np.float32):
    return ops.prelu_weight_grad(to(normal(9, 16, dtype=dtype)), to(-normal(9, 16, dtype=dtype)), channels=16)


# On float32 and, but for the optimiser, on bfloat16.
CALLS = {
    "add": add,
    "add and relu": lambda to, dtype: ops.add(to(normal(9, 7, dtype=dtype)), to(normal(9, 7, dtype=dtype)), relu=True),
    "copy_channels": copy_channels,
    "permute_channels": lambda to, dtype: ops.permute_channels(to(normal(9, 16, dtype=dtype)), range(15, -1, -1)),
    "avg_pool2d and its gradient": avg_pool_and_back,
    "average of a map": lambda to, dtype: ops.avg_pool2d(to(normal(2, 5, 4, 8, dtype=dtype)), window=(5, 4), stride=1),
    "batch_norm": batch_norm,
    "batch_norm_grad": batch_norm_grad,
    "depthwise_conv2d and its transpose": depthwise_and_back,
    "depthwise_conv2d_weight_grad": depthwise_weight_grad,
    "clip": lambda to, dtype: ops.clip(to(normal(9, 7, dtype=dtype)), 0.0, 1.0),
    "clip_grad": lambda to, dtype: ops.clip_grad(to(normal(9, 7, dtype=dtype)), to(-normal(9, 7, dtype=dtype)), 0, 1),
    "leaky_relu": lambda to, dtype: ops.leaky_relu(to(normal(9, 7, dtype=dtype)), 0.1),
    "leaky_relu by channel": lambda to, dtype: ops.leaky_relu(to(normal(9, 16, dtype=dtype)), to(normal(16))),
    "prelu_weight_grad": prelu_weight_grad,
    "relu": lambda to, dtype: ops.relu(to(normal(9, 7, dtype=dtype))),
    "relu_grad": relu_grad,
    "dropout": lambda to, dtype: ops.dropout(to(normal(9, 7, dtype=dtype)), probability=0.5, seed=1),
    "cast": lambda to, dtype: ops.cast(to(normal(9, 7, dtype=dtype)), np.float32 if dtype == BF16 else BF16),
    "pool and unpool": pool_and_unpool,
    "spatial_max": lambda to, dtype: ops.spatial_max(to(normal(2, 5, 4, 8, dtype=dtype)))[0],
    "local_response_norm": lambda to, dtype: ops.local_response_norm(to(normal(5, 16, dtype=dtype)), alpha=1.0),
    "local_response_norm_grad": norm_grad,
}
CASES = [(name, dtype) for name in CALLS for dtype in (np.float32, BF16)]


def check(device, call):
    aligned = device.numpy(call(device.array))
    shifted = device.numpy(call(lambda array: misaligned(device, device.numpy(array))))
    assert_close(shifted, aligned)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_misaligned_arrays_give_the_same_result(device, name, dtype):
    check(device, lambda to: CALLS[name](to, dtype))


def test_misaligned_parameters_give_the_same_result(device):
    check(device, sgd_step)


def test_misaligned_output(device):
    images, corners, flips = np.arange(96, dtype=np.uint8).reshape(1, 8, 4, 3), np.ones((1, 2), np.int32), np.ones(1)
    to = device.array
    arguments = (to(images), None, to(corners), to(flips.astype(np.uint8)))
    out = misaligned(device, np.full((1, 4, 4, 3), np.nan, np.float32))
    ops.crop_images(*arguments, size=4, out=out)
    np.testing.assert_array_equal(device.numpy(out), device.numpy(ops.crop_images(*arguments, size=4)))
