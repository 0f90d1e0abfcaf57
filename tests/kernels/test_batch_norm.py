"""Batch normalisation: csrc/kernels/batch_norm.cuh and csrc/cpu/batch_norm.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import FP32, WEIGHT_GRAD, assert_close
from tests.shapes import BF16, CHANNELS, ELEMENTS
from zfcuda import ops

PARAMETERS = ("mean", "variance", "weight", "bias")


def random_rows(case, dtype):
    """x (..., C) and the other arrays of batch_norm, with the statistics of x; now and then of one row, of equal
    values, or of so many rows that they are summed in several ranges."""
    rng = case.rng
    channels = int(rng.choice(CHANNELS))
    kind = rng.integers(0, 6)
    if kind == 0:
        shape = (int(rng.integers(1, 4)), channels)
    elif kind == 1:
        shape = (int(rng.integers(513, 2500)), channels := min(channels, case.device.max_size // 2500))
    else:
        shape = (*(int(v) for v in rng.integers(1, 9, int(rng.integers(1, 4)))), channels)
    x = rng.standard_normal(shape, np.float32) * rng.choice([1e-3, 1.0, 30.0]) + 3 * rng.standard_normal(channels)
    if kind == 2:
        x[...] = x.reshape(-1, channels)[0]
    x = x.astype(dtype)
    mean, variance = (a.astype(np.float32) for a in oracles.batch_norm_statistics(x))
    weight, bias = rng.standard_normal((2, channels), np.float32)
    return x, mean, variance, weight, bias


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_batch_norm(case, dtype):
    arrays = random_rows(case, dtype)
    options = {"eps": float(case.rng.choice([1e-5, 1e-3])), "relu": bool(case.rng.random() < 0.5)}
    y = case.device.numpy(ops.batch_norm(*map(case.device.array, arrays), **options))
    assert_close(y, oracles.batch_norm(*arrays, **options), what=(arrays[0].shape, options))


def channels_of_a_wider_array(device, x, before, after):
    """x as channels of an array that has these more, which are NaN."""
    wide = np.full((*x.shape[:-1], before + x.shape[-1] + after), np.nan, x.dtype)
    wide[..., before : before + x.shape[-1]] = x
    return device.array(wide)[..., before : before + x.shape[-1]]


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_batch_norm_of_rows_that_lie_apart(case, dtype):
    x, *others = random_rows(case, dtype)
    before, after = (int(n) for n in case.rng.choice([0, 1, 3, 8, 16], 2))
    view = channels_of_a_wider_array(case.device, x, before, after)
    y = case.device.numpy(ops.batch_norm(view, *map(case.device.array, others)))
    assert_close(y, oracles.batch_norm(x, *others), what=(x.shape, before, after))


@pytest.mark.parametrize(
    "view", [np.s_[:, ::2], np.s_[::-1], np.s_[:, :, 1:3], np.s_[..., ::-1], np.s_[:, :1]], ids=str
)
def test_batch_norm_of_other_views(device, view):
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 8), np.float32)
    of_channels = np.random.default_rng(1).uniform(0.5, 2, (4, 8)).astype(np.float32)
    y = device.numpy(ops.batch_norm(device.array(x)[view], *map(device.array, of_channels)))
    assert_close(y, oracles.batch_norm(x[view], *of_channels), what=view)


def test_out_must_not_be_the_wider_array(device):
    wide, of_channels = device.array(np.zeros((3, 4), np.float32)), device.array(np.ones(2, np.float32))
    with pytest.raises(ValueError, match="out must not share memory"):
        ops.batch_norm(wide[:, :2], *[of_channels] * 4, out=wide.reshape(-1)[:6].reshape(3, 2))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_batch_norm_statistics(case, dtype):
    x = random_rows(case, dtype)[0]
    mean, variance = map(case.device.numpy, ops.batch_norm_statistics(case.device.array(x)))
    expected_mean, expected_variance = oracles.batch_norm_statistics(x)
    assert_close(mean, expected_mean, what=x.shape)
    # What deviations smaller than the roundings of x come to is noise.
    noise = (2.0**-23 * np.abs(x.astype(np.float64)).max()) ** 2
    np.testing.assert_allclose(variance, expected_variance, rtol=FP32, atol=noise, err_msg=str(x.shape))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_batch_norm_grad(case, dtype):
    x, mean, variance, weight, _ = random_rows(case, dtype)
    dy = case.rng.standard_normal(x.shape, np.float32).astype(dtype)
    arrays = dy, x, mean, variance, weight
    results = [case.device.numpy(a) for a in ops.batch_norm_grad(*map(case.device.array, arrays))]
    expected = oracles.batch_norm_grad(*arrays)
    # dx may be a small rest of large terms, as with few rows: its error is one of those.
    scale = np.abs(weight / np.sqrt(variance + 1e-5))
    bound = np.linalg.norm(np.broadcast_to(scale, x.shape))
    if dtype == np.float32:
        assert np.linalg.norm(results[0] - expected[0]) < FP32 * bound, x.shape
    else:
        allowed = 2.0**-8 * np.abs(expected[0]) + 1e-3 * scale
        assert (np.abs(results[0].astype(np.float64) - expected[0]) <= allowed).all(), x.shape
    rows = x.size // x.shape[-1]
    spread = np.sqrt(rows * x.shape[-1])
    for gradient, of in zip(results[1:], expected[1:], strict=True):
        assert gradient.dtype == np.float32
        assert np.linalg.norm(gradient - of) < WEIGHT_GRAD * spread, x.shape


@pytest.mark.parametrize("channels", [16, 3])
def test_statistics_do_not_cancel(device, channels):
    """A mean of 10,000 deviations, and a first row far from all others: the mean is off by its own rounding, or by
    little beside the deviation."""
    rng = np.random.default_rng(0)
    far_mean = (10_000 + rng.standard_normal((1500, channels))).astype(np.float32)
    outlier = rng.standard_normal((1500, channels)).astype(np.float32)
    outlier[0] = 3e4
    for x in (far_mean, outlier):
        mean, variance = map(device.numpy, ops.batch_norm_statistics(device.array(x)))
        expected_mean, expected_variance = oracles.batch_norm_statistics(x)
        off = np.abs(mean - expected_mean)
        assert (off <= 2.0**-23 * np.abs(expected_mean) + FP32 * np.sqrt(expected_variance)).all()
        np.testing.assert_allclose(variance, expected_variance, rtol=FP32)


def test_nan_stays_in_its_channel(device):
    x = np.random.default_rng(1).standard_normal((40, 20), np.float32)
    x[7, 3] = x[0, 18] = np.nan
    mean, variance = map(device.numpy, ops.batch_norm_statistics(device.array(x)))
    expected = np.isnan(x).any(0)
    np.testing.assert_array_equal(np.isnan(mean), expected)
    np.testing.assert_array_equal(np.isnan(variance), expected)
    ones = np.ones(20, np.float32)
    for relu in (False, True):
        y = device.numpy(ops.batch_norm(*map(device.array, (x, ones, ones, ones, ones)), relu=relu))
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize("channels", [16, 19])
def test_a_large_batch(device, channels):
    """So large that results go past the caches."""
    shape = (2, 9, 9, channels) if device.name == "emulated" else (20, 127, 127, channels)
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, *shape), np.float32)
    mean, variance = ops.batch_norm_statistics(device.array(x))
    weight, bias = map(device.array, rng.standard_normal((2, channels), np.float32))
    arrays = x, *map(device.numpy, (mean, variance, weight, bias))
    y = ops.batch_norm(device.array(x), mean, variance, weight, bias)
    assert_close(device.numpy(y), oracles.batch_norm(*arrays))
    gradients = ops.batch_norm_grad(device.array(dy), device.array(x), mean, variance, weight)
    for gradient, expected in zip(gradients, oracles.batch_norm_grad(dy, *arrays[:4]), strict=True):
        assert_close(device.numpy(gradient), expected, WEIGHT_GRAD)


def test_out(device):
    x, ones = np.ones((3, 4), np.float32), np.ones(4, np.float32)
    out = device.array(np.full((3, 4), np.nan, np.float32))
    assert ops.batch_norm(*map(device.array, (x, ones, ones, ones, ones)), out=out) is out
    np.testing.assert_array_equal(device.numpy(out), x)


X, C = np.ones((6, 3), np.float32), np.ones(3, np.float32)
LARGE = np.broadcast_to(np.float32(0), (2**16, 2**15))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 2 dimensions or more", lambda: ops.batch_norm(C, C, C, C, C)),
        (TypeError, "x must be float32 or bfloat16", lambda: ops.batch_norm(X.astype(float), C, C, C, C)),
        (ValueError, r"variance must have shape \(3,\), got \(2,\)", lambda: ops.batch_norm(X, C, C[:2], C, C)),
        (ValueError, "bias must have 1 dimensions", lambda: ops.batch_norm(X, C, C, C, X)),
        (TypeError, "weight must be float32, got bfloat16", lambda: ops.batch_norm(X, C, C, C.astype(BF16), C)),
        (ValueError, "eps must be finite and not negative, got -1", lambda: ops.batch_norm(X, C, C, C, C, eps=-1)),
        (ValueError, "eps must be finite", lambda: ops.batch_norm(X, C, C, C, C, eps=float("nan"))),
        (ValueError, "share memory", lambda: ops.batch_norm(X, C, C, C, C, out=X)),
        (ValueError, "x has 2147483648 elements; at most", lambda: ops.batch_norm(LARGE, C, C, C, C)),
        (ValueError, "x has 2147483648 elements; at most", lambda: ops.batch_norm_statistics(LARGE)),
        (ValueError, "dy must have shape", lambda: ops.batch_norm_grad(X[:2], X, C, C, C)),
        (TypeError, "x must be float32, got bfloat16", lambda: ops.batch_norm_grad(X, X.astype(BF16), C, C, C)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
