"""csrc/cpu/conv/: its methods, on shapes that take them."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import FP32, WEIGHT_GRAD, assert_close
from tests.kernels.test_conv import conv2d_to_channels
from zfcuda import _cpu, backends, ops

# (N, H, W, C), (K, R, S), stride, padding
WINOGRAD = [
    ((1, 23, 18, 64), (65, 3, 3), 1, 1),
    ((5, 13, 13, 67), (64, 3, 3), 1, 1),  # images share tiles
    ((16, 8, 9, 64), (70, 3, 3), 1, 0),
    ((5, 6, 11, 66), (96, 3, 3), 1, 2),
    ((6, 5, 4, 64), (64, 3, 3), 1, 3),  # more padding than the window needs
    ((6, 9, 8, 400), (64, 3, 3), 1, 1),  # two blocks of depth forward
    ((6, 9, 8, 64), (400, 3, 3), 1, 1),  # and backward
    ((17, 17, 18, 64), (64, 3, 3), 1, 1),  # several chunks of tiles
    ((8, 19, 18, 80), (64, 5, 5), 2, 0),  # four phases
    ((8, 16, 11, 75), (70, 6, 5), 2, 2),
    ((8, 10, 14, 64), (64, 5, 6), 2, (3, 1)),
    ((8, 16, 15, 64), (64, 5, 5), 2, 5),
    ((5, 12, 17, 32), (40, 5, 5), 1, 2),  # other numbers of taps
    ((4, 13, 15, 31), (33, 4, 4), 1, 1),
    ((6, 15, 16, 40), (56, 2, 2), 1, 1),
    ((3, 22, 23, 16), (35, 7, 8), 2, 3),
    ((6, 15, 20, 32), (48, 3, 5), (1, 2), (1, 2)),  # phases along one axis only
    ((6, 20, 15, 32), (48, 5, 3), (2, 1), (2, 1)),
    ((9, 31, 33, 136), (72, 5, 5), 2, 2),  # phases that lie in several blocks of depth, chunks with few of them
]
FEW_CHANNELS = [  # transforms of a vector that channels do not fill, forward and backward
    ((3, 29, 31, 13), (29, 3, 3), 1, 1),
    ((4, 33, 30, 14), (32, 4, 4), 1, (2, 1)),
]
FIRST_LAYER = [  # forward by csrc/cpu/conv/winograd/lines.cpp
    ((2, 40, 37, 3), (96, 7, 7), 2, 1),
    ((1, 31, 90, 3), (96, 7, 7), 2, 3),  # several groups of tiles across, the last line of tiles cut
    ((2, 36, 50, 4), (37, 9, 9), 3, 0),  # a panel with few columns
    ((3, 26, 28, 1), (130, 9, 9), 3, (3, 5)),
    ((1, 62, 61, 3), (48, 11, 11), 4, 2),
    ((1, 65, 60, 2), (33, 9, 9), 3, 9),  # padding that covers whole tiles
    ((1, 20, 85, 3), (128, 4, 16), (1, 4), 0),  # phases along one axis only
    ((2, 50, 60, 2), (70, 15, 15), 3, 1),  # five taps a phase
    ((1, 11, 40, 3), (96, 7, 7), 2, 0),  # a single line of tiles
]
DIRECT = [  # no transforms
    ((3, 28, 28, 1), (32, 5, 5), 1, 2),
    ((2, 64, 62, 3), (8, 5, 5), 2, 2),  # gathering for transforms takes longer than few filters
    ((2, 9, 11, 3), (40, 2, 3), (3, 5), 0),  # strides larger than the filter: phases without taps
    ((2, 12, 10, 40), (33, 1, 1), 1, 0),
    ((1, 12, 10, 40), (33, 1, 1), 2, 0),
    ((2, 20, 9, 100), (15, 5, 1), 1, (2, 0)),  # depth in blocks
    ((70, 1, 1, 120), (84, 1, 1), 1, 0),  # a fully connected layer of many rows
    ((1, 6, 6, 20), (300, 3, 3), 1, 1),  # few rows: threads share the panels
    ((2, 2, 3, 64), (65, 1, 1), (2, 1), (0, 1, 0, 0)),  # as many windows as pixels, but not one for each
    ((1, 3, 3, 40), (33, 1, 1), 3, (0, 6, 0, 6)),
]
LINES = [  # by csrc/cpu/conv/window_lines.cpp where many columns do not forbid it
    ((3, 29, 31, 11), (7, 3, 3), 1, 1),
    ((5, 9, 45, 7), (13, 5, 5), 2, 2),  # odd counts and a stride
    ((16, 17, 18, 33), (29, 3, 3), 2, 1),  # transforms of padded channels would cost more
    ((1, 40, 16, 5), (130, 3, 4), (1, 2), (0, 4)),  # padding wider than the filter, too many columns forward
    ((2, 9, 20, 11), (21, 2, 7), (3, 1), (5, 6)),  # lines of padding alone, strides larger than the filter
    ((1, 12, 15, 40), (50, 1, 7), 1, (0, 3)),
    ((2, 8, 14, 170), (6, 3, 3), 1, 1),  # too deep forward
]
PIXELS = [  # whose tiles meet all panels of filters one after the other
    ((3, 59, 31, 13), (29, 1, 1), 1, 0),
    ((1, 90, 95, 24), (144, 1, 1), 1, 0),  # too deep backward
    ((2, 250, 230, 8), (40, 1, 1), 1, 0),  # pixels and results are fetched
]
TAPS = [  # the gradient of many pixels from few windows
    ((3, 12, 12, 20), (50, 5, 5), 1, 0),
    ((2, 7, 19, 17), (9, 6, 9), (1, 2), 0),
    ((1, 9, 8, 33), (43, 5, 4), (2, 1), 0),
]
PARTS = [  # weight gradients by transforms whose tiles are cut into parts
    ((12, 30, 31, 24), (24, 3, 3), 1, 1),
    ((33, 16, 15, 32), (17, 3, 3), 1, 1),
    ((9, 40, 41, 32), (40, 2, 2), 1, 0),
]
TAPS_IN_PLACE = [  # weight gradients whose windows are read in place, of more channels than a first layer's
    ((9, 14, 14, 6), (16, 5, 5), 1, 0),
    ((7, 14, 13, 5), (6, 2, 5), (1, 2), (1, 3)),  # the last filters of the last pixel end behind dy
    ((3, 29, 33, 33), (29, 3, 3), 2, 1),
    ((2, 9, 12, 5), (1, 3, 3), 1, 0),  # and those of several lines
    ((20, 28, 28, 1), (6, 5, 5), 1, 2),  # neighbours are taken as one pixel where a vector has room
    ((9, 33, 30, 3), (2, 3, 3), (2, 1), (0, 1)),
    ((3, 30, 31, 17), (64, 1, 1), 1, 0),  # single pixels, whose channels fill their vectors worse than filters do
    ((3, 20, 26, 2), (3, 4, 4), (3, 2), 1),
]
REGIONS = [  # with a dilation: windows that see the same taps are multiplied by themselves
    ((2, 15, 14, 130), (131, 3, 3), 1, 6, 6),
    ((3, 13, 12, 64), (160, 3, 3), 1, (2, 3), (2, 3)),
    ((2, 9, 9, 130), (40, 3, 3), 1, 7, 7),  # no window sees both edges
    ((2, 5, 6, 70), (33, 3, 3), 1, 9, 9),  # nor any but the tap in the middle
    ((1, 17, 330, 36), (150, 3, 2), 1, (8, 4), (8, 9)),  # lines longer than a block of a weight gradient
    ((2, 20, 21, 136), (48, 4, 5), (2, 3), (9, 16), (5, 7)),
    ((2, 3, 4, 96), (96, 1, 1), 1, 2, 1),  # windows that see padding alone
    ((1, 2, 3, 64), (140, 5, 1), (5, 1), (20, 2), (7, 1)),  # taps that see padding alone
    ((3, 7, 7, 160), (150, 1, 9), 1, (0, 4), 1),
    ((5, 2, 2, 130), (140, 3, 3), 1, 1, 1),
]
LARGE = ((1, 450, 330, 3), (32, 3, 3), 1, 1)  # by lines, which go past the caches
FAR = ((9, 7, 5, 230), (700, 7, 5), 1, 0)  # fully connected, whose filters do not stay in the caches
FULLY_CONNECTED = ((4, 3, 5, 20), (33, 3, 5), 1, 0)
ALL = [
    *WINOGRAD,
    *FEW_CHANNELS,
    *FIRST_LAYER,
    *DIRECT,
    *LINES,
    *PIXELS,
    *TAPS,
    *PARTS,
    *TAPS_IN_PLACE,
    *REGIONS,
    FAR,
    FULLY_CONNECTED,
]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def directions(x_shape, filters, stride, padding, dilation=1, seed=0):
    """Each direction's call, oracle and tolerance for one layer."""
    rng = np.random.default_rng(seed)
    options = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = rng.standard_normal((*filters, x_shape[3]), dtype=np.float32)
    b = rng.standard_normal(filters[0], dtype=np.float32)
    size = oracles.output_size(x_shape[1:3], filters[1:], *options.values())
    dy = rng.standard_normal((x_shape[0], *size, filters[0]), dtype=np.float32)
    sizes = {"output_size": x_shape[1:3]}
    kernel = {"kernel_size": filters[1:]}
    return {
        "forward": (
            lambda: ops.conv2d(x, w, b, relu=True, **options),
            lambda: oracles.conv2d(x, w, b, relu=True, **options),
            FP32,
        ),
        "added": (
            lambda: ops.conv2d(x, w, b, scale=b, add=dy, relu=True, **options),
            lambda: oracles.conv2d(x, w, b, scale=b, add=dy, relu=True, **options),
            FP32,
        ),
        "transpose": (
            lambda: ops.conv_transpose2d(dy, w, **sizes, **options),
            lambda: oracles.conv_transpose2d(dy, w, **sizes, **options),
            FP32,
        ),
        "weight_grad": (
            lambda: ops.conv2d_weight_grad(x, dy, **kernel, **options),
            lambda: oracles.conv2d_weight_grad(x, dy, **kernel, **options),
            WEIGHT_GRAD,
        ),
    }


