"""Every kernel of csrc/kernels/conv/ that can be launched: each tile at each vector width, forced by a plan, on shapes
that leave the last tile ragged and on ones that need the depth to be split."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels.plans import with_tile
from tests.kernels.test_conv import conv2d_to_channels, normal
from tests.shapes import CONV_TILES, ELEMENTS
from zfcuda import ops

# (input channels, filters): 16-byte copies on both sides, on one, on neither.
CHANNELS = ((8, 16), (3, 16), (8, 5), (3, 5))
POOL = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}


def check_all(device, arithmetic, n, size, c, k, kernel, stride, padding, **sparse):
    """Every operation on a convolution and on its block, against float64; `sparse`: dilation and groups."""
    rng = np.random.default_rng(c * 100 + k)
    x, b = arithmetic.normal(rng, (n, *size, c)), normal(rng, k)
    w = arithmetic.normal(rng, (k, *kernel, c // sparse.get("groups", 1)))
    conv = {"stride": stride, "padding": padding, **sparse}
    asked = conv | arithmetic.options
    own = asked | {"window": POOL["window"], "pool_stride": POOL["stride"], "pool_padding": POOL["padding"]}
    to = device.array
    maps = oracles.conv2d(x, w, b, **conv, relu=True)
    assert_close(
        ops.conv2d(to(x), to(w), to(b), **asked, relu=True),
        maps,
        arithmetic.tolerance,
        "conv2d",
    )
    for before, after in ((8, 16), (3, 0)):
        assert_close(
            conv2d_to_channels(to, x, w, b, maps.shape, before, after, **asked, relu=True),
            maps,
            arithmetic.tolerance,
            ("conv2d to channels", before, after),
        )
    add, scale = arithmetic.normal(rng, maps.shape), normal(rng, k)
    assert_close(
        ops.conv2d(to(x), to(w), to(b), scale=to(scale), add=to(add), **asked, relu=True),
        oracles.conv2d(x, w, b, scale=scale, add=add, **conv, relu=True),
        arithmetic.tolerance,
        "conv2d with scale and add",
    )
    pooled, _ = oracles.max_pool2d(maps, **POOL)
    y, switches = ops.conv2d_relu_pool(to(x), to(w), to(b), **own)
    assert_close(y, pooled, arithmetic.tolerance, "conv2d_relu_pool")

    dy = arithmetic.normal(rng, maps.shape)
    expected = oracles.conv_transpose2d(dy, w, **conv, output_size=size)
    actual = ops.conv_transpose2d(to(dy), to(w), **asked, output_size=size)
    assert_close(actual, expected, arithmetic.tolerance, "conv_transpose2d")
    expected = oracles.conv2d_weight_grad(x, dy, **conv, kernel_size=kernel)
    actual = ops.conv2d_weight_grad(to(x), to(dy), **asked, kernel_size=kernel)
    assert_close(actual, expected, arithmetic.weight_grad_tolerance, "conv2d_weight_grad")

    dy, switches = arithmetic.coarse(rng, pooled.shape), device.numpy(switches)
    unpooled = oracles.max_unpool2d(dy, switches, **POOL, output_size=maps.shape[1:3])
    for rectify in (False, True):
        signal = np.maximum(unpooled, 0) if rectify else unpooled
        expected = oracles.conv_transpose2d(signal, w, **conv, output_size=size)
        actual = ops.unpool_conv_transpose2d(to(dy), to(switches), to(w), **own, output_size=size, rectify=rectify)
        assert_close(actual, expected, arithmetic.tolerance, ("unpool_conv_transpose2d", rectify))
    expected = oracles.conv2d_weight_grad(x, unpooled, **conv, kernel_size=kernel)
    actual = ops.unpool_conv2d_weight_grad(to(x), to(dy), to(switches), **own, kernel_size=kernel)
    assert_close(actual, expected, arithmetic.weight_grad_tolerance, "unpool_conv2d_weight_grad")


@pytest.mark.parametrize("tile", CONV_TILES)
@pytest.mark.parametrize(("c", "k"), CHANNELS)
def test_ragged(kernels, arithmetic, force_plan, tile, c, k):
    force_plan(with_tile(tile))
    check_all(kernels, arithmetic, 2, (15, 12), c, k, kernel=(3, 2), stride=(2, 1), padding=(1, 1))


@pytest.mark.parametrize("tile", CONV_TILES)
def test_more_than_one_tile(kernels, arithmetic, force_plan, tile):
    force_plan(with_tile(tile))
    check_all(kernels, arithmetic, 1, (26, 24), 40, 136, kernel=(1, 2), stride=(1, 1), padding=(0, 1))


@pytest.mark.parametrize("tile", CONV_TILES)
@pytest.mark.parametrize(("c", "k"), CHANNELS)
def test_groups_and_dilation(kernels, arithmetic, force_plan, tile, c, k):
    force_plan(with_tile(tile))
    geometry = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (2, 3)}
    check_all(kernels, arithmetic, 2, (13, 12), 3 * c, 3 * k, **geometry, groups=3)


def test_split_depth_in_groups(kernels, arithmetic):
    """Partial sums of all groups, with bias and ReLU after the last."""
    check_all(kernels, arithmetic, 1, (4, 5), 144, 80, (3, 3), (1, 1), (2, 2), dilation=(2, 2), groups=2)


@pytest.mark.parametrize(("stride", "dilation"), [(2, 2), (4, 2), (2, 3), (3, 4), (6, 4), (4, 6)])
def test_strides_and_dilations_with_common_factors(device, arithmetic, stride, dilation):
    """Phases of the data gradient without taps, and with every so many of them."""
    pairs = {"stride": (stride, 1), "dilation": (dilation, dilation)}
    check_all(device, arithmetic, 1, (23, 17), 4, 3, (4, 3), padding=(3, 1), **pairs)


@pytest.mark.parametrize(("c", "k"), [(72, 72), (67, 71)])
def test_split_depth(kernels, arithmetic, c, k):
    """A small map with a long depth: partial sums, with bias and ReLU after the last."""
    check_all(kernels, arithmetic, 1, (5, 6), c, k, kernel=(3, 3), stride=(1, 1), padding=(1, 1))


def test_split_depth_of_a_weight_gradient(kernels, arithmetic):
    check_all(kernels, arithmetic, 2, (20, 21), 3, 4, kernel=(3, 3), stride=(1, 1), padding=(1, 1))


def test_tf32_rounds_its_factors_to_nearest(kernels):
    """2^-11 is half of the last bit; ties are rounded as the GPU does."""
    x = np.array([1 + 2**-12, 1 + 2**-11 + 2**-23, -1 - 2**-11 - 2**-23, 1 + 2**-10], np.float32).reshape(1, 1, 4, 1)
    one = kernels.array(np.ones((1, 1, 1, 1), np.float32))
    y = kernels.numpy(ops.conv2d(kernels.array(x), one, precision="tf32"))
    np.testing.assert_array_equal(y.ravel(), [1, 1 + 2**-10, -1 - 2**-10, 1 + 2**-10])
    np.testing.assert_array_equal(kernels.numpy(ops.conv2d(kernels.array(x), one)), x)


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
def test_tf32_keeps_what_is_not_finite(kernels, force_plan, bits):
    """Whatever the payload of a NaN: that of a GPU is 0x7fffffff, its opposite 0xffffffff. Kernels that read patches of
    the image multiply a window's neighbours by zero (test_image_patch.py)."""
    force_plan(with_tile("64x64"))
    x = np.ones((1, 1, 3, 1), np.float32)
    x.view(np.uint32)[0, 0, 1] = bits
    one = np.ones((1, 1, 1, 1), np.float32)
    for factors in ((x, one), (one, x.reshape(3, 1, 1, 1))):
        y = kernels.numpy(ops.conv2d(*map(kernels.array, factors), precision="tf32"))
        np.testing.assert_array_equal(y.ravel(), x.ravel())


