"""csrc/kernels/conv/image_patch.cuh: windows of few channels, read from a patch of the image."""

import dataclasses
import math

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels.test_conv import conv2d_to_channels, normal
from tests.shapes import Conv
from zfcuda import backends, ops

TILES = ("patch 128x96", "patch 128x64")
LAYERS = {  # with fewer pixels
    "zfnet": Conv(x=(2, 33, 40, 3), w=(96, 7, 7, 3), stride=(2, 2), padding=(1, 1)),
    "vgg": Conv(x=(2, 17, 30, 3), w=(64, 3, 3, 3), stride=(1, 1), padding=(1, 1)),
    "alexnet": Conv(x=(1, 63, 63, 3), w=(96, 11, 11, 3), stride=(4, 4), padding=(2, 2)),
    "resnet": Conv(x=(1, 56, 56, 3), w=(64, 7, 7, 3), stride=(2, 2), padding=(3, 3)),
    "mnist": Conv(x=(3, 28, 28, 1), w=(20, 5, 5, 1), stride=(1, 1), padding=(0, 0)),
}
POOL = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}


def candidates(operation, arithmetic, conv, pool=None):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    shape = module.ConvShape(conv.x, conv.w, conv.stride, conv.padding, conv.dilation, conv.groups)
    if pool:
        pool = module.PoolShape(shape.output, pool["window"], pool["stride"], pool["padding"], False)
    return [kernel for kernel, _ in module.plan_candidates(operation, arithmetic.name, shape, pool)]


def patches(kernels):
    return [kernel for kernel in kernels if kernel.startswith("patch")]


def only(name):
    """Of the candidates, the kernel of this name, whatever the operation."""
    return lambda found: next((one for one in found if one[0] == name), None)


def check(device, arithmetic, conv, seed=0, relu=True):
    rng = np.random.default_rng(seed)
    x, w, b = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w), normal(rng, conv.w[0])
    to = device.array
    options = {**conv.options, **arithmetic.options, "relu": relu}
    expected = oracles.conv2d(x, w, b, **conv.options, relu=relu)
    assert_close(ops.conv2d(to(x), to(w), to(b), **options), expected, arithmetic.tolerance, conv)
    before, after = (int(n) for n in rng.choice([0, 1, 4, 8], 2))
    y = conv2d_to_channels(to, x, w, b, conv.output, before, after, **options)
    assert_close(y, expected, arithmetic.tolerance, (conv, before, after))


def check_block(device, arithmetic, conv, pool, seed=0):
    rng = np.random.default_rng(seed)
    x, w, b = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w), normal(rng, conv.w[0])
    to = device.array
    own = {"window": pool["window"], "pool_stride": pool["stride"], "pool_padding": pool["padding"]}
    y, switches = ops.conv2d_relu_pool(to(x), to(w), to(b), **conv.options, **own, **arithmetic.options)
    maps = oracles.conv2d(x, w, b, **conv.options, relu=True)
    assert_close(y, oracles.max_pool2d(maps, **pool)[0], arithmetic.tolerance, (conv, pool))
    # Where the switches point, the map has what was pooled: rounding may choose among equals.
    pointed = oracles.max_pool2d(maps, **pool)
    found = device.numpy(switches)
    agree = np.mean(found == pointed[1])
    assert agree > (0.99 if arithmetic.name == "tf32" else 0.9), (agree, conv, pool)


def random_narrow(rng, max_work=600_000):
    """Dense, of one to four channels."""
    while True:
        kernel, stride = (tuple(int(v) for v in rng.integers(1, most, 2)) for most in (10, 6))
        padding = tuple(int(rng.integers(0, size + 2)) for size in kernel for _ in range(2))
        height, width = (int(v) for v in rng.choice((1, 2, 7, 9, 15, 20, 31), 2))
        channels, filters = int(rng.integers(1, 5)), int(rng.choice((1, 5, 8, 16, 24, 64, 70, 100)))
        conv = Conv((int(rng.integers(1, 4)), height, width, channels), (filters, *kernel, channels), stride, padding)
        if min(conv.output[1:3]) >= 1 and conv.work <= max_work:
            return conv