def method(layer, direction, in_block=False):
    """The name of the method that the CPU takes."""
    x, filters, stride, padding, dilation, groups = (*layer, 1, 1)[:6]
    module = _cpu.load()
    sizes = pair(stride), pair(padding), pair(dilation), groups
    shape = module.ConvShape(x, (*filters, x[3] // groups), *sizes)
    return module.conv_method(shape, getattr(module.Direction, direction), in_block)


def test_layers_take_their_methods():
    for layer in WINOGRAD:
        assert {method(layer, direction) for direction in ("fprop", "dgrad", "wgrad")} == {"winograd"}
    for layer in FEW_CHANNELS:
        assert method(layer, "fprop") == method(layer, "dgrad") == "winograd"
    for layer in FIRST_LAYER:
        assert method(layer, "fprop") == method(layer, "fprop", in_block=True) == "winograd by lines"
        assert method(layer, "wgrad") == "windows in place"
    for layer in [*DIRECT, *LINES, *PIXELS]:
        assert not any("winograd" in method(layer, direction) for direction in ("fprop", "dgrad", "wgrad"))
    for layer in REGIONS:
        assert {method(layer, direction) for direction in ("fprop", "dgrad", "wgrad")} == {"implicit gemm"}
    tiny = ((64, 2, 2, 128), (128, 3, 3), 1, 1)  # whose windows see four of nine taps
    assert method(tiny, "fprop") == method(tiny, "dgrad") == "implicit gemm"
    assert method(DIRECT[6], "fprop") == "implicit gemm" != method(FULLY_CONNECTED, "fprop")
    for layer in TAPS:
        assert method(layer, "dgrad") == "taps as columns"
    for layer in PARTS:
        assert method(layer, "wgrad") == "winograd"
    for layer in TAPS_IN_PLACE:
        assert method(layer, "wgrad") == "windows in place"


def test_every_method_is_taken():
    layers = [*WINOGRAD, *FIRST_LAYER, *DIRECT, FULLY_CONNECTED]
    groups = [((1, 5, 5, 8), (8, 3, 3), 1, 1, 1, 4)]
    for direction, name in _cpu.load().conv_methods():
        assert name in {method(layer, direction.name) for layer in [*layers, *groups]}
    assert method(FULLY_CONNECTED, "fprop") == "dense" != method(FULLY_CONNECTED, "fprop", in_block=True)


@pytest.mark.parametrize("direction", ["forward", "added", "transpose", "weight_grad"])
@pytest.mark.parametrize("layer", ALL, ids=str)
def test_layer(layer, direction):
    call, oracle, tolerance = directions(*layer)[direction]
    with backends.use("cpu"):
        assert_close(call(), oracle(), tolerance)


@pytest.mark.parametrize("layer", [*WINOGRAD, *FIRST_LAYER, *DIRECT, *LINES, *PIXELS, FULLY_CONNECTED, LARGE], ids=str)
@pytest.mark.parametrize(("before", "after"), [(16, 32), (5, 1)])
def test_layer_to_channels_of_a_wider_array(layer, before, after):
    """Bit for bit as by itself."""
    x_shape, filters, stride, padding = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = rng.standard_normal((*filters, x_shape[3]), dtype=np.float32)
    b = rng.standard_normal(filters[0], dtype=np.float32)
    options = {"stride": stride, "padding": padding, "relu": True}
    with backends.use("cpu"):
        expected = ops.conv2d(x, w, b, **options)
        actual = conv2d_to_channels(np.asarray, x, w, b, expected.shape, before, after, **options)
    np.testing.assert_array_equal(actual, expected)


def test_pixels_of_groups():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 61, 67, 24), dtype=np.float32)
    dy = rng.standard_normal((2, 61, 67, 36), dtype=np.float32)
    w = rng.standard_normal((36, 1, 1, 8), dtype=np.float32)
    with backends.use("cpu"):
        assert_close(ops.conv2d(x, w, groups=3), oracles.conv2d(x, w, groups=3), FP32)
        dx = ops.conv_transpose2d(dy, w, groups=3, output_size=(61, 67))
    assert_close(dx, oracles.conv_transpose2d(dy, w, groups=3, output_size=(61, 67)), FP32)


