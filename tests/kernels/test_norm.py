"""Local response normalisation: csrc/kernels/norm.cuh and csrc/cpu/norm.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.shapes import CHANNELS, ELEMENTS
from zfcuda import ops


def random_norm(rng, dtype):
    """A map and parameters that matter: with the paper's alpha the sum hardly counts for inputs of size one."""
    shape = (*(int(v) for v in rng.integers(1, 6, int(rng.integers(1, 4)))), int(rng.choice(CHANNELS)))
    parameters = {
        "size": int(rng.choice([5, 5, 5, 1, 2, 3, 4, 9, 40])),
        "alpha": float(rng.choice([1e-4, 0.1, 1.0])),
        "beta": float(rng.choice([0.75, 0.75, 0.5, 1.0, 0.6])),
        "k": float(rng.choice([2.0, 1.0])),
    }
    scale = 1.0 if parameters["alpha"] > 1e-3 else 100.0
    return (scale * rng.standard_normal(shape, dtype=np.float32)).astype(dtype), parameters


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_local_response_norm(case, dtype):
    x, parameters = random_norm(case.rng, dtype)
    y = case.device.numpy(ops.local_response_norm(case.device.array(x), **parameters))
    assert_close(y, oracles.local_response_norm(x, **parameters), what=(x.shape, parameters))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_local_response_norm_grad(case, dtype):
    rng = case.rng
    x, parameters = random_norm(rng, dtype)
    dy = rng.standard_normal(x.shape, dtype=np.float32).astype(dtype)
    dx = case.device.numpy(ops.local_response_norm_grad(case.device.array(dy), case.device.array(x), **parameters))
    assert_close(dx, oracles.local_response_norm_grad(dy, x, **parameters), what=(x.shape, parameters))


def test_defaults_are_the_papers(device):
    x = 100 * np.random.default_rng(0).standard_normal((3, 2, 2, 11), dtype=np.float32)
    y = device.numpy(ops.local_response_norm(device.array(x)))
    expected = oracles.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
    assert_close(y, expected)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite(device, value, beta):
    x = np.random.default_rng(0).standard_normal((2, 40), dtype=np.float32)
    x[0, 17] = value
    dy = np.ones_like(x)
    y = device.numpy(ops.local_response_norm(device.array(x), beta=beta))
    dx = device.numpy(ops.local_response_norm_grad(device.array(dy), device.array(x), beta=beta))
    with np.errstate(invalid="ignore"):
        assert_close(y, oracles.local_response_norm(x, beta=beta))
    reach = 4 if np.isnan(value) else 2  # a NaN makes sums NaN, infinities only their own channel's summand
    near = np.zeros(x.shape, bool)
    near[0, 17 - reach : 17 + reach + 1] = True
    np.testing.assert_array_equal(np.isnan(dx), near)
    x[0, 17] = 1e30  # as good, and a number
    assert_close(dx[~near], oracles.local_response_norm_grad(dy, x, beta=beta)[~near])


X = np.ones((2, 3, 3, 8), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "size must be at least 1", lambda: ops.local_response_norm(X, size=0)),
        (TypeError, "size must be an int, got 2.5", lambda: ops.local_response_norm(X, size=2.5)),
        (ValueError, "k must be positive", lambda: ops.local_response_norm(X, k=0.0)),
        (ValueError, "alpha not negative", lambda: ops.local_response_norm(X, alpha=-1.0)),
        (ValueError, "all finite", lambda: ops.local_response_norm(X, beta=float("inf"))),
        (ValueError, "k must be positive.* in float32; got k=1e-40", lambda: ops.local_response_norm(X, k=1e-40)),
        (ValueError, "all finite, in float32", lambda: ops.local_response_norm_grad(X, X, alpha=1e39)),
        (TypeError, "x must be float32", lambda: ops.local_response_norm(X.astype(float))),
        (ValueError, "dy must have shape", lambda: ops.local_response_norm_grad(X[:1], X)),
        (ValueError, "share memory", lambda: ops.local_response_norm(X, out=X)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
