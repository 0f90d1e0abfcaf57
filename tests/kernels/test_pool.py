"""csrc/kernels/pool.cuh and csrc/cpu/pool.cpp: exact, since a maximum rounds nothing."""

import itertools

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_same
from tests.shapes import ELEMENTS, random_pool
from zfcuda import ops


def maps(rng, shape, dtype=np.float32):
    """Random maps, some of them with ties, NaN or nothing but negative values."""
    x = rng.standard_normal(shape, dtype=np.float32)
    kind = rng.integers(0, 5)
    if kind == 0:
        x = np.round(x)
    elif kind == 1:
        x[rng.random(shape) < 0.1] = np.nan
    elif kind == 2:
        x = -np.abs(x) - 1
    elif kind == 3:
        x[rng.random(shape) < 0.3] = -np.inf
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_max_pool2d(case, dtype):
    rng = case.rng
    pool = random_pool(rng, case.device.max_size)
    x = maps(rng, pool.x, dtype)
    options = pool.options
    y, switches = ops.max_pool2d(case.device.array(x), **options)
    expected, expected_switches = oracles.max_pool2d(x, **options)
    assert_same(case.device.numpy(y), expected, str(pool))
    np.testing.assert_array_equal(case.device.numpy(switches), expected_switches, err_msg=str(pool))
    assert switches.dtype == np.uint8


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_max_unpool2d(case, dtype):
    rng = case.rng
    pool = random_pool(rng, case.device.max_size // 4)
    options = pool.options
    _, switches = oracles.max_pool2d(maps(rng, pool.x), **options)
    # Small whole numbers: their sums are exact in any order (and in bfloat16 up to 256, so that few are rounded).
    y = rng.integers(-50, 50, switches.shape).astype(dtype)
    x = ops.max_unpool2d(case.device.array(y), case.device.array(switches), **options, output_size=pool.x[1:3])
    expected = oracles.max_unpool2d(y, switches, **options, output_size=pool.x[1:3])
    assert_same(case.device.numpy(x), expected.astype(dtype), str(pool))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_spatial_max(case, dtype):
    rng = case.rng
    x = maps(rng, random_pool(rng, case.device.max_size).x, dtype)
    n, h, w, c = x.shape
    values, positions = ops.spatial_max(case.device.array(x))
    flat = x.reshape(n, h * w, c)
    expected = np.argmax(np.where(np.isnan(flat), np.inf, flat), 1)  # NaN wins; no map here holds +inf
    np.testing.assert_array_equal(case.device.numpy(positions), expected)
    assert_same(case.device.numpy(values), np.take_along_axis(flat, expected[:, None], 1)[:, 0])


@pytest.mark.parametrize("values", [(np.nan,), (np.inf, -np.inf)], ids=["nan", "infinities"])
def test_max_pool2d_of_few_values_that_are_not_finite(device, values):
    """In whole vectors of channels and in what is left of them, where all is finite a shorter way may be taken."""
    x = np.random.default_rng(5).standard_normal((1, 9, 9, 37), dtype=np.float32)
    x[0, 3, 2:4, ::9] = np.array([values]).T
    options = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}
    y, switches = ops.max_pool2d(device.array(x), **options)
    expected, expected_switches = oracles.max_pool2d(x, **options)
    assert_same(device.numpy(y), expected)
    np.testing.assert_array_equal(device.numpy(switches), expected_switches)