GROUPS = [  # (N, H, W, C), (R, S), stride, padding, dilation, groups, of as many filters as channels
    ((2, 9, 31, 24), (3, 3), 1, 1, 1, 12),  # several groups in a vector, some of it empty
    ((1, 13, 8, 40), (3, 2), (2, 3), (1, 0), (1, 2), 10),
    ((3, 1, 1, 32), (3, 3), 1, 1, 1, 8),  # one pixel
    ((2, 6, 5, 7), (5, 4), (3, 1), (4, 3), 1, 7),  # a channel each
    ((1, 20, 17, 64), (1, 1), 2, 0, 1, 8),
    ((2, 9, 14, 24), (3, 5), (1, 2), (1, 3), (1, 2), 3),  # groups of one vector and of several, of 8, 16 and 4 lanes
    ((2, 7, 15, 64), (3, 3), 1, 1, (2, 1), 4),
    ((2, 6, 9, 12), (2, 4), 2, (1, 2), 1, 3),
    ((2, 7, 6, 96), (3, 3), 2, 1, 1, 6),
    ((3, 72, 72, 80), (3, 3), 2, 1, 1, 5),  # large images, one by one
]


@pytest.mark.parametrize("shape", GROUPS, ids=str)
def test_groups(shape, set_threads):
    """Right, and the same bits whatever the threads."""
    x_shape, kernel, stride, padding, dilation, groups = shape
    options = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": groups}
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = rng.standard_normal((x_shape[3], *kernel, x_shape[3] // groups), dtype=np.float32)
    b = rng.standard_normal(x_shape[3], dtype=np.float32)
    expected = oracles.conv2d(x, w, b, relu=True, **options)
    dy = rng.standard_normal(expected.shape, dtype=np.float32)
    sizes = {"output_size": x_shape[1:3]}
    results = []
    for threads in (1, 2, 5):
        set_threads(threads)
        with backends.use("cpu"):
            y, dx = ops.conv2d(x, w, b, relu=True, **options), ops.conv_transpose2d(dy, w, **sizes, **options)
            results.append((y, dx, ops.conv2d_weight_grad(x, dy, kernel_size=kernel, **options)))
    assert_close(y, expected, FP32)
    assert_close(dx, oracles.conv_transpose2d(dy, w, **sizes, **options), FP32)
    assert_close(results[0][2], oracles.conv2d_weight_grad(x, dy, kernel_size=kernel, **options), WEIGHT_GRAD)
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_groups_do_not_touch():
    x, dy = (np.ones((1, 6, 6, 16), np.float32) for _ in range(2))
    w = np.ones((16, 3, 3, 2), np.float32)
    x[..., 4], dy[..., 4] = np.nan, np.inf
    with backends.use("cpu"):
        y = ops.conv2d(x, w, padding=1, groups=8)
        dx = ops.conv_transpose2d(dy, w, padding=1, groups=8, output_size=(6, 6))
        dw = ops.conv2d_weight_grad(x, dy, kernel_size=3, padding=1, groups=8)
    of_others = [channel for channel in range(16) if channel not in (4, 5)]
    for grad, touched in ((y, y[..., 4:6]), (dx, dx[..., 4:6])):
        assert np.isfinite(grad[..., of_others]).all()
        assert not np.isfinite(touched).any()
    assert np.isfinite(dw[of_others]).all()
    assert not np.isfinite(dw[4]).any()


@pytest.mark.parametrize("direction", ["forward", "transpose", "weight_grad"])
@pytest.mark.parametrize(
    "layer",
    [
        *(WINOGRAD[1], WINOGRAD[8], FIRST_LAYER[0], DIRECT[0], DIRECT[7]),
        *(LINES[0], PIXELS[0], TAPS[0], PARTS[0], TAPS_IN_PLACE[0], TAPS_IN_PLACE[4], REGIONS[0], REGIONS[5]),
    ],
    ids=str,
)
def test_bits_do_not_depend_on_threads(layer, direction, set_threads):
    call, _, _ = directions(*layer)[direction]
    with backends.use("cpu"):
        results = []
        for threads in (1, 2, 5):
            set_threads(threads)
            results.append(call())
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    "layer", [((4111, 1, 1, 8), (1024, 1, 1), 1, 0), ((1, 173, 173, 5), (160, 3, 3), 1, 1)], ids=str
)
def test_bits_do_not_depend_on_what_goes_past_the_caches(layer, set_threads):
    """Nor on the threads, which cut the rows that do: results of more than 16 MB, at any address."""
    x_shape, filters, stride, padding = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = rng.standard_normal((*filters, x_shape[3]), dtype=np.float32)
    scale, b = (rng.standard_normal(filters[0], dtype=np.float32) for _ in range(2))
    shape = (x_shape[0], *oracles.output_size(x_shape[1:3], filters[1:], (stride,) * 2, (padding,) * 2), filters[0])
    results = []
    with backends.use("cpu"):
        for threads, shift in ((1, 0), (2, 0), (2, 1)):
            set_threads(threads)
            room = np.empty(np.prod(shape) + 32, np.float32)
            first = -(room.ctypes.data // 4) % 16 + shift
            out = room[first : first + np.prod(shape)].reshape(shape)
            results.append(ops.conv2d(x, w, b, scale=scale, stride=stride, padding=padding, out=out))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


# The ways of csrc/cpu/conv/block.cpp, the first three with maps larger than one group of images: x, filters, stride,
# padding; pool 3 x 3 stride 2 padding 1.
BLOCKS = [
    ((7, 41, 40, 8), (128, 1, 1), 1, 0),
    ((6, 29, 29, 64), (256, 3, 3), 1, 1),
    ((20, 41, 44, 24), (32, 3, 3), 1, 1),  # the last group has fewer images than there are parts
    ((2, 71, 60, 3), (96, 7, 7), 2, 1),  # a first layer, whose lines are made three at a time
]
POOL = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}


@pytest.mark.parametrize("layer", BLOCKS, ids=str)
def test_block(layer):
    x_shape, filters, stride, padding = layer
    rng = np.random.default_rng(0)
    conv = {"stride": pair(stride), "padding": pair(padding)}
    block = {**conv, "window": 3, "pool_stride": 2, "pool_padding": 1}
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = rng.standard_normal((*filters, x_shape[3]), dtype=np.float32)
    b = rng.standard_normal(filters[0], dtype=np.float32)
    with backends.use("cpu"):
        y, switches = ops.conv2d_relu_pool(x, w, b, **block)
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        dx = ops.unpool_conv_transpose2d(dy, switches, w, **block, output_size=x_shape[1:3], rectify=True)
        dw = ops.unpool_conv2d_weight_grad(x, dy, switches, **block, kernel_size=filters[1:])
    maps = oracles.conv2d(x, w, b, relu=True, **conv)
    assert_close(y, oracles.max_pool2d(maps, **POOL)[0])
    unpooled = oracles.max_unpool2d(dy, switches, **POOL, output_size=maps.shape[1:3])
    expected = oracles.conv_transpose2d(np.maximum(unpooled, 0), w, **conv, output_size=x_shape[1:3])
    assert_close(dx, expected)
    expected = oracles.conv2d_weight_grad(x, unpooled, **conv, kernel_size=filters[1:])
    assert_close(dw, expected, WEIGHT_GRAD)
