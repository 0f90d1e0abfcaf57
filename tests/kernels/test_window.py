"""Windows of images: csrc/kernels/window.cuh and csrc/cpu/window.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.shapes import BF16, ELEMENTS
from zfcuda import ops

DTYPES = (*ELEMENTS, np.uint8)


def numbers(rng, shape, dtype):
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    x = rng.standard_normal(shape, np.float32).astype(dtype)
    x[rng.random(shape) < 0.1] = np.nan  # moved like any other bits
    return x


def assert_same_bits(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cut_windows(case, dtype):
    rng, to = case.rng, case.device.array
    n, h, w = (int(v) for v in rng.integers(1, (4, 14, 14)))
    channels = int(rng.choice([1, 2, 3, 4, 8, 16, 17, 32]))
    size = tuple(int(v) for v in rng.integers(1, 16, 2))
    x = numbers(rng, (n, h, w, channels), dtype)
    images = rng.integers(-1, n + 1, int(rng.integers(1, 6))).astype(np.int32) if rng.random() < 0.6 else None
    corners = rng.integers(-8, 14, (n if images is None else len(images), 2)).astype(np.int32)
    y = ops.cut_windows(to(x), to(corners), size=size, images=None if images is None else to(images))
    assert_same_bits(case.device.numpy(y), oracles.cut_windows(x, corners, size=size, images=images))


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_arrays(device, dtype):
    rng = np.random.default_rng(0)
    x = numbers(rng, (2, 5, 6, 16), dtype)
    buffer = device.array(np.zeros(x.size + 1, dtype))
    shifted = buffer[1:].reshape(x.shape)
    shifted[...] = device.array(x)
    corners = np.array([(-1, 2), (1, -2)], np.int32)
    y = ops.cut_windows(shifted, device.array(corners), size=(4, 7))
    assert_same_bits(device.numpy(y), oracles.cut_windows(x, corners, size=(4, 7)))


def test_corners_far_outside_read_zero(device):
    x = device.array(np.ones((4, 3, 3, 4), np.float32))
    far = np.array([(2**31 - 1, 0), (-(2**31), 0), (0, 2**31 - 1), (0, -(2**31))], np.int32)
    assert not device.numpy(ops.cut_windows(x, device.array(far), size=(3, 3))).any()


def test_a_window_cut_at_the_negative_corner_is_pasted(device):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 7, 9, 5), np.float32)
    corners = np.array([(1, 2), (-2, 6)], np.int32)
    windows = ops.cut_windows(device.array(x), device.array(corners), size=(4, 5))
    pasted = device.numpy(ops.cut_windows(windows, device.array(-corners), size=(7, 9)))
    expected = np.zeros_like(x)
    expected[0, 1:5, 2:7] = x[0, 1:5, 2:7]
    expected[1, :2, 6:] = x[1, :2, 6:]
    np.testing.assert_array_equal(pasted, expected)


X, CORNERS = np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 2), np.int32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            TypeError,
            "x must be float32, bfloat16 or uint8, got float64",
            lambda: ops.cut_windows(X.astype(float), CORNERS, size=2),
        ),
        (ValueError, "x must have 4 dimensions", lambda: ops.cut_windows(X[0], CORNERS, size=2)),
        (ValueError, "x is empty", lambda: ops.cut_windows(X[:0], CORNERS, size=2)),
        (TypeError, "corners must be int32", lambda: ops.cut_windows(X, CORNERS.astype(int), size=2)),
        (ValueError, r"corners must have shape \(2, 2\)", lambda: ops.cut_windows(X, CORNERS[:1], size=2)),
        (TypeError, "images must be int32", lambda: ops.cut_windows(X, CORNERS, size=2, images=np.zeros(2, int))),
        (
            ValueError,
            r"corners must have shape \(3, 2\)",
            lambda: ops.cut_windows(X, CORNERS, size=2, images=np.zeros(3, np.int32)),
        ),
        (ValueError, "window width must be at least 1", lambda: ops.cut_windows(X, CORNERS, size=(2, 0))),
        (ValueError, "y has 2 x 100000 x", lambda: ops.cut_windows(X, CORNERS, size=100000)),
        (TypeError, "out must be float32", lambda: ops.cut_windows(X, CORNERS, size=4, out=X.astype(BF16))),
        (ValueError, "share memory", lambda: ops.cut_windows(X, CORNERS, size=4, out=X)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