@pytest.mark.parametrize("number", range(80))
def test_random_shapes(kernels, arithmetic, force_plan, number):
    rng = np.random.default_rng(number)
    conv = random_narrow(rng)
    assert set(patches(candidates("conv2d", arithmetic, conv))) == set(TILES)
    force_plan(only(TILES[number % 2]))
    check(kernels, arithmetic, conv, number, relu=number % 3 == 0)


@pytest.mark.parametrize("number", range(60))
def test_random_blocks(kernels, arithmetic, force_plan, number):
    rng = np.random.default_rng(number)
    while True:
        conv = random_narrow(rng)
        window, stride = (tuple(int(v) for v in rng.integers(1, 5, 2)) for _ in range(2))
        padding = tuple(int(rng.integers(0, size)) for size in window for _ in range(2))
        size = conv.output[1:3]
        if all(n + padding[2 * i] + padding[2 * i + 1] >= window[i] for i, n in enumerate(size)):
            break
    pool = {"window": window, "stride": stride, "padding": padding}
    force_plan(only(TILES[number % 2]))
    check_block(kernels, arithmetic, conv, pool, number)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tile", TILES)
def test_first_layers(kernels, arithmetic, force_plan, name, tile):
    """What an untuned plan chooses for a batch."""
    conv = LAYERS[name]
    size = 28 if name == "mnist" else 224
    batch = dataclasses.replace(conv, x=(128, size, size, conv.x[3]))
    if name != "mnist" or arithmetic.name != "fp32":  # there most of the patch would be padding
        assert patches(candidates("conv2d", arithmetic, batch)[:1])
    if name in ("zfnet", "resnet") or (name == "alexnet" and arithmetic.name != "fp32"):
        assert patches(candidates("conv2d_relu_pool", arithmetic, batch, POOL)[:1])
    force_plan(only(tile))
    check(kernels, arithmetic, conv)
    check_block(kernels, arithmetic, conv, POOL)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_every_alignment_of_windows(kernels, arithmetic, force_plan, channels, stride, tile):
    """Each number of pixels in a chunk, of shifted copies and of planes."""
    force_plan(only(tile))
    for size in (stride, 2 * stride + 1):
        conv = Conv(
            (1, 2 * size, 11 * stride + size, channels), (7, size, size, channels), (stride, stride), (0, 0, 1, 0)
        )
        check(kernels, arithmetic, conv)


def test_one_pixel(kernels, arithmetic, force_plan):
    force_plan(lambda found: next(one for one in found if patches(one[:1])))
    check(kernels, arithmetic, Conv(x=(3, 1, 1, 2), w=(8, 1, 1, 2), stride=(1, 1), padding=(0, 0)))
    conv = Conv(x=(2, 1, 1, 1), w=(5, 3, 3, 1), stride=(3, 2), padding=(1, 1))
    check(kernels, arithmetic, conv)
    check_block(kernels, arithmetic, conv, {"window": (1, 1), "stride": (2, 2), "padding": (0, 0)})


@pytest.mark.parametrize(
    "conv",
    [
        Conv(x=(1, 20, 20, 3), w=(16, 3, 3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 1)),
        Conv(x=(1, 9, 9, 4), w=(16, 3, 3, 2), stride=(1, 1), padding=(1, 1), groups=2),
        Conv(x=(1, 9, 9, 5), w=(16, 3, 3, 5), stride=(1, 1), padding=(1, 1)),
        Conv(x=(1, 80, 9, 1), w=(8, 70, 1, 1), stride=(1, 1), padding=(0, 0)),  # higher than any patch
        Conv(x=(1, 70, 9, 1), w=(8, 1, 1, 1), stride=(65, 1), padding=(0, 0)),
        Conv(x=(1, 300, 300, 3), w=(2, 60, 60, 3), stride=(16, 16), padding=(0, 0)),  # no room for it
    ],
    ids=["dilation", "groups", "channels", "height", "stride", "room"],
)
def test_what_falls_back(kernels, arithmetic, conv):
    assert not patches(candidates("conv2d", arithmetic, conv))
    check(kernels, arithmetic, conv)


