"""Sums, ReLU, clipping and dropout: csrc/kernels/activation.cuh and csrc/cpu/activation.cpp."""

import itertools

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close, assert_same
from tests.shapes import BF16, ELEMENTS, random_shape
from zfcuda import ops


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_relu(case, dtype):
    rng = case.rng
    x = rng.standard_normal(random_shape(rng, case.device.max_size), dtype=np.float32).astype(dtype)
    x[rng.random(x.shape) < 0.1] = rng.choice([0.0, np.nan, np.inf, -np.inf])
    y = case.device.numpy(ops.relu(case.device.array(x)))
    assert_same(y, np.maximum(x, np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_relu_grad(case, dtype):
    rng = case.rng
    shape = random_shape(rng, case.device.max_size)
    dy = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    y = np.maximum(rng.standard_normal(shape, dtype=np.float32), 0).astype(dtype)
    dx = case.device.numpy(ops.relu_grad(case.device.array(dy), case.device.array(y)))
    assert_same(dx, np.where(y > 0, dy, np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_add(case, dtype):
    rng = case.rng
    shape = random_shape(rng, case.device.max_size)
    a, b = (rng.standard_normal(shape, dtype=np.float32).astype(dtype) for _ in range(2))
    a[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    relu = bool(rng.random() < 0.5)
    y = case.device.numpy(ops.add(case.device.array(a), case.device.array(b), relu=relu))
    exact = a.astype(np.float32) + b.astype(np.float32)
    assert_same(y, (np.maximum(exact, 0) if relu else exact).astype(dtype))


def random_clip(case, dtype):
    """x, some of it on the bounds, and the bounds."""
    rng = case.rng
    x = rng.standard_normal(random_shape(rng, case.device.max_size), dtype=np.float32).astype(dtype)
    low, high = [(0.0, 6.0), (-0.5, 0.5), (0.25, 0.25), (-np.inf, 0.5), (0.0, np.inf)][rng.integers(0, 5)]
    x[rng.random(x.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf, low, high])
    return x, low, high


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_clip(case, dtype):
    x, low, high = random_clip(case, dtype)
    y = case.device.numpy(ops.clip(case.device.array(x), low, high))
    assert_same(y, np.clip(x.astype(np.float32), low, high).astype(dtype))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_clip_grad(case, dtype):
    x, low, high = random_clip(case, dtype)
    dy = case.rng.standard_normal(x.shape, dtype=np.float32).astype(dtype)
    dx = case.device.numpy(ops.clip_grad(case.device.array(dy), case.device.array(x), low, high))
    wide = x.astype(np.float32)
    assert_same(dx, np.where((low < wide) & (wide < high), dy, np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_dropout(case, dtype):
    rng = case.rng
    x = rng.standard_normal(random_shape(rng, 2_000), dtype=np.float32).astype(dtype)
    options = {
        "probability": float(rng.choice([0.0, 0.1, 0.5, 0.9])),
        "seed": int(rng.integers(0, 2**64, dtype=np.uint64)),
        "offset": int(rng.integers(0, 2**64, dtype=np.uint64)),
    }
    offset = case.device.array(np.array(options["offset"], np.uint64)) if rng.random() < 0.5 else options["offset"]
    y = case.device.numpy(ops.dropout(case.device.array(x), **{**options, "offset": offset}))
    expected = oracles.dropout(x, **options)
    np.testing.assert_array_equal(y == 0, expected == 0, err_msg=str(options))
    assert_close(y, expected)


def test_cast(case):
    rng = case.rng
    x = rng.standard_normal(random_shape(rng, case.device.max_size), dtype=np.float32)
    x *= rng.choice([1e-39, 1e-3, 1.0, 1e30])
    x[rng.random(x.shape) < 0.1] = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8])
    y = ops.cast(case.device.array(x), BF16)
    narrow = case.device.numpy(y)
    expected = x.astype(BF16)
    assert_same(narrow, expected)
    np.testing.assert_array_equal(np.signbit(narrow[narrow == 0]), np.signbit(expected[narrow == 0]))
    wide = ops.cast(y, np.float32)
    assert_same(case.device.numpy(wide), expected.astype(np.float32))


def test_cast_to_the_dtype_that_an_array_has(device):
    for dtype in ELEMENTS:
        x = device.array(np.arange(5).astype(dtype))
        assert ops.cast(x, dtype) is x
        out = device.array(np.zeros(5, dtype))
        assert ops.cast(x, dtype, out=out) is out
        np.testing.assert_array_equal(device.numpy(out), np.arange(5))


def test_philox_known_answers():
    """The first vectors of the authors' Random123 distribution (philox4x32, 10 rounds)."""
    assert oracles.philox4x32(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 2**64 - 1
    assert oracles.philox4x32(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_dropout_keeps_its_share_and_its_mean(device):
    y = device.numpy(ops.dropout(device.array(np.ones(40_000, np.float32)), probability=0.3, seed=5))
    kept = (y > 0).mean()
    assert abs(kept - 0.7) < 0.01
    np.testing.assert_allclose(y[y > 0], 1 / 0.7, rtol=1e-6)


def test_dropout_keeps_an_element_whose_word_is_the_threshold(device):
    first_words = ((seed, oracles.philox4x32(seed, 0, 0)[0]) for seed in itertools.count())
    seed, word = next((seed, word) for seed, word in first_words if word % 256 == 0)  # a float32 holds it exactly
    for threshold, kept in ((word, True), (word + 256, False)):
        y = ops.dropout(device.array(np.ones(1, np.float32)), probability=threshold / 2**32, seed=seed)
        assert (device.numpy(y)[0] > 0) == kept


def test_dropout_masks_differ_by_seed_and_offset(device):
    x = device.array(np.ones(1000, np.float32))
    first = device.numpy(ops.dropout(x, probability=0.5, seed=1, offset=0))
    again = device.numpy(ops.dropout(x, probability=0.5, seed=1, offset=0))
    assert np.array_equal(first, again)
    for other in ({"seed": 2, "offset": 0}, {"seed": 1, "offset": 1}):
        assert not np.array_equal(first, device.numpy(ops.dropout(x, probability=0.5, **other)))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_the_offset_of_dropout_is_read_where_the_array_is(device, dtype):
    x = device.array(np.ones(1001, dtype))
    offset = device.array(np.array(0, np.uint64))
    for value in (7, 2**64 - 1):
        offset.fill(np.uint64(value))
        placed = ops.dropout(x, probability=0.5, seed=1, offset=offset)
        given = ops.dropout(x, probability=0.5, seed=1, offset=value)
        np.testing.assert_array_equal(device.numpy(placed), device.numpy(given))


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 9, 1023, 70_001])
def test_in_place(device, size, dtype):
    x = np.linspace(-1, 1, size, dtype=np.float32).astype(dtype)
    gate = device.array(np.roll(x, 1))
    for run in (
        lambda a, out: ops.relu(a, out=out),
        lambda a, out: ops.clip(a, -0.5, 0.5, out=out),
        lambda a, out: ops.clip_grad(a, gate, -0.5, 0.5, out=out),
        lambda a, out: ops.add(a, gate, out=out),
        lambda a, out: ops.add(gate, a, relu=True, out=out),
        lambda a, out: ops.relu_grad(a, gate, out=out),
        lambda a, out: ops.dropout(a, probability=0.5, seed=3, out=out),
    ):
        separate = device.numpy(run(device.array(x.copy()), None))
        given = device.array(x.copy())
        assert run(given, given) is given
        np.testing.assert_array_equal(device.numpy(given), separate)


X = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x must be float32", lambda: ops.relu(X.astype(np.int8))),
        (TypeError, "dtype must be float32 or bfloat16, got float16", lambda: ops.cast(X, np.float16)),
        (TypeError, "x must be float32 or bfloat16, got int32", lambda: ops.cast(X.astype(np.int32), BF16)),
        (TypeError, "out must be bfloat16, got float32", lambda: ops.cast(X, BF16, out=X.copy())),
        (ValueError, "share memory", lambda: ops.cast(X, np.float32, out=X)),
        (ValueError, "x is empty", lambda: ops.relu(X[:0])),
        (ValueError, "out must have shape", lambda: ops.relu(X, out=X[:1].copy())),
        (ValueError, "share memory", lambda: ops.relu(X[:2], out=X[1:])),
        (ValueError, "low must not be above high, got low=2, high=1", lambda: ops.clip(X, 2, 1)),
        (ValueError, "low must not be above high", lambda: ops.clip_grad(X, X, float("nan"), 1)),
        (ValueError, "dy must have shape", lambda: ops.clip_grad(X, X[:2], 0, 1)),
        (ValueError, r"b must have shape \(3, 4\), got \(4,\)", lambda: ops.add(X, X[0])),
        (TypeError, "b must be float32, got bfloat16", lambda: ops.add(X, X.astype(BF16))),
        (ValueError, "share memory", lambda: ops.add(X[:2], X[:2].copy(), out=X[1:])),
        (ValueError, "y must have shape", lambda: ops.relu_grad(X, X[:2])),
        (ValueError, r"probability must be in \[0, 1\), got 1", lambda: ops.dropout(X, probability=1.0, seed=0)),
        (ValueError, "probability must be in", lambda: ops.dropout(X, probability=float("nan"), seed=0)),
        (ValueError, "seed must be in", lambda: ops.dropout(X, probability=0.5, seed=-1)),
        (ValueError, "offset must be in", lambda: ops.dropout(X, probability=0.5, seed=0, offset=2**64)),
        (
            TypeError,
            "offset must be uint64, got int64",
            lambda: ops.dropout(X, probability=0.5, seed=0, offset=np.zeros((), np.int64)),
        ),
        (
            ValueError,
            r"offset must have shape \(\), got \(1,\)",
            lambda: ops.dropout(X, probability=0.5, seed=0, offset=np.zeros(1, np.uint64)),
        ),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
