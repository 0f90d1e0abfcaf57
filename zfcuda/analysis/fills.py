"""What parts of an image are painted over with, where an analysis asks what they are for.

A constant is what no image contains: its edges excite filters of their own. What the image itself gives hides a part
with less of that: its mean colour, the image out of focus, or noise of its colours.
"""

from __future__ import annotations

from numbers import Real

import numpy as np

from .geometry import shorter_side

Fill = float | str  # a number, or one of FILLS
FILLS = ("mean", "blur", "noise")
_BLUR = 22  # the shorter side, in deviations of the Gaussian: 10 pixels at 224 (Fong and Vedaldi 2017)


def check_fill(fill: Fill) -> Fill:
    """The fill, a number as float. TypeError and ValueError for what is none."""
    if isinstance(fill, str):
        if fill not in FILLS:
            raise ValueError(f"fill must be a number or one of {', '.join(FILLS)}; got {fill!r}")
        return fill
    if not isinstance(fill, Real):
        raise TypeError(f"fill must be a number or one of {', '.join(FILLS)}; got {type(fill).__name__}")
    if not np.isfinite(fill):
        raise ValueError(f"fill must be finite, got {fill}")
    return float(fill)


def filled(image: np.ndarray, fill: Fill, seed: int = 0) -> np.ndarray:
    """What an image (H,W,C) is painted over with, float32 (H,W,C): a number; "mean", its own by channel; "blur", the
    image under a Gaussian; "noise", a Gaussian's with the image's mean and standard deviation by channel, which are
    the same numbers for every image of a shape and `seed`, but for mean and deviation."""
    if fill == "blur":
        return _blurred(image, shorter_side(image.shape) / _BLUR)
    if not isinstance(fill, str):
        return np.full(image.shape, fill, np.float32)
    mean = image.mean(axis=(0, 1), dtype=np.float64)
    if fill == "mean":
        return np.full(image.shape, mean, np.float32)
    deviation = image.std(axis=(0, 1), dtype=np.float64)
    return (mean + deviation * np.random.default_rng(seed).standard_normal(image.shape)).astype(np.float32)


def _blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """The image under a Gaussian, its edge continued."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    blurred = image.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(blurred, [(reach, reach) if axis == one else (0, 0) for one in range(3)], mode="edge")
        blurred = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=axis) @ weights
    return blurred.astype(np.float32)