def test_arrays_that_are_not_aligned(kernels, arithmetic, force_plan):
    if kernels.name == "cuda":
        pytest.skip("cuda: CuPy's allocations are aligned")
    force_plan(lambda found: next(one for one in found if patches(one[:1])))
    conv = LAYERS["vgg"]
    rng = np.random.default_rng(1)
    arrays = [arithmetic.normal(rng, shape) for shape in (conv.x, conv.w)]
    odd = []
    for array in arrays:
        memory = np.empty(array.size + 32, array.dtype)
        first = 1 + -memory.ctypes.data % 16 // array.itemsize
        odd.append(memory[first : first + array.size].reshape(array.shape))
        odd[-1][...] = array
    y = ops.conv2d(*odd, **conv.options, **arithmetic.options)
    assert_close(y, oracles.conv2d(*arrays, None, **conv.options, relu=False), arithmetic.tolerance, conv)


def test_splits(kernels, arithmetic):
    """The depth is not split."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module, conv = backends.get("emulated").module, LAYERS["vgg"]
    shape = module.ConvShape(conv.x, conv.w, conv.stride, conv.padding, (1, 1), 1)
    with pytest.raises(ValueError, match="splits of patch 128x64 must be from 1 to 1, got 2"):
        module.check_plan("conv2d", arithmetic.name, shape, None, "patch 128x64", 2)


# ---- The weight gradient ---------------------------------------------------------------------------------------------


def wgrad_tiles(arithmetic, channels=3):
    if arithmetic.name != "fp32":
        return ("patch 96x112", "patch 64x112")
    return ("patch 96x168", "patch 64x168") if channels == 3 else ("patch 64x224",)


def may_read_patches(arithmetic, conv):
    """Whole vectors of filters, and in float32 four neighbouring windows that begin at the same place in a chunk."""
    if conv.w[0] % (8 if arithmetic.name == "bf16" else 4):
        return False
    pixels = {1: 4, 2: 2}.get(conv.x[3], 1)
    return arithmetic.name != "fp32" or conv.output[2] >= 4 * pixels // math.gcd(pixels, conv.stride[1])


def check_wgrad(device, arithmetic, conv, seed=0):
    rng = np.random.default_rng(seed)
    x, dy = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.output)
    to, kernel = device.array, conv.w[1:3]
    dw = ops.conv2d_weight_grad(to(x), to(dy), **conv.options, **arithmetic.options, kernel_size=kernel)
    expected = oracles.conv2d_weight_grad(x, dy, **conv.options, kernel_size=kernel)
    assert_close(dw, expected, arithmetic.weight_grad_tolerance, conv)


def take_turns_at_weight_gradients(force_plan, kernels, number):
    """At tiles and splits."""
    splits = (None, 1, 2, 65535)[number // 2 % 4]
    kernel = kernels[number % len(kernels)]
    force_plan(lambda every: next((one[0], splits or one[1]) for one in every if one[0] == kernel))


@pytest.mark.parametrize("number", range(80))
def test_random_weight_gradients(kernels, arithmetic, force_plan, number):
    conv = random_narrow(np.random.default_rng(number))
    found = patches(candidates("conv2d_weight_grad", arithmetic, conv))
    may = may_read_patches(arithmetic, conv)
    assert set(found) == (set(wgrad_tiles(arithmetic, conv.x[3])) if may else set()), conv
    if found:
        take_turns_at_weight_gradients(force_plan, found, number)
    check_wgrad(kernels, arithmetic, conv, number)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("number", range(15))
def test_random_weight_gradients_of_wide_maps(kernels, arithmetic, force_plan, number, channels):
    """Lines that end within a group of windows, and regions that the map's end moves back."""
    rng, found = np.random.default_rng(number), []
    while not found:
        narrow, height, width = random_narrow(rng), int(rng.integers(1, 40)), int(rng.integers(8, 90))
        x, w = (narrow.x[0], height, width, channels), (int(rng.choice((8, 40, 72, 104))), *narrow.w[1:3], channels)
        conv = Conv(x, w, narrow.stride, narrow.padding)
        if min(conv.output[1:3]) >= 1 and conv.work <= 4_000_000:
            found = patches(candidates("conv2d_weight_grad", arithmetic, conv))
    take_turns_at_weight_gradients(force_plan, found, number)
    check_wgrad(kernels, arithmetic, conv, number)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tile", [0, 1])
