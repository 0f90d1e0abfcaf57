"""csrc/kernels/conv/image_patch.cuh: windows of few channels, read from a patch of the image."""

import dataclasses

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

WGRAD_TILES = ("patch 96x112", "patch 64x112")


def check_wgrad(device, arithmetic, conv, seed=0):
    rng = np.random.default_rng(seed)
    x, dy = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.output)
    to, kernel = device.array, conv.w[1:3]
    dw = ops.conv2d_weight_grad(to(x), to(dy), **conv.options, **arithmetic.options, kernel_size=kernel)
    expected = oracles.conv2d_weight_grad(x, dy, **conv.options, kernel_size=kernel)
    assert_close(dw, expected, arithmetic.weight_grad_tolerance, conv)


@pytest.mark.parametrize("number", range(80))
def test_random_weight_gradients(kernels, mma, force_plan, number):
    rng = np.random.default_rng(number)
    conv = random_narrow(rng)
    found = patches(candidates("conv2d_weight_grad", mma, conv))
    assert bool(found) == (conv.w[0] % (8 if mma.name == "bf16" else 4) == 0), conv
    if found:
        splits = (None, 1, 2, 65535)[number // 2 % 4]
        kernel = found[number % len(found)]
        force_plan(lambda every: next((one[0], splits or one[1]) for one in every if one[0] == kernel))
    check_wgrad(kernels, mma, conv, number)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tile", WGRAD_TILES)
def test_weight_gradients_of_first_layers(kernels, mma, force_plan, name, tile):
    conv = LAYERS[name]
    if name == "mnist":
        conv = dataclasses.replace(conv, w=(24, *conv.w[1:]))
    else:
        batch = dataclasses.replace(conv, x=(128, 224, 224, 3))
        assert patches(candidates("conv2d_weight_grad", mma, batch)[:1])
    force_plan(only(tile))
    check_wgrad(kernels, mma, conv)


@pytest.mark.parametrize("tile", WGRAD_TILES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_weight_gradients_with_every_alignment_of_windows(kernels, mma, force_plan, channels, stride, tile):
    force_plan(only(tile))
    for size in (stride, 2 * stride + 1):
        shape = (1, 2 * size, 11 * stride + size, channels)
        check_wgrad(kernels, mma, Conv(shape, (104, size, size, channels), (stride, stride), (0, 0, 1, 0)))


def test_weight_gradients_of_many_regions(kernels, mma, force_plan):
    """Several for each split, and several tiles of filters and of columns."""
    force_plan(lambda found: (next(one[0] for one in found if patches(one[:1])), 3))
    check_wgrad(kernels, mma, Conv(x=(3, 40, 60, 3), w=(104, 7, 11, 3), stride=(1, 1), padding=(3, 5)))


def test_weight_gradients_that_fall_back(kernels, mma):
    """Numbers of filters that copies of 16 bytes do not allow, and an array that is not aligned."""
    conv = Conv(x=(1, 9, 9, 3), w=(6, 3, 3, 3), stride=(1, 1), padding=(1, 1))
    assert not patches(candidates("conv2d_weight_grad", mma, conv))
    check_wgrad(kernels, mma, conv)
    if kernels.name == "cuda":
        return  # CuPy's allocations are aligned
    conv = LAYERS["vgg"]
    rng = np.random.default_rng(1)
    x, dy = mma.normal(rng, conv.x), mma.normal(rng, conv.output)
    memory = np.empty(dy.size + 32, dy.dtype)
    first = 1 + -memory.ctypes.data % 16 // dy.itemsize
    odd = memory[first : first + dy.size].reshape(dy.shape)
    odd[...] = dy
    dw = ops.conv2d_weight_grad(x, odd, **conv.options, **mma.options, kernel_size=3)
    expected = oracles.conv2d_weight_grad(x, dy, **conv.options, kernel_size=(3, 3))
    assert_close(dw, expected, mma.weight_grad_tolerance, conv)