def test_windows_that_cover_a_pixel_three_times(kernels):
    """Too many to be read through switches, or to leave a tile for pooling."""
    rng = np.random.default_rng(7)
    x, w = normal(rng, (1, 9, 9, 4)), normal(rng, (8, 3, 3, 4))
    own = {"stride": 1, "padding": 1, "window": 5, "pool_stride": 2, "pool_padding": 2}
    to = kernels.array
    y, switches = ops.conv2d_relu_pool(to(x), to(w), None, **own)
    maps = oracles.conv2d(x, w, None, stride=(1, 1), padding=(1, 1), relu=True)
    pool = {"window": (5, 5), "stride": (2, 2), "padding": (2, 2)}
    assert_close(y, oracles.max_pool2d(maps, **pool)[0], what="conv2d_relu_pool")
    dy, switches = normal(rng, (1, 5, 5, 8)), kernels.numpy(switches)
    maps = np.maximum(oracles.max_unpool2d(dy, switches, **pool, output_size=(9, 9)), 0)
    expected = oracles.conv_transpose2d(maps, w, stride=(1, 1), padding=(1, 1), output_size=(9, 9))
    actual = ops.unpool_conv_transpose2d(to(dy), to(switches), to(w), **own, output_size=(9, 9), rectify=True)
    assert_close(actual, expected, what="unpool_conv_transpose2d")


