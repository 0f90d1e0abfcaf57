"""Which crop of each training image, and whether it is mirrored (P2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..pairs import IntPair, as_pair, check_pair
from .preprocess import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """How training images are cropped and flipped.

    padding None: one of the five crops of P2, the corners and the centre, as the test's ten crops take them. padding p:
    any crop that leaves the image by at most p pixels on a side (zero there, after the mean), for small images; a pair
    is (down, across).
    flip: every other image is mirrored; not where left and right tell classes apart (arrows, letters, road signs).
    """

    padding: IntPair | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding is not None:
            if isinstance(self.padding, list):  # as JSON has it
                object.__setattr__(self, "padding", tuple(self.padding))
            if min(check_pair("padding", self.padding)) < 0:
                raise ValueError(f"padding must not be negative, got {self.padding}")

    @classmethod
    def for_images(cls, preprocess: Preprocess, *, flip: bool = True) -> Augmentation:
        """P2's crops where images are larger than the network's input, else shifts by up to a sixteenth of a side.
        Signals, of one row, are shifted in time likewise, and never mirrored: time has a direction."""
        height, width, _ = preprocess.image_shape
        if (height, width) != tuple(preprocess.crop):
            return cls(None, flip and height > 1)
        return cls(min(height, width) // 16, flip) if height > 1 else cls((0, width // 16), False)

    def __str__(self) -> str:
        where = "crops of the corners and the centre"
        if self.padding is not None:
            down, across = as_pair(self.padding)
            most = f"{across} pixel{'s' * (across != 1)}" if down == across else f"{down} down and {across} across"
            where = f"shifts by up to {most if down else f'{across} across'}" if max(down, across) else "no shifts"
        return f"{where}, {'every other image mirrored' if self.flip else 'none mirrored'}"

    def draw(self, rng: np.random.Generator, n: int, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
        """corners int32 (n,2) and flips uint8 (n,) for `Preprocess.crops`."""
        if self.padding is None:
            corners = rng.choice(preprocess.test_corners, n)
        else:
            padding = np.array(as_pair(self.padding))
            largest = np.subtract(preprocess.image_shape[:2], preprocess.crop) + padding
            corners = rng.integers(-padding, largest, (n, 2), np.int32, endpoint=True)
        flips = rng.integers(0, 2, n, np.uint8) if self.flip else np.zeros(n, np.uint8)
        return corners, flips
