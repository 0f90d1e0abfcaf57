"""csrc/kernels/conv/padded_sums.cuh: an infinity or a NaN reaches the results that see it, and no other, also where
kernels multiply more than windows have."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels import test_dgrad_patch, test_image_patch
from tests.kernels.test_conv import normal
from tests.kernels.test_image_patch import patches
from tests.shapes import Conv
from zfcuda import ops

VALUES = (np.nan, np.inf, -np.inf)
POOL = test_image_patch.POOL


def take_turns(force_plan, is_wanted, number):
    """Plans with the kernels that read patches, one after the other."""

    def choose(found):
        wanted = [one for one in found if is_wanted(one[0])]
        return wanted[number % len(wanted)] if wanted else None

    force_plan(choose)


def spoil(rng, array, value):
    """One pixel of an image, in one channel."""
    spoilt = array.copy()
    spoilt[tuple(rng.integers(0, size) for size in array.shape)] = value
    return spoilt


def assert_reached(actual, expected, tolerance, what):
    """Not finite where `expected` is not; everything else as near as ever."""
    finite, zero = np.isfinite(expected), np.zeros((), actual.dtype)
    np.testing.assert_array_equal(np.isfinite(actual.astype(np.float64)), finite, err_msg=str(what))
    assert_close(np.where(finite, actual, zero), np.where(finite, expected, 0), tolerance, what)


def assert_same(device, actual, expected, tolerance, what):
    """Infinite and NaN like `expected`."""
    actual = device.numpy(actual)
    assert_reached(actual, expected, tolerance, what)
    finite = np.isfinite(expected)
    wide = actual.astype(np.float64)[~finite], expected.astype(np.float64)[~finite]
    np.testing.assert_array_equal(*wide, err_msg=str(what))


@pytest.mark.parametrize("number", range(36))
def test_only_windows_that_see_it(kernels, arithmetic, force_plan, number):
    rng = np.random.default_rng(number)
    conv = test_image_patch.random_narrow(rng)
    take_turns(force_plan, lambda kernel: kernel.startswith("patch"), number)
    x = spoil(rng, arithmetic.normal(rng, conv.x), VALUES[number % 3])
    w, b = arithmetic.normal(rng, conv.w), normal(rng, conv.w[0])
    y = ops.conv2d(*map(kernels.array, (x, w, b)), **conv.options, **arithmetic.options)
    assert_same(kernels, y, oracles.conv2d(x, w, b, **conv.options), arithmetic.tolerance, conv)


@pytest.mark.parametrize("number", range(18))
@pytest.mark.parametrize("name", ["zfnet", "vgg", "alexnet", "mnist"])
def test_only_pooled_windows_that_see_it(kernels, arithmetic, force_plan, name, number):
    rng = np.random.default_rng(number)
    conv = test_image_patch.LAYERS[name]
    conv = Conv((1, *(min(size, 41) for size in conv.x[1:3]), conv.x[3]), conv.w, conv.stride, conv.padding)
    take_turns(force_plan, lambda kernel: kernel.startswith("patch"), number)
    x = spoil(rng, arithmetic.normal(rng, conv.x), VALUES[number % 3])
    w, b = arithmetic.normal(rng, conv.w), normal(rng, conv.w[0])
    own = {"window": POOL["window"], "pool_stride": POOL["stride"], "pool_padding": POOL["padding"]}
    y, _ = ops.conv2d_relu_pool(*map(kernels.array, (x, w, b)), **conv.options, **own, **arithmetic.options)
    expected = oracles.max_pool2d(oracles.conv2d(x, w, b, **conv.options, relu=True), **POOL)[0]
    assert_same(kernels, y, expected, arithmetic.tolerance, conv)


@pytest.mark.parametrize("number", range(36))
def test_only_pixels_under_a_filter_that_sees_it(kernels, arithmetic, force_plan, number):
    rng = np.random.default_rng(number)
    conv = test_dgrad_patch.random_narrow(rng)
    take_turns(force_plan, test_dgrad_patch.is_patch, number)
    y = spoil(rng, arithmetic.normal(rng, conv.output), VALUES[number % 3])
    w, options = arithmetic.normal(rng, conv.w), {**conv.options, "output_size": conv.x[1:3]}
    x = ops.conv_transpose2d(kernels.array(y), kernels.array(w), **options, **arithmetic.options)
    assert_same(kernels, x, oracles.conv_transpose2d(y, w, **options), arithmetic.tolerance, conv)


@pytest.mark.parametrize("number", range(36))
def test_only_taps_that_see_it(kernels, arithmetic, force_plan, number):
    """Of a weight gradient; also of a pixel that no window has. (Rows that fill up make NaNs of infinities.)"""
    rng = np.random.default_rng(number)
    conv = test_image_patch.random_narrow(rng)
    take_turns(force_plan, lambda kernel: bool(patches([kernel])), number)
    x = spoil(rng, arithmetic.normal(rng, conv.x), VALUES[number % 3])
    dy, kernel = arithmetic.normal(rng, conv.output), conv.w[1:3]
    dw = ops.conv2d_weight_grad(
        kernels.array(x), kernels.array(dy), **conv.options, **arithmetic.options, kernel_size=kernel
    )
    expected = oracles.conv2d_weight_grad(x, dy, **conv.options, kernel_size=kernel)
    assert_reached(kernels.numpy(dw), expected, arithmetic.weight_grad_tolerance, conv)


def test_arrays_without_a_finite_value(kernels, arithmetic, force_plan):
    """Every result is computed again."""
    force_plan(lambda found: next((one for one in found if patches(one[:1])), None))
    rng = np.random.default_rng(0)
    conv = Conv(x=(1, 6, 7, 3), w=(16, 3, 3, 3), stride=(1, 1), padding=(1, 1))
    x, w = np.full(conv.x, np.nan, arithmetic.dtype), arithmetic.normal(rng, conv.w)
    y = ops.conv2d(kernels.array(x), kernels.array(w), **conv.options, **arithmetic.options)
    assert np.isnan(kernels.numpy(y).astype(np.float32)).all()
    back = {**conv.options, "output_size": conv.x[1:3]}
    x = ops.conv_transpose2d(y, kernels.array(w), **back, **arithmetic.options)
    assert np.isnan(kernels.numpy(x).astype(np.float32)).all()