def test_a_window_that_fits_no_tile(kernels):
    rng = np.random.default_rng(8)
    x, w = normal(rng, (1, 20, 20, 2)), normal(rng, (4, 1, 1, 2))
    own = {"stride": 1, "padding": 0, "window": (14, 18), "pool_stride": 2, "pool_padding": 0}
    y, _ = ops.conv2d_relu_pool(kernels.array(x), kernels.array(w), None, **own)
    maps = oracles.conv2d(x, w, None, stride=(1, 1), padding=(0, 0), relu=True)
    expected, _ = oracles.max_pool2d(maps, window=(14, 18), stride=(2, 2), padding=(0, 0))
    assert_close(y, expected, what="conv2d_relu_pool")


@pytest.mark.parametrize("tile", ["256x96", "128x64"])
def test_a_fused_block_is_the_operations_one_by_one(kernels, arithmetic, force_plan, tile):
    """Bit for bit, switches too: bfloat16 maps are rounded before they are pooled. A kernel that reads patches adds up
    in another order."""

    def copying(candidates):
        return with_tile(tile)(candidates) or next(one for one in candidates if not one[0].startswith("patch"))

    force_plan(copying)
    rng = np.random.default_rng(11)
    x, w = (kernels.array(arithmetic.normal(rng, shape)) for shape in ((2, 17, 14, 3), (40, 3, 3, 3)))
    b = kernels.array(normal(rng, 40))
    own = {"stride": 1, "padding": 1, "window": 3, "pool_stride": 2, "pool_padding": 1}
    fused = ops.conv2d_relu_pool(x, w, b, **own, **arithmetic.options)
    maps = ops.conv2d(x, w, b, stride=1, padding=1, relu=True, **arithmetic.options)
    composed = ops.max_pool2d(maps, window=3, stride=2, padding=1)
    for one, other in zip(fused, composed, strict=True):
        np.testing.assert_array_equal(kernels.numpy(one), kernels.numpy(other))


def test_nan_wins_in_a_fused_block(kernels):
    x = np.ones((1, 6, 6, 4), np.float32)
    x[0, 2, 3, 1] = np.nan
    w = np.ones((4, 1, 1, 4), np.float32)
    own = {"stride": 1, "padding": 0, "window": 2, "pool_stride": 2}
    y, switches = ops.conv2d_relu_pool(kernels.array(x), kernels.array(w), None, **own)
    assert np.isnan(kernels.numpy(y)[0, 1, 1]).all()
    assert (kernels.numpy(switches)[0, 1, 1] == 1).all()


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_bias_grad_in_two_passes(kernels, dtype):
    for channels in (8, 5):
        dy = normal(np.random.default_rng(channels), (1500, channels)).astype(dtype)
        db = ops.conv2d_bias_grad(kernels.array(dy))
        assert_close(db, dy.astype(np.float64).sum(0), what=channels)


