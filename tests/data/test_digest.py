"""A word for a data set: the same for the same contents, another for anything else."""

import numpy as np
import pytest

from zfcuda.data import ArrayDataset, Subset, digest

IMAGES = np.random.default_rng(0).integers(0, 256, (700, 3, 4, 1), np.uint8)  # more than are read at a time
LABELS = (np.arange(700) % 2).astype(np.int32)


def dataset(images=IMAGES, labels=LABELS, classes=("a", "b"), where="here"):
    return ArrayDataset(images, labels, classes, where)


def test_the_same_contents_anywhere():
    assert digest(dataset()) == digest(dataset(IMAGES.copy(), where="there")) == digest(Subset(dataset(), range(700)))


@pytest.mark.parametrize("place", [0, 511, 512, 699])
def test_a_pixel(place):
    images = IMAGES.copy()
    images[place, 1, 1] ^= 1
    assert digest(dataset(images)) != digest(dataset())


@pytest.mark.parametrize(
    "other",
    [
        dataset(labels=1 - LABELS),
        dataset(classes=("a", "c")),
        dataset(IMAGES[::-1].copy()),
        dataset(IMAGES[:699], LABELS[:699]),
        dataset(IMAGES.reshape(700, 4, 3, 1)),
    ],
)
def test_anything_else(other):
    assert digest(other) != digest(dataset())