@pytest.mark.parametrize("padding", [*itertools.product(range(3), range(3))], ids=str)
@pytest.mark.parametrize("channels", [3, 8])
def test_paper_windows_at_every_edge(device, padding, channels):
    """Both ends of a map may lie inside a step of the stride, which unpooling makes as a whole."""
    rng = np.random.default_rng(channels)
    options = {"window": (3, 3), "stride": (2, 2), "padding": (*padding, *reversed(padding))}
    for size in range(max(1, 3 - sum(padding)), 7):
        x = np.round(2 * rng.standard_normal((2, size, 7, channels), dtype=np.float32))
        y, switches = ops.max_pool2d(device.array(x), **options)
        expected, expected_switches = oracles.max_pool2d(x, **options)
        assert_same(device.numpy(y), expected)
        np.testing.assert_array_equal(device.numpy(switches), expected_switches)
        back = device.numpy(ops.max_unpool2d(y, switches, **options, output_size=(size, 7)))
        expected = oracles.max_unpool2d(expected, expected_switches, **options, output_size=(size, 7))
        np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize(
    ("window", "stride"), [(2, 1), (3, 1), (2, 2), (3, 2), (4, 2), (3, 3), (4, 4), (5, 1), (3, 4), (16, 5)]
)
@pytest.mark.parametrize("channels", [1, 7, 8, 15, 16, 19, 37])
def test_any_switches_and_values(device, window, stride, channels):
    """Windows that are compiled in and others, in vectors of channels and what is left of them; switches that name
    cells outside x, or none; values that are not finite, and zeros of both signs."""
    rng = np.random.default_rng(channels)
    for low, high in [(0, 0), (window - 1, window // 2)]:
        options = {"window": (window, window), "stride": (stride, stride), "padding": (low, high, high, low)}
        size = (19, 17)
        p, q = ((side + low + high - window) // stride + 1 for side in size)
        switches = rng.integers(0, min(256, window * window + 2), (2, p, q, channels)).astype(np.uint8)
        y = rng.integers(-3, 4, switches.shape) * rng.choice(np.array([1, -1], np.float32), switches.shape)
        y = np.where(rng.random(y.shape) < 0.02, rng.choice([np.nan, np.inf, -np.inf], y.shape), y).astype(np.float32)
        x = ops.max_unpool2d(device.array(y), device.array(switches), **options, output_size=size)
        with np.errstate(invalid="ignore"):
            expected = oracles.max_unpool2d(y, switches, **options, output_size=size)
        assert_same(device.numpy(x), expected.astype(np.float32), str(options))


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 2)])
def test_rows_of_one_image_are_independent(device, window, stride):
    """However threads share them: as in an image of those rows alone."""
    rng = np.random.default_rng(window)
    options = {"window": window, "stride": stride}
    x = rng.standard_normal((1, 73, 41, 17), dtype=np.float32)
    y, switches = ops.max_pool2d(device.array(x), **options)
    whole = device.numpy(ops.max_unpool2d(y, switches, **options, output_size=(73, 41)))
    y, switches = device.numpy(y), device.numpy(switches)
    for row in range(0, y.shape[1] - 4, 5):
        some = (device.array(np.ascontiguousarray(part[:, row : row + 4])) for part in (y, switches))
        height = 3 * stride + window
        rows = device.numpy(ops.max_unpool2d(*some, **options, output_size=(height, 41)))
        edge = window - stride  # rows that other windows meet too
        first = row * stride
        np.testing.assert_array_equal(rows[:, edge : height - edge], whole[:, first + edge : first + height - edge])


def test_windows_that_overlap_add_up(device):
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1, 0] = 5
    y, switches = ops.max_pool2d(device.array(x), window=2, stride=1)
    assert device.numpy(switches).ravel().tolist() == [3, 2, 1, 0]
    back = device.numpy(ops.max_unpool2d(y, switches, window=2, stride=1, output_size=3))
    assert back[0, 1, 1, 0] == 20
    assert back.sum() == 20