def test_arrays_that_are_not_aligned(kernels, arithmetic):
    """Arrays whose first element lies one element beyond a 16-byte boundary."""
    if kernels.name == "cuda":
        pytest.skip("cuda: CuPy's allocations are aligned")
    rng = np.random.default_rng(9)

    def odd(shape, dtype=arithmetic.dtype):
        size, first = int(np.prod(shape)), 16 // np.dtype(dtype).itemsize
        array = np.empty(size + 2 * first, dtype)
        start = first + 1 - array.ctypes.data % 16 // array.itemsize
        view = array[start : start + size].reshape(shape)
        view[...] = normal(rng, shape)
        return view

    x, w, dy = odd((1, 6, 6, 8)), odd((8, 3, 3, 8)), odd((1, 6, 6, 8))
    conv = {"stride": (1, 1), "padding": (1, 1)}
    out = odd(dy.shape)
    ops.conv2d(x, w, None, **conv, **arithmetic.options, out=out)
    assert_close(out, oracles.conv2d(x, w, None, **conv, relu=False), arithmetic.tolerance, "conv2d")
    expected = oracles.conv_transpose2d(dy, w, **conv, output_size=(6, 6))
    out = odd(x.shape)
    ops.conv_transpose2d(dy, w, **conv, output_size=(6, 6), **arithmetic.options, out=out)
    assert_close(out, expected, arithmetic.tolerance, "conv_transpose2d")
    out = odd(w.shape, np.float32)
    ops.conv2d_weight_grad(x, dy, **conv, kernel_size=3, **arithmetic.options, out=out)
    assert_close(
        out,
        oracles.conv2d_weight_grad(x, dy, **conv, kernel_size=(3, 3)),
        arithmetic.weight_grad_tolerance,
        "weight_grad",
    )


@pytest.mark.parametrize("tile", CONV_TILES)
@pytest.mark.parametrize(
    ("window", "padding"), [((3, 3), (1, 1)), ((2, 3), (0, 0)), ((2, 2), (0, 1)), ((1, 2), (0, 0))]
)
def test_a_gradient_through_switches_is_that_of_its_map(kernels, arithmetic, force_plan, tile, window, padding):
    """Where quads of pixels hang over the map's edges, too, and what would be read there is infinite; switches that
    name no cell of their window count nothing."""
    rng = np.random.default_rng(10)
    x = arithmetic.normal(rng, (2, 9, 11, 8))
    x[:, 8], x[:, :, 10] = np.inf, np.inf  # no window of the filters reaches these
    pool = {"window": window, "stride": (2, 2), "padding": padding}
    pooled, _ = oracles.max_pool2d(np.zeros((2, 4, 5, 16)), **pool)
    dy = arithmetic.coarse(rng, pooled.shape)
    switches = rng.integers(0, 256, pooled.shape).astype(np.uint8)
    likely = rng.random(pooled.shape) < 0.7
    switches[likely] = rng.integers(0, np.prod(window), likely.sum())
    own = {"stride": 2, "padding": 0, "window": window, "pool_stride": 2, "pool_padding": padding}

    def weight_grad(choose):
        force_plan(choose)
        to = kernels.array
        return ops.unpool_conv2d_weight_grad(to(x), to(dy), to(switches), **own, **arithmetic.options, kernel_size=2)

    composed = weight_grad(lambda found: next((one for one in found if one[0] == "composed"), None))
    through = weight_grad(with_tile(tile))
    assert_close(through, kernels.numpy(composed).astype(np.float64), 1e-5, (tile, window, padding))
