"""Average pooling: csrc/kernels/avg_pool.cuh and csrc/cpu/avg_pool.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close, assert_same
from tests.shapes import BF16, ELEMENTS, random_avg_pool
from zfcuda import ops


def maps(rng, shape, dtype):
    """Some with NaN in the first channel, but never in all."""
    x = rng.standard_normal(shape, dtype=np.float32)
    if shape[3] > 1 and rng.random() < 0.3:
        x[rng.random(shape[:3]) < 0.1, 0] = np.nan
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_avg_pool2d(case, dtype):
    pool = random_avg_pool(case.rng, case.device.max_size)
    x = maps(case.rng, pool.x, dtype)
    y = case.device.numpy(ops.avg_pool2d(case.device.array(x), **pool.options))
    assert_close(y, oracles.avg_pool2d(x, **pool.options), what=pool)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_avg_pool2d_grad(case, dtype):
    pool = random_avg_pool(case.rng, case.device.max_size)
    dy = maps(case.rng, oracles.avg_pool2d(np.zeros(pool.x), **pool.options).shape, dtype)
    dx = ops.avg_pool2d_grad(case.device.array(dy), **pool.options, output_size=pool.x[1:3])
    assert_close(case.device.numpy(dx), oracles.avg_pool2d_grad(dy, **pool.options, output_size=pool.x[1:3]), what=pool)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("channels", [8, 5])
def test_a_large_map(device, channels, dtype):
    """Whose pixels are summed in several ranges."""
    x = np.random.default_rng(0).standard_normal((1, 32, 33, channels), dtype=np.float32).astype(dtype)
    options = {"window": (32, 33), "stride": (1, 1)}
    assert_close(device.numpy(ops.avg_pool2d(device.array(x), **options)), oracles.avg_pool2d(x, **options))


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("channels", [300, 5])
def test_whole_maps(device, images, channels, dtype):
    x = np.random.default_rng(0).standard_normal((images, 7, 6, channels), dtype=np.float32).astype(dtype)
    options = {"window": (7, 6), "stride": (1, 1)}
    assert_close(device.numpy(ops.avg_pool2d(device.array(x), **options)), oracles.avg_pool2d(x, **options))


@pytest.mark.parametrize(
    ("count_include_pad", "expected"),
    # Along a line of ones, window 3 at stride 2, one cell of padding: at (0 1 1), (1 1 1), (1 0), of which the last
    # hangs over the padding by a cell that never counts.
    [(True, [2 / 3, 1, 1 / 2]), (False, [1, 1, 1])],
)
def test_what_a_window_divides_by(device, count_include_pad, expected):
    y = ops.avg_pool2d(
        device.array(np.ones((1, 1, 4, 2), np.float32)),
        window=(1, 3),
        stride=(1, 2),
        padding=(0, 1),
        ceil_mode=True,
        count_include_pad=count_include_pad,
    )
    np.testing.assert_allclose(device.numpy(y)[0, 0, :, 0], expected, rtol=1e-6)


def test_the_last_window_of_ceil_mode_does_not_begin_behind_x(device):
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    y = ops.avg_pool2d(device.array(x), window=(1, 2), stride=(1, 3), padding=(0, 0, 0, 1), ceil_mode=True)
    np.testing.assert_array_equal(device.numpy(y).ravel(), [0.5, 1.5])  # (0 1), (3 and the padding)
    y = ops.avg_pool2d(device.array(x), window=(1, 2), stride=(1, 4), padding=(0, 0, 0, 1), ceil_mode=True)
    np.testing.assert_array_equal(device.numpy(y).ravel(), [0.5])


def test_out(device):
    x = device.array(np.ones((2, 4, 4, 3), np.float32))
    out = device.array(np.full((2, 2, 2, 3), np.nan, np.float32))
    assert ops.avg_pool2d(x, window=2, stride=2, out=out) is out
    back = device.array(np.full((2, 4, 4, 3), np.nan, np.float32))
    assert ops.avg_pool2d_grad(out, window=2, stride=2, output_size=4, out=back) is back
    assert_same(device.numpy(out), np.ones((2, 2, 2, 3), np.float32))
    assert_same(device.numpy(back), np.full((2, 4, 4, 3), 0.25, np.float32))


X = np.zeros((1, 5, 5, 2), np.float32)


def pool(x=X, window=2, stride=2, **options):
    return ops.avg_pool2d(x, window=window, stride=stride, **options)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 4 dimensions", lambda: pool(X[0])),
        (TypeError, "x must be float32 or bfloat16, got float64", lambda: pool(X.astype(float))),
        (ValueError, "x is empty", lambda: pool(X[:0])),
        (ValueError, r"window height 6 is larger than the padded input, 0 \+ 5 \+ 0", lambda: pool(window=6)),
        (ValueError, "window width must be at least 1", lambda: pool(window=(2, 0))),
        (ValueError, "stride height must be at least 1", lambda: pool(stride=0)),
        (ValueError, "padding at the top must be at least 0, got -1", lambda: pool(padding=-1)),
        (
            ValueError,
            "padding at the right must be smaller than the window width 2, got 2",
            lambda: pool(padding=(0, 0, 0, 2)),
        ),
        (TypeError, r"padding must be an int, \(height, width\) or \(top, ", lambda: pool(padding=(0, 0, 1))),
        (
            ValueError,
            "padding at the top must be at most 16777216, got 1073741823",
            lambda: pool(window=(2**30, 1), padding=(2**30 - 1, 0, 0, 0)),
        ),
        (ValueError, "share memory", lambda: pool(window=1, stride=1, out=X)),
        (TypeError, "out must be float32, got bfloat16", lambda: pool(out=np.zeros((1, 2, 2, 2), BF16))),
        (
            ValueError,
            r"dy must have shape \(1, 4, 4, 2\), got \(1, 5, 5, 2\)",
            lambda: ops.avg_pool2d_grad(X, window=2, stride=2, output_size=8),
        ),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