def test_weight_gradients_of_first_layers(kernels, arithmetic, force_plan, name, tile):
    conv = LAYERS[name]
    if name == "mnist":
        conv = dataclasses.replace(conv, w=(24, *conv.w[1:]))
    elif arithmetic.name != "fp32" or name in ("zfnet", "resnet"):
        batch = dataclasses.replace(conv, x=(128, 224, 224, 3))
        assert patches(candidates("conv2d_weight_grad", arithmetic, batch)[:1])
    tiles = wgrad_tiles(arithmetic, conv.x[3])
    force_plan(only(tiles[tile % len(tiles)]))
    check_wgrad(kernels, arithmetic, conv)


@pytest.mark.parametrize("tile", [0, 1])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_weight_gradients_with_every_alignment_of_windows(kernels, arithmetic, force_plan, channels, stride, tile):
    tiles = wgrad_tiles(arithmetic, channels)
    force_plan(only(tiles[tile % len(tiles)]))
    for size in (stride, 2 * stride + 1):
        shape = (1, 2 * size, 17 * stride + size, channels)
        check_wgrad(kernels, arithmetic, Conv(shape, (104, size, size, channels), (stride, stride), (0, 0, 1, 0)))


def test_weight_gradients_of_many_regions(kernels, arithmetic, force_plan):
    """Several for each split, and several tiles of filters and of columns."""
    force_plan(lambda found: (next(one[0] for one in found if patches(one[:1])), 3))
    check_wgrad(kernels, arithmetic, Conv(x=(3, 40, 60, 3), w=(104, 7, 11, 3), stride=(1, 1), padding=(3, 5)))


def test_weight_gradients_that_fall_back(kernels, arithmetic, force_plan):
    """Numbers of filters that copies of 16 bytes do not allow, and an array that is not aligned."""
    conv = Conv(x=(1, 9, 9, 3), w=(6, 3, 3, 3), stride=(1, 1), padding=(1, 1))
    assert not patches(candidates("conv2d_weight_grad", arithmetic, conv))
    check_wgrad(kernels, arithmetic, conv)
    if kernels.name == "cuda":
        return  # CuPy's allocations are aligned
    force_plan(lambda found: next(one for one in found if patches(one[:1])))
    conv = LAYERS["zfnet"]
    rng = np.random.default_rng(1)
    x, dy = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.output)
    memory = np.empty(dy.size + 32, dy.dtype)
    first = 1 + -memory.ctypes.data % 16 // dy.itemsize
    odd = memory[first : first + dy.size].reshape(dy.shape)
    odd[...] = dy
    dw = ops.conv2d_weight_grad(x, odd, **conv.options, **arithmetic.options, kernel_size=7)
    expected = oracles.conv2d_weight_grad(x, dy, **conv.options, kernel_size=(7, 7))
    assert_close(dw, expected, arithmetic.weight_grad_tolerance, conv)
