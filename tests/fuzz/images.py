"""Random calls of what cuts images."""

import numpy as np

from tests import oracles
from zfcuda import ops

from .draws import EXTREME_SHARE, limit


def corners_of(calls, count):
    corners = calls.rng.integers(-9, 9, (count, 2))
    extreme = calls.rng.random(corners.shape) < EXTREME_SHARE
    return np.where(extreme, calls.rng.choice([-(2**31), 2**31 - 1, -(2**30)], corners.shape), corners).astype(np.int32)


def cropped(calls, n, c):
    """(h, w), and whether the call must be refused."""
    size = calls.pair(1, 9)
    return size, min(size) >= 1 and not any(isinstance(v, bool) for v in size) and limit(n, *size, c)


def crop_images(calls):
    n, h, w, c = calls.shape()
    images = calls.rng.integers(0, 256, (n, h, w, c), np.uint8)
    corners, flips = corners_of(calls, n), calls.rng.integers(0, 2, n, np.uint8)
    size, good = cropped(calls, n, c)
    return lambda: ops.crop_images(images, None, corners, flips, size=size), good and (
        lambda: oracles.crop_images(images, None, corners.astype(int), flips, size=size)
    )


def cut_windows(calls):
    x, count = calls.normal(*calls.shape()), int(calls.rng.integers(1, 5))
    images = calls.rng.integers(-1, len(x) + 1, count).astype(np.int32)
    corners = corners_of(calls, count)
    size, good = cropped(calls, count, x.shape[3])
    return lambda: ops.cut_windows(x, corners, size=size, images=images), good and (
        lambda: oracles.cut_windows(x, corners.astype(int), size=size, images=images)
    )
