"""How an image becomes a network's input, in training, testing and every analysis alike (P2)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..backends import Array, array_module
from ..brief import Brief
from ..pairs import IntPair, check_size
from .dataset import Dataset, chunks
from .stored import StoredImages

_LOOKED_AT = 4096

Scale = float | tuple[float, ...]  # for all channels, or for each

IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What most nets that were trained on ImageNet take, for `Preprocess.by_channel`."""


@dataclass(frozen=True, repr=False)
class Preprocess(Brief):
    """x = scale * (crop of (image - mean)): the per-pixel mean, a crop, and a factor for all pixels.

    mean: float32 (H,W,C), the mean of the training images, 0..255. crop: (h, w), the network's input. scale: 1 is the
    paper's range of roughly [-128, 128]; `unit_scale` gives inputs a standard deviation of 1 instead; it may also be a
    factor for each channel. `by_channel` makes one in the terms of other libraries.

    It is stored in checkpoints beside the weights, so that whoever loads a network feeds it as its trainer did. All
    methods take uint8 images (N,H,W,C) of the mean's shape, NumPy or CuPy, and answer where the images live.
    """

    mean: np.ndarray
    crop: tuple[int, int]
    scale: Scale = 1.0

    def __post_init__(self) -> None:
        if self.mean.dtype != np.float32:
            raise TypeError(f"mean must be float32, got {self.mean.dtype}")
        if self.mean.ndim != 3 or not np.isfinite(self.mean).all():
            raise ValueError(f"mean must be (H,W,C) and finite, got shape {self.mean.shape}")
        if not (1 <= self.crop[0] <= self.mean.shape[0] and 1 <= self.crop[1] <= self.mean.shape[1]):
            raise ValueError(f"crop must fit into the images of {self.mean.shape[:2]}, got {self.crop}")
        factors = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(0 < factor < np.inf for factor in factors):
            raise ValueError(f"scale must be positive and finite, got {self.scale}")
        if isinstance(self.scale, tuple) and len(factors) != self.mean.shape[2]:
            raise ValueError(f"scale must be a factor for each of {self.mean.shape[2]} channels, got {self.scale}")

    @classmethod
    def by_channel(
        cls,
        crop: IntPair,
        *,
        channels: int = 3,
        resize: int | None = None,
        scale: float = 1 / 255,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> Preprocess:
        """How nets of other libraries take images: x = (scale * pixel - mean) / std, by channel. What torchvision
        writes as Resize(256), CenterCrop(224), ToTensor(), Normalize(mean, std) is `by_channel(224, resize=256,
        mean=mean, std=std)`, with ImageNet's numbers `by_channel(224, resize=256, **IMAGENET)`.

        crop: (height, width) of the net's input, or an int for a square: the centre of the resized image
        channels: of an image, 3 for RGB
        resize: the smaller side of the image before it is cropped, in pixels; by default the crop's own, so that
            nothing is cut of a square image. Where the crop is no square, the larger side grows with the smaller
        scale: a factor for pixels 0..255, before the mean is subtracted: 1/255 makes 0..1
        mean, std: a number, or one for each channel (red, green, blue), in the units that `scale` makes

        TypeError and ValueError that name what is not so.
        """
        height, width = check_size("crop", crop)
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        smaller = min(height, width)
        resize = smaller if resize is None else resize
        if resize < smaller:
            raise ValueError(f"resize must be at least the crop's smaller side, {smaller}, got {resize}")
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}")
        means, deviations = (np.asarray(one, np.float64) for one in (mean, std))
        for name, one in (("mean", means), ("std", deviations)):
            if one.shape not in ((), (1,), (channels,)) or not np.isfinite(one).all():
                raise ValueError(
                    f"{name} must be one finite number, or one for each of {channels} channels (channels={channels}), "
                    f"got {one}"
                )
        if not (deviations > 0).all():
            raise ValueError(f"std must be positive, got {std}")
        shape = (round(height * resize / smaller), round(width * resize / smaller), channels)
        factors = np.broadcast_to(scale / deviations, (channels,))
        pixels = np.broadcast_to(means / scale, shape).astype(np.float32)
        return cls(pixels, (height, width), tuple(float(factor) for factor in factors))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that it takes."""
        height, width, channels = self.mean.shape
        return height, width, channels

    @property
    def digest(self) -> str:
        """64 characters that are the same for the same mean, crop and scale."""
        mean = np.ascontiguousarray(self.mean, "<f4")
        return hashlib.sha256(repr((mean.shape, self.crop, self.scale)).encode() + mean.tobytes()).hexdigest()

    def __call__(self, images: Array) -> Array:
        """The centre crops: float32 (N,h,w,C)."""
        return self.crops(images, np.broadcast_to(self._centre, (len(images), 2)), np.zeros(len(images), np.uint8))

    def images_of(self, inputs: np.ndarray) -> np.ndarray:
        """The images of which float32 inputs (N,h,w,C) are centre crops: uint8 (N,h,w,C), as near as there are."""
        (top, left), (height, width) = self._centre, self.crop
        mean = self.mean[top : top + height, left : left + width]
        return np.clip(np.rint(inputs / np.asarray(self.scale, np.float32) + mean), 0, 255).astype(np.uint8)

    def crops(self, images: Array | StoredImages, corners: Array, flips: Array) -> Array:
        """One crop per image: corners int (N,2) of (top, left), flips (N,) true for mirrored -> float32 (N,h,w,C).

        Of images that have not been read, only what the crops need is; `DataError` where that cannot be."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must be {_form(self.image_shape)}, as the network takes them, got {_form(images.shape[1:])}"
            )
        stored = isinstance(images, StoredImages)
        crop = images.crops if stored else functools.partial(ops.crop_images, images)
        xp = np if stored else array_module(images)
        x = crop(
            xp.asarray(self.mean),
            xp.asarray(np.ascontiguousarray(corners, np.int32)),
            xp.asarray(np.ascontiguousarray(flips, np.uint8)),
            size=self.crop,
        )
        if self.scale != 1:
            x *= xp.asarray(np.asarray(self.scale, np.float32))
        return x

    def ten_crops(self, images: Array, *, flip: bool = True) -> Array:
        """The crops of the four corners and the centre, then the same mirrored: float32 (10,N,h,w,C).

        flip: for a network that was trained on mirrored images too; without, the first five.
        """
        xp = array_module(images)
        n = len(images)
        crops = [
            self.crops(images, np.broadcast_to(corner, (n, 2)), np.full(n, mirrored))
            for mirrored in ((False, True) if flip else (False,))
            for corner in self.test_corners
        ]
        return xp.stack(crops)

    @property
    def test_corners(self) -> np.ndarray:
        """(top, left) of the crops in the four corners and the centre, int32 (5,2)."""
        bottom, right = self.mean.shape[0] - self.crop[0], self.mean.shape[1] - self.crop[1]
        return np.array([(0, 0), (0, right), (bottom, 0), (bottom, right), self._centre], np.int32)

    @property
    def _centre(self) -> tuple[int, int]:
        return (self.mean.shape[0] - self.crop[0]) // 2, (self.mean.shape[1] - self.crop[1]) // 2


def _form(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def mean_image(dataset: Dataset) -> np.ndarray:
    """The per-pixel mean of all images: float32 (H,W,C), 0..255, exact before it is rounded. A packed half has it
    stored."""
    known: np.ndarray | None = getattr(dataset, "mean", None)
    if known is not None:
        return known
    total = np.zeros(dataset.image_shape, np.int64)
    for indices in chunks(dataset):
        images, _ = dataset.batch(indices)
        total += images.sum(axis=0, dtype=np.int64)
    return (total / len(dataset)).astype(np.float32)


def unit_scale(dataset: Dataset, mean: np.ndarray) -> float:
    """The factor that gives (images - mean) a root mean square of 1 over the first 4,096 images drawn evenly."""
    indices = np.linspace(0, len(dataset) - 1, min(len(dataset), _LOOKED_AT)).astype(np.intp)
    total = 0.0
    for some in chunks(dataset, indices):
        images, _ = dataset.batch(some)
        total += float(np.square(images - mean, dtype=np.float64).mean(axis=(1, 2, 3)).sum())
    deviation = float(np.sqrt(total / len(indices)))
    return 1 / deviation if deviation > 0 else 1.0