def test_corner_in_the_padding_counts(device):
    x = np.ones((1, 1, 1, 1), np.float32)
    y, switches = ops.max_pool2d(device.array(x), window=3, stride=2, padding=1)
    assert device.numpy(y).ravel().tolist() == [1]
    assert device.numpy(switches).ravel().tolist() == [4]


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "expected"),
    [
        (55, 3, 2, 0, 27),  # as without
        (56, 3, 2, 0, 28),  # the last one hangs over by one
        (112, 3, 2, 1, 57),
        (5, 2, 3, 0, 2),
        (4, 2, 3, 1, 2),  # the third would begin in the padding behind the map
        (2, 3, 2, 0, 1),  # the only one hangs over
    ],
)
def test_ceil_mode(device, size, window, stride, padding, expected):
    """As many windows as PyTorch has, and their maxima."""
    x = np.random.default_rng(size).standard_normal((1, size, size, 2), dtype=np.float32)
    options = {"window": (window, window), "stride": (stride, stride), "padding": (padding, padding), "ceil_mode": True}
    y, switches = ops.max_pool2d(device.array(x), **options)
    assert y.shape == (1, expected, expected, 2)
    reference, reference_switches = oracles.max_pool2d(x, **options)
    assert_same(device.numpy(y), reference)
    np.testing.assert_array_equal(device.numpy(switches), reference_switches)
    back = device.numpy(ops.max_unpool2d(y, switches, **options, output_size=size))
    expected = oracles.max_unpool2d(reference, reference_switches, **options, output_size=(size, size))
    np.testing.assert_allclose(back, expected, rtol=1e-6)


def test_first_maximum_wins_a_tie(device):
    y, switches = ops.max_pool2d(device.array(np.zeros((1, 4, 4, 3), np.float32)), window=(2, 4), stride=2)
    assert not device.numpy(switches).any()
    assert not device.numpy(y).any()


def test_switch_that_names_no_cell_is_ignored(device):
    y = device.array(np.ones((1, 1, 1, 4), np.float32))
    switches = device.array(np.array([0, 1, 8, 200], np.uint8).reshape(1, 1, 1, 4))  # window 3x3, corner at (-1, -1)
    x = ops.max_unpool2d(y, switches, window=3, stride=3, padding=1, output_size=1)
    assert not device.numpy(x).any()


def test_out(device):
    y = device.array(np.ones((1, 2, 2, 3), np.float32))
    switches = device.array(np.zeros((1, 2, 2, 3), np.uint8))
    out = device.array(np.full((1, 4, 4, 3), np.nan, np.float32))
    assert ops.max_unpool2d(y, switches, window=2, stride=2, output_size=4, out=out) is out
    assert device.numpy(out).sum() == 12


X = np.zeros((1, 5, 5, 2), np.float32)
Y, S = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.uint8)
UNPOOL = {"window": 3, "stride": 2, "output_size": 5}


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 4 dimensions", lambda: ops.max_pool2d(X[0], window=2, stride=2)),
        (TypeError, "x must be float32", lambda: ops.max_pool2d(X.astype(np.float16), window=2, stride=2)),
        (ValueError, "window height 6 is larger", lambda: ops.max_pool2d(X, window=6, stride=2)),
        (ValueError, "window height must be at least 1", lambda: ops.max_pool2d(X, window=0, stride=2)),
        (ValueError, "stride height must be at least 1", lambda: ops.max_pool2d(X, window=2, stride=-1)),
        (ValueError, "must be smaller than the window", lambda: ops.max_pool2d(X, window=2, stride=1, padding=2)),
        (ValueError, "padding height must be at least 0", lambda: ops.max_pool2d(X, window=2, stride=1, padding=-1)),
        (
            ValueError,
            "padding right must be at least 0",
            lambda: ops.max_pool2d(X, window=3, stride=2, padding=(0, 0, 0, -1), ceil_mode=True),
        ),
        (
            ValueError,
            "more than 256 cells",
            lambda: ops.max_pool2d(np.zeros((1, 17, 17, 1), np.float32), window=17, stride=1),
        ),
        (ValueError, "x is empty", lambda: ops.max_pool2d(X[:0], window=2, stride=1)),
        (ValueError, "switches must have shape", lambda: ops.max_unpool2d(Y, S[:, :1], **UNPOOL)),
        (TypeError, "switches must be uint8", lambda: ops.max_unpool2d(Y, S.astype(np.int64), **UNPOOL)),
        (ValueError, "y must have shape", lambda: ops.max_unpool2d(Y, S, window=3, stride=2, output_size=9)),
        (ValueError, "x must have 4 dimensions", lambda: ops.spatial_max(X[0])),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
