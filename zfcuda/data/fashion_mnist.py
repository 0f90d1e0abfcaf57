"""Fashion-MNIST (Zalando Research, MIT licence): 28 x 28 grey pictures of ten kinds of clothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .dataset import ArrayDataset, Split

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_EMBEDDED = Path(__file__).parent / "embedded"
_SIDE = 28
_LOOKED_AT = 1000


def embedded() -> Split:
    """The subset in the package: 12,000 training and 2,000 test images (N,28,28,1), the same number of every class.

    They are the first 1,200 images of each class in the original training file and the first 200 in the test file, kept
    as two lossless PNGs of 28 x 28 tiles, 40 in a row, class after class.
    """
    return Split(_embedded("train"), _embedded("test"))


def _embedded(half: str) -> ArrayDataset:
    with Image.open(_EMBEDDED / f"fashion_mnist_{half}.png") as image:
        sheet = np.asarray(image)
    tiles = sheet.reshape(-1, _SIDE, sheet.shape[1] // _SIDE, _SIDE).transpose(0, 2, 1, 3)
    images = tiles.reshape(-1, _SIDE, _SIDE, 1)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), len(images) // len(CLASSES))
    return ArrayDataset(images, labels, CLASSES, f"fashion-mnist/{half}")


def recognise(images: np.ndarray, labels: np.ndarray) -> bool:
    """Whether images (N,H,W,C) with labels (N,) are Fashion-MNIST's: some are among those of the package, and labels
    agree wherever they are. Of the whole training set's first 1,000 all are, of a part drawn at random a fifth."""
    if images.shape[1:] != (_SIDE, _SIDE, 1):
        return False
    known = _embedded("train")
    label_of = {image.tobytes(): label for image, label in zip(known.images, known.labels, strict=True)}
    looked_at = zip(images[:_LOOKED_AT], labels[:_LOOKED_AT], strict=True)
    found = [(label_of[key], label) for image, label in looked_at if (key := image.tobytes()) in label_of]
    return bool(found) and all(one == other for one, other in found)
