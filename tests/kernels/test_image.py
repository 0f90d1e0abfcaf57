"""Crops, flips and mean subtraction: csrc/kernels/image.cuh and csrc/cpu/image.cpp."""

import numpy as np
import pytest

from tests import oracles
from zfcuda import ops


def test_crop_images(case):
    rng = case.rng
    n, h, w, c = (int(v) for v in rng.integers(1, (5, 24, 24, 6)))
    images = rng.integers(0, 256, (n, h, w, c), dtype=np.uint8)
    mean = (255 * rng.random((h, w, c))).astype(np.float32) if rng.random() < 0.7 else None
    size = tuple(int(v) for v in rng.integers(1, 26, 2))
    corners = rng.integers(-6, 12, (n, 2)).astype(np.int32)
    flips = rng.integers(0, 2, n).astype(np.uint8)
    to = case.device.array
    y = ops.crop_images(to(images), None if mean is None else to(mean), to(corners), to(flips), size=size)
    expected = oracles.crop_images(images, mean, corners, flips, size=size)
    np.testing.assert_allclose(case.device.numpy(y), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("height", "width", "c"), [(64, 64, 3), (61, 64, 3), (64, 63, 3), (64, 32, 5), (37, 16, 1)])
def test_large_results(height, width, c):
    """Past the caches, where rows are whole vectors: the bits of small results, which are compared above."""
    rng = np.random.default_rng(width)
    n = 2**22 // (height * width * c) + 3
    images = rng.integers(0, 256, (n, 60, 70, c), dtype=np.uint8)
    mean = (255 * rng.random((60, 70, c))).astype(np.float32)
    corners = rng.integers(-6, 12, (n, 2)).astype(np.int32)
    flips = rng.integers(0, 2, n).astype(np.uint8)

    def crop(some, out):
        return ops.crop_images(images[some], mean, corners[some], flips[some], size=(height, width), out=out[some])

    y, expected = (np.full((n, height, width, c), np.nan, np.float32) for _ in range(2))
    crop(slice(None), y)
    assert y.nbytes > 2**24
    for start in range(0, n, 16):
        crop(slice(start, start + 16), expected)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(ops.crop_images(images, mean, corners, flips, size=(height, width)), y)


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)
CORNERS, FLIPS = np.zeros((2, 2), np.int32), np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "images must be uint8", lambda: ops.crop_images(IMAGES * 1.0, None, CORNERS, FLIPS, size=2)),
        (ValueError, "images must have 4", lambda: ops.crop_images(IMAGES[0], None, CORNERS, FLIPS, size=2)),
        (
            ValueError,
            "mean must have shape",
            lambda: ops.crop_images(IMAGES, np.zeros((4, 4, 1), np.float32), CORNERS, FLIPS, size=2),
        ),
        (ValueError, "corners must have shape", lambda: ops.crop_images(IMAGES, None, CORNERS[:1], FLIPS, size=2)),
        (TypeError, "flips must be uint8", lambda: ops.crop_images(IMAGES, None, CORNERS, FLIPS > 0, size=2)),
        (ValueError, "crop height must be at least 1", lambda: ops.crop_images(IMAGES, None, CORNERS, FLIPS, size=0)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
