"""Leaky ReLU and its gradients: csrc/kernels/leaky_relu.cuh and csrc/cpu/leaky_relu.cpp."""

import numpy as np
import pytest

from tests.accuracy import WEIGHT_GRAD, assert_same
from tests.shapes import BF16, CHANNELS, ELEMENTS
from zfcuda import ops


def random_arrays(case, dtype):
    """x and dy (..., C), and a slope: a number or an array."""
    rng = case.rng
    rows = (int(rng.integers(513, 1200)),) if rng.random() < 0.2 else rng.integers(1, 9, int(rng.integers(0, 4)))
    channels = int(rng.choice([c for c in CHANNELS if c * np.prod(rows) <= case.device.max_size]))
    x, dy = rng.standard_normal((2, *(int(v) for v in rows), channels), np.float32).astype(dtype)
    x[rng.random(x.shape) < 0.1] = rng.choice([0.0, np.nan, np.inf, -np.inf])
    slopes = rng.standard_normal(channels, np.float32)
    slope = [0.01, float(slopes[0]), slopes, slopes[:1].copy()][rng.integers(0, 4)]
    return dy, x, slope


def leak(dy, x, slope):
    """In float32, where one product rounds like the operation's."""
    dy = dy.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return np.where(x.astype(np.float32) > 0, dy, dy * np.float32(slope)).astype(x.dtype)


def place(device, slope):
    return slope if isinstance(slope, float) else device.array(slope)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_leaky_relu(case, dtype):
    _, x, slope = random_arrays(case, dtype)
    y = ops.leaky_relu(case.device.array(x), place(case.device, slope))
    assert_same(case.device.numpy(y), leak(x, x, slope))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_leaky_relu_grad(case, dtype):
    dy, x, slope = random_arrays(case, dtype)
    dx = ops.leaky_relu_grad(case.device.array(dy), case.device.array(x), place(case.device, slope))
    assert_same(case.device.numpy(dx), leak(dy, x, slope))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_prelu_weight_grad(case, dtype):
    dy, x, _ = random_arrays(case, dtype)
    if case.rng.random() < 0.7:
        x[~np.isfinite(x.astype(np.float32))] = 1
    channels = int(case.rng.choice([1, x.shape[-1]]))
    dslope = case.device.numpy(ops.prelu_weight_grad(case.device.array(dy), case.device.array(x), channels=channels))
    wide_dy, wide_x = dy.astype(np.float64), x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        products = np.where(wide_x > 0, 0, wide_dy * wide_x).reshape(-1, x.shape[-1])
        expected = products.sum(0) if channels > 1 else products.sum(keepdims=True)[0]
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(dslope[~finite], expected[~finite])
    bound = np.sqrt(products.size / channels)  # of a sum of many, of which little may be left
    np.testing.assert_allclose(dslope[finite], expected[finite], rtol=0, atol=WEIGHT_GRAD * bound)
    assert dslope.dtype == np.float32


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_one_slope_for_many_channels(device, dtype):
    x = np.random.default_rng(0).standard_normal((3, 1100), np.float32).astype(dtype)
    dslope = device.numpy(ops.prelu_weight_grad(device.array(x), device.array(x), channels=1))
    expected = np.square(np.minimum(x.astype(np.float64), 0)).sum()
    np.testing.assert_allclose(dslope, [expected], rtol=1e-5)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("channels", [1, 7, 16, 40])
def test_in_place(device, channels, dtype):
    x = np.linspace(-1, 1, 70 * channels, dtype=np.float32).astype(dtype).reshape(70, channels)
    gate = device.array(np.roll(x, 1))
    for slope in (0.1, device.array(np.linspace(0, 1, channels, dtype=np.float32))):
        for run in (
            lambda a, out, slope=slope: ops.leaky_relu(a, slope, out=out),
            lambda a, out, slope=slope: ops.leaky_relu_grad(a, gate, slope, out=out),
        ):
            separate = device.numpy(run(device.array(x.copy()), None))
            given = device.array(x.copy())
            assert run(given, given) is given
            assert_same(device.numpy(given), separate)


X = np.zeros((3, 4), np.float32)
LARGE = np.broadcast_to(np.float32(0), (2**16, 2**15))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x must be float32 or bfloat16", lambda: ops.leaky_relu(X.astype(int), 0.1)),
        (TypeError, "slope must be float32, got bfloat16", lambda: ops.leaky_relu(X, np.ones(4, BF16))),
        (ValueError, r"slope must have shape \(4,\), .* or \(1,\), got \(3,\)", lambda: ops.leaky_relu(X, X[:, 0])),
        (ValueError, "slope must have 1 dimensions", lambda: ops.leaky_relu(X, X)),
        (TypeError, "slope must be a NumPy", lambda: ops.leaky_relu(X, "steep")),
        (ValueError, "share memory", lambda: ops.leaky_relu(X[:2], 0.1, out=X[1:])),
        (ValueError, "dy must have shape", lambda: ops.leaky_relu_grad(X[:2], X, 0.1)),
        (ValueError, "channels must be 1 or those of x, 4, got 3", lambda: ops.prelu_weight_grad(X, X, channels=3)),
        (
            ValueError,
            r"out must have shape \(4,\)",
            lambda: ops.prelu_weight_grad(X, X, channels=4, out=X[0, :3].copy()),
        ),
        (ValueError, "x has 2147483648 elements; at most", lambda: ops.leaky_relu(LARGE, 0.1)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
