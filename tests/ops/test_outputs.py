"""`out=` of every operation: no memory of an input is written to, however that input lies."""

import inspect

import numpy as np
import pytest

from zfcuda import backends, ops

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def whole(dtype, *shape):
    return RNG.integers(0, 2, shape).astype(dtype)


MAPS, GEOMETRY = (2, 5, 4, 3), {"stride": 1, "padding": 1}
BLOCK = {**GEOMETRY, "window": 2, "pool_stride": 2}
POOL = {"window": 2, "stride": 1}
# By operation: its arrays, by name, and what else it takes.
CALLS = {
    "add": ({"a": floats(*MAPS), "b": floats(*MAPS)}, {}),
    "avg_pool2d": ({"x": floats(*MAPS)}, POOL),
    "avg_pool2d_grad": ({"dy": floats(2, 4, 3, 3)}, {**POOL, "output_size": (5, 4)}),
    "batch_norm": (
        {"x": floats(*MAPS), "mean": floats(3), "variance": floats(3) ** 2, "weight": floats(3), "bias": floats(3)},
        {},
    ),
    "cast": ({"x": floats(*MAPS)}, {"dtype": np.float32}),
    "clip": ({"x": floats(*MAPS)}, {"low": -1, "high": 1}),
    "clip_grad": ({"dy": floats(*MAPS), "x": floats(*MAPS)}, {"low": -1, "high": 1}),
    "conv2d": (
        {"x": floats(*MAPS), "w": floats(4, 3, 3, 3), "b": floats(4), "scale": floats(4), "add": floats(2, 5, 4, 4)},
        GEOMETRY,
    ),
    "conv2d_bias_grad": ({"dy": floats(*MAPS)}, {}),
    "conv2d_weight_grad": ({"x": floats(*MAPS), "dy": floats(2, 5, 4, 4)}, {**GEOMETRY, "kernel_size": 3}),
    "conv_transpose2d": ({"y": floats(2, 5, 4, 4), "w": floats(4, 3, 3, 3)}, {**GEOMETRY, "output_size": (5, 4)}),
    "copy_channels": ({"x": floats(*MAPS)}, {}),
    "crop_images": (
        {
            "images": whole(np.uint8, 2, 6, 7, 3),
            "mean": floats(6, 7, 3),
            "corners": whole(np.int32, 2, 2),
            "flips": whole(np.uint8, 2),
        },
        {"size": 4},
    ),
    "cut_windows": (
        {"x": floats(*MAPS), "corners": whole(np.int32, 3, 2), "images": whole(np.int32, 3)},
        {"size": 2},
    ),
    "depthwise_conv2d": ({"x": floats(*MAPS), "w": floats(3, 3, 3, 1), "b": floats(3)}, GEOMETRY),
    "depthwise_conv2d_data_grad": (
        {"y": floats(*MAPS), "w": floats(3, 3, 3, 1)},
        {**GEOMETRY, "output_size": (5, 4)},
    ),
    "depthwise_conv2d_weight_grad": ({"x": floats(*MAPS), "dy": floats(*MAPS)}, {**GEOMETRY, "kernel_size": 3}),
    "dropout": (
        {"x": floats(*MAPS), "offset": np.zeros((), np.uint64)},
        {"probability": 0.5, "seed": 0},
    ),
    "leaky_relu": ({"x": floats(*MAPS), "slope": floats(3)}, {}),
    "leaky_relu_grad": ({"dy": floats(*MAPS), "x": floats(*MAPS), "slope": floats(3)}, {}),
    "local_response_norm": ({"x": floats(*MAPS)}, {}),
    "local_response_norm_grad": ({"dy": floats(*MAPS), "x": floats(*MAPS)}, {}),
    "max_unpool2d": (
        {"y": floats(2, 4, 3, 3), "switches": whole(np.uint8, 2, 4, 3, 3)},
        {**POOL, "output_size": (5, 4)},
    ),
    "permute_channels": ({"x": floats(*MAPS), "order": np.array([2, 0, 1], np.int32)}, {}),
    "prelu_weight_grad": ({"dy": floats(*MAPS), "x": floats(*MAPS)}, {"channels": 3}),
    "relu": ({"x": floats(*MAPS)}, {}),
    "relu_grad": ({"dy": floats(*MAPS), "y": floats(*MAPS)}, {}),
    "softmax": ({"logits": floats(4, 5)}, {}),
    "softmax_cross_entropy_grad": ({"probabilities": floats(4, 5), "labels": whole(np.int32, 4)}, {}),
    "unpool_conv2d_weight_grad": (
        {"x": floats(*MAPS), "dy": floats(2, 2, 2, 4), "switches": whole(np.uint8, 2, 2, 2, 4)},
        {**BLOCK, "kernel_size": 3},
    ),
    "unpool_conv_transpose2d": (
        {"y": floats(2, 2, 2, 4), "switches": whole(np.uint8, 2, 2, 2, 4), "w": floats(4, 3, 3, 3)},
        {**BLOCK, "output_size": (5, 4)},
    ),
}


def test_every_operation_with_an_output_is_here():
    assert set(CALLS) == {name for name in ops.__all__ if "out" in inspect.signature(getattr(ops, name)).parameters}


def expected(name):
    """What the operation makes, without `out` where it can be left out."""
    arrays, options = CALLS[name]
    if name == "copy_channels":
        return np.zeros_like(arrays["x"])
    return np.zeros_like(getattr(ops, name)(**arrays, **options))


def lying(array, out, gap):
    """The array, each of its rows `gap` elements behind the one before, and an array like `out` that begins in the
    array's second element."""
    *outer, last = array.shape or (1,)
    wide = (*outer, last + gap)
    memory = np.zeros(np.prod(wide) * array.itemsize + out.nbytes + 64, np.uint8)
    view = memory[: np.prod(wide) * array.itemsize].view(array.dtype).reshape(wide)[..., :last]
    view = view.reshape(array.shape) if not array.ndim else view
    view[...] = array
    start = -(-array.itemsize // out.itemsize) * out.itemsize if array.size > 1 else 0
    start = min(start, (array.nbytes - 1) // out.itemsize * out.itemsize)
    assert np.shares_memory(view, memory[start : start + out.nbytes])
    return view, memory[start : start + out.nbytes].view(out.dtype).reshape(out.shape)


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, (arrays, _) in CALLS.items() for argument in arrays]
)
def test_no_operation_writes_where_it_reads(name, argument, gap):
    """An input whose rows lie apart is copied before it is read, and refused like any other."""
    arrays, options = CALLS[name]
    view, out = lying(arrays[argument], expected(name), gap)
    before = view.copy()
    with pytest.raises(ValueError, match="out must not share memory with an input of this operation"):
        getattr(ops, name)(**{**arrays, argument: view}, out=out, **options)
    np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize("name", [*backends.HOST_BACKENDS])
def test_a_part_of_a_concatenation_is_made_of_another(name):
    """Channels of one array: some are read, others written."""
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    wide, w = floats(2, 5, 4, 9), floats(4, 3, 3, 3)
    before = wide.copy()
    with backends.use(name):
        made = ops.conv2d(wide[..., :3].copy(), w, **GEOMETRY)
        ops.conv2d(wide[..., :3], w, out=wide[..., 4:8], **GEOMETRY)
        with pytest.raises(ValueError, match="out must not share memory"):
            ops.conv2d(wide[..., :3], w, out=wide[..., 2:6], **GEOMETRY)
    np.testing.assert_array_equal(wide[..., 4:8], made)
    np.testing.assert_array_equal(wide[..., [0, 1, 2, 3, 8]], before[..., [0, 1, 2, 3, 8]])
