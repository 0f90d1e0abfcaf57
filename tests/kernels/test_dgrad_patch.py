"""csrc/kernels/conv/dgrad_patch.*: transposed convolution to few channels, all phases as one product."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels.test_conv import normal
from tests.shapes import Conv
from zfcuda import backends, ops

COLUMNS = {"fp32": (12, 4), "tf32": (16, 8), "bf16": (16, 8)}
LAYERS = {  # with fewer pixels
    "zfnet": Conv(x=(2, 33, 40, 3), w=(24, 7, 7, 3), stride=(2, 2), padding=(1, 1)),
    "vgg": Conv(x=(2, 17, 30, 3), w=(16, 3, 3, 3), stride=(1, 1), padding=(1, 1)),
    "alexnet": Conv(x=(1, 63, 63, 3), w=(16, 11, 11, 3), stride=(4, 4), padding=(2, 2)),
    "resnet": Conv(x=(1, 56, 56, 3), w=(64, 7, 7, 3), stride=(2, 2), padding=(3, 3)),
}


def is_patch(kernel):
    return " 512x" in kernel


def candidates(arithmetic, conv):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    padding = conv.padding if len(conv.padding) == 2 else tuple(conv.padding)
    shape = module.ConvShape(conv.x, conv.w, conv.stride, padding, conv.dilation, conv.groups)
    return module.plan_candidates("conv_transpose2d", arithmetic.name, shape, None)


def check(device, arithmetic, conv, seed=0):
    rng = np.random.default_rng(seed)
    y, w = arithmetic.normal(rng, conv.output), arithmetic.normal(rng, conv.w)
    options = {**conv.options, "output_size": conv.x[1:3]}
    x = ops.conv_transpose2d(device.array(y), device.array(w), **options, **arithmetic.options)
    assert_close(x, oracles.conv_transpose2d(y, w, **options), arithmetic.tolerance, conv)


def random_narrow(rng):
    """Dense, of one to four channels, with as many filters as copies of 16 bytes need, or other numbers."""
    while True:
        kernel, stride = (tuple(int(v) for v in rng.integers(1, most, 2)) for most in (10, 5))
        padding = tuple(int(rng.integers(0, size + 2)) for size in kernel for _ in range(2))
        height, width = (int(v) for v in rng.choice((1, 2, 7, 9, 15, 20, 31), 2))
        channels, filters = int(rng.integers(1, 5)), int(rng.choice((8, 8, 16, 24, 40, 12, 5)))
        x = (int(rng.integers(1, 4)), height, width, channels)
        conv = Conv(x, (filters, *kernel, channels), stride, padding)
        if min(conv.output[1:3]) >= 1 and conv.work <= 600_000:
            return conv


@pytest.mark.parametrize("number", range(60))
def test_random_shapes(kernels, arithmetic, force_plan, number):
    rng = np.random.default_rng(number)
    conv = random_narrow(rng)
    found = [one for one in candidates(arithmetic, conv) if is_patch(one[0])]
    assert bool(found) == (conv.w[0] % (8 if arithmetic.name == "bf16" else 4) == 0), conv
    if found:
        one = found[number % len(found)]
        splits = (one[1], 1, 2, 65535)[number % 4]
        force_plan(lambda candidates: (one[0], splits))
    check(kernels, arithmetic, conv, number)


@pytest.mark.parametrize("name", LAYERS)
def test_first_layers(kernels, arithmetic, name):
    """Untuned."""
    found = candidates(arithmetic, LAYERS[name])
    assert is_patch(found[0][0])
    check(kernels, arithmetic, LAYERS[name])


@pytest.mark.parametrize("taps", range(1, 10))
@pytest.mark.parametrize("wide", [True, False])
def test_every_number_of_tap_rows(kernels, arithmetic, force_plan, taps, wide):
    columns = COLUMNS[arithmetic.name][not wide]
    force_plan(lambda found: next(one for one in found if one[0].endswith(f" 512x{columns}")))
    check(kernels, arithmetic, Conv(x=(1, 19, 13, 3), w=(24, taps, 2, 3), stride=(1, 2), padding=(taps // 2, 1)))


def test_one_pixel(kernels, arithmetic, force_plan):
    force_plan(lambda found: next(one for one in found if is_patch(one[0])))
    check(kernels, arithmetic, Conv(x=(3, 1, 1, 2), w=(8, 1, 1, 2), stride=(1, 1), padding=(0, 0)))
    check(kernels, arithmetic, Conv(x=(2, 1, 1, 1), w=(8, 3, 3, 1), stride=(3, 2), padding=(1, 1)))


def test_strides_beyond_the_filter(kernels, arithmetic, force_plan):
    """Phases without taps are zero."""
    force_plan(lambda found: next(one for one in found if is_patch(one[0])))
    check(kernels, arithmetic, Conv(x=(2, 17, 14, 3), w=(8, 2, 1, 3), stride=(4, 3), padding=(0, 0)))


@pytest.mark.parametrize(
    "conv",
    [
        Conv(x=(1, 20, 20, 3), w=(16, 3, 3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 1)),
        Conv(x=(1, 9, 9, 4), w=(16, 3, 3, 2), stride=(1, 1), padding=(1, 1), groups=2),
        Conv(x=(1, 9, 9, 5), w=(16, 3, 3, 5), stride=(1, 1), padding=(1, 1)),
        Conv(x=(1, 9, 9, 3), w=(6, 3, 3, 3), stride=(1, 1), padding=(1, 1)),
        Conv(x=(1, 9, 30, 3), w=(16, 3, 11, 3), stride=(1, 1), padding=(1, 1)),  # wider than a patch
        Conv(x=(1, 60, 9, 3), w=(16, 50, 9, 3), stride=(1, 1), padding=(1, 4)),  # no room for its filters
        Conv(x=(1, 2000, 3, 1), w=(8, 1500, 1, 1), stride=(1, 1), padding=(0, 0)),
        Conv(x=(1, 20, 20, 3), w=(16, 7, 7, 3), stride=(6, 6), padding=(1, 1)),  # too many columns
    ],
    ids=["dilation", "groups", "channels", "filters", "width", "taps", "height", "stride"],
)
def test_what_falls_back(kernels, arithmetic, conv):
    assert not any(is_patch(kernel) for kernel, _ in candidates(arithmetic, conv))
    check(kernels, arithmetic, conv)


def test_an_array_that_is_not_aligned(kernels, arithmetic):
    if kernels.name == "cuda":
        pytest.skip("cuda: CuPy's allocations are aligned")
    conv = LAYERS["vgg"]
    rng = np.random.default_rng(1)
    y, w = arithmetic.normal(rng, conv.output), arithmetic.normal(rng, conv.w)
    memory = np.empty(y.size + 32, y.dtype)
    first = 1 + -memory.ctypes.data % 16 // y.itemsize
    odd = memory[first : first + y.size].reshape(y.shape)
    odd[...] = y
    options = {**conv.options, "output_size": conv.x[1:3]}
    x = ops.conv_transpose2d(odd, w, **options, **arithmetic.options)
    assert_close(x, oracles.conv_transpose2d(y, w, **options), arithmetic.tolerance, conv)


def test_through_the_switches_of_a_pool(kernels, arithmetic):
    """The deconvnet's last step."""
    rng = np.random.default_rng(5)
    conv = LAYERS["zfnet"]
    pool = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}
    maps = normal(rng, conv.output)
    pooled, switches = oracles.max_pool2d(maps, **pool)
    dy, w = arithmetic.coarse(rng, pooled.shape), arithmetic.normal(rng, conv.w)
    own = {**conv.options, "window": 3, "pool_stride": 2, "pool_padding": 1, "output_size": conv.x[1:3]}
    to = kernels.array
    x = ops.unpool_conv_transpose2d(
        to(dy), to(switches.astype(np.uint8)), to(w), **own, rectify=True, **arithmetic.options
    )
    signal = np.maximum(oracles.max_unpool2d(dy, switches, **pool, output_size=conv.output[1:3]), 0)
    expected = oracles.conv_transpose2d(signal, w, **conv.options, output_size=conv.x[1:3])
    assert_close(x, expected, arithmetic.tolerance, conv)
