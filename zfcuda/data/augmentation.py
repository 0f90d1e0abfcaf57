"""Which crop of each training image, and whether it is mirrored (P2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .preprocess import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """How training images are cropped and flipped.

    padding None: one of the five crops of P2, the corners and the centre, as the test's ten crops take them. padding p:
    any crop that leaves the image by at most p pixels on a side (zero there, after the mean), for small images.
    flip: every other image is mirrored; not where left and right tell classes apart (arrows, letters, road signs).
    """

    padding: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding is not None and self.padding < 0:
            raise ValueError(f"padding must not be negative, got {self.padding}")

    @classmethod
    def for_images(cls, preprocess: Preprocess, *, flip: bool = True) -> Augmentation:
        """P2's crops where images are larger than the network's input, else shifts by up to a sixteenth of a side.
        Signals, of one row, are never mirrored: time has a direction."""
        height, width, _ = preprocess.image_shape
        padding = min(height, width) // 16 if (height, width) == tuple(preprocess.crop) else None
        return cls(padding, flip and height > 1)

    def __str__(self) -> str:
        where = "crops of the corners and the centre"
        if self.padding is not None:
            where = f"shifts by up to {self.padding} pixel{'s' * (self.padding != 1)}" if self.padding else "no shifts"
        return f"{where}, {'every other image mirrored' if self.flip else 'none mirrored'}"

    def draw(self, rng: np.random.Generator, n: int, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
        """corners int32 (n,2) and flips uint8 (n,) for `Preprocess.crops`."""
        if self.padding is None:
            corners = rng.choice(preprocess.test_corners, n)
        else:
            largest = np.subtract(preprocess.image_shape[:2], preprocess.crop) + self.padding
            corners = rng.integers(-self.padding, largest, (n, 2), np.int32, endpoint=True)
        flips = rng.integers(0, 2, n, np.uint8) if self.flip else np.zeros(n, np.uint8)
        return corners, flips
