"""SGD and filter renormalisation: csrc/kernels/optimizer.cuh and csrc/cpu/optimizer.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.shapes import random_conv, random_shape
from zfcuda import ops


def test_sgd_step(case):
    rng = case.rng
    shape = random_shape(rng, case.device.max_size)
    w, g, v = (rng.standard_normal(shape, dtype=np.float32) for _ in range(3))
    options = {
        "lr": float(rng.choice([1e-2, 1.0])),
        "momentum": float(rng.choice([0.0, 0.9])),
        "weight_decay": float(rng.choice([0.0, 5e-4, 0.1])),
    }
    w_, g_, v_ = (case.device.array(a.copy()) for a in (w, g, v))
    lr = case.device.array(np.array(options["lr"], np.float32)) if rng.random() < 0.5 else options["lr"]
    ops.sgd_step(w_, g_, v_, **{**options, "lr": lr})
    expected_w, expected_v = oracles.sgd_step(w, g, v, **options)
    assert_close(w_, expected_w)
    assert_close(v_, expected_v)
    np.testing.assert_array_equal(case.device.numpy(g_), g)


@pytest.mark.parametrize("guard", [0.0, -3.5e38, np.nan, np.inf, -np.inf])
def test_nothing_changes_where_the_guard_is_not_finite(device, guard):
    rng = np.random.default_rng(0)
    w, g, v = (rng.standard_normal((4, 3, 3, 5), dtype=np.float32) for _ in range(3))
    w_, g_, v_ = (device.array(a.copy()) for a in (w, g, v))
    with np.errstate(over="ignore"):
        number = device.array(np.array(guard, np.float32))
    ops.sgd_step(w_, g_, v_, lr=0.1, guard=number)
    after_step = device.numpy(w_).copy()
    ops.renormalize_filters(w_, max_rms=1e-3, guard=number)
    moved = guard == 0
    assert moved == (not np.array_equal(after_step, w))
    assert moved == (not np.array_equal(device.numpy(v_), v))
    assert moved == (not np.array_equal(device.numpy(w_), after_step))


def test_renormalize_filters(case):
    rng = case.rng
    shape = random_conv(rng, case.device.max_work).w
    w = (0.1 * rng.standard_normal(shape) * rng.uniform(0, 3, (shape[0], 1, 1, 1))).astype(np.float32)
    w_ = case.device.array(w.copy())
    ops.renormalize_filters(w_, max_rms=0.1)
    expected = oracles.renormalize_filters(w, max_rms=0.1)
    assert_close(w_, expected, what=shape)


def test_filters_below_the_bound_keep_their_bits(device):
    w = np.full((3, 2, 2, 2), 0.05, np.float32)
    w[1] = 7
    w_ = device.array(w.copy())
    ops.renormalize_filters(w_, max_rms=0.1)
    result = device.numpy(w_)
    np.testing.assert_array_equal(result[[0, 2]], w[[0, 2]])
    np.testing.assert_allclose(result[1], 0.1, rtol=1e-6)


def test_the_learning_rate_is_read_where_the_arrays_are(device):
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(37, dtype=np.float32) for _ in range(3)]
    lr = device.array(np.array(0.0, np.float32))
    for rate in (0.1, 3e-5):
        lr.fill(rate)
        given, placed = ([device.array(a.copy()) for a in arrays] for _ in range(2))
        ops.sgd_step(*given, lr=rate)
        ops.sgd_step(*placed, lr=lr)
        for a, b in zip(given, placed, strict=True):
            np.testing.assert_array_equal(device.numpy(a), device.numpy(b))


W = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "g must have shape", lambda: ops.sgd_step(W, W[:1].copy(), W.copy(), lr=1)),
        (ValueError, "v must have shape", lambda: ops.sgd_step(W, W.copy(), W[:1].copy(), lr=1)),
        (ValueError, "w must be C-contiguous", lambda: ops.sgd_step(W.T, W.T.copy(), W.T.copy(), lr=1)),
        (TypeError, "v must be float32", lambda: ops.sgd_step(W, W.copy(), W.astype(float), lr=1)),
        (TypeError, "lr must be float32, got float64", lambda: ops.sgd_step(W, W, W.copy(), lr=np.zeros(()))),
        (ValueError, r"lr must have shape \(\), got \(3,\)", lambda: ops.sgd_step(W, W, W.copy(), lr=W[0])),
        (TypeError, "lr must be a NumPy or CuPy array", lambda: ops.sgd_step(W, W, W.copy(), lr="fast")),
        (TypeError, "guard must be float32", lambda: ops.sgd_step(W, W, W.copy(), lr=1, guard=np.zeros(()))),
        (
            ValueError,
            r"guard must have shape \(\), got \(1,\)",
            lambda: ops.renormalize_filters(W, max_rms=1, guard=W[0, :1]),
        ),
        (TypeError, "w must be float32", lambda: ops.renormalize_filters(W.astype(float), max_rms=1)),
        (ValueError, "max_rms must be positive", lambda: ops.renormalize_filters(W, max_rms=0)),
        (ValueError, "w must have 2 dimensions", lambda: ops.renormalize_filters(W[0], max_rms=1)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
