"""Fashion-MNIST (Zalando Research, MIT licence): 28 x 28 grey pictures of ten kinds of clothing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .dataset import ArrayDataset, Split
from .files import Files, decompress

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
_TRAIN_IMAGES = "train-images-idx3-ubyte"


def embedded() -> Split:
    """The subset in the package: 12,000 training and 2,000 test images (N,28,28,1), the same number of every class.

    They are the first 1,200 images of each class in the original training file and the first 200 in the test file, kept
    as two lossless PNGs of 28 x 28 tiles, 40 in a row, class after class.
    """
    halves = []
    for name in ("train", "test"):
        with Image.open(_EMBEDDED / f"fashion_mnist_{name}.png") as image:
            sheet = np.asarray(image)
        tiles = sheet.reshape(-1, _SIDE, sheet.shape[1] // _SIDE, _SIDE).transpose(0, 2, 1, 3)
        images = tiles.reshape(-1, _SIDE, _SIDE, 1)
        labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), len(images) // len(CLASSES))
        halves.append(ArrayDataset(images, labels, CLASSES, f"fashion-mnist/{name}"))
    return Split(*halves)


def idx_root(files: Files) -> str | None:
    """The folder of the IDX files as a prefix of their names, or None where there are none."""
    for name in files.names:
        if name.removesuffix(".gz").endswith(_TRAIN_IMAGES):
            return name.removesuffix(".gz").removesuffix(_TRAIN_IMAGES)
    return None


def open_idx(files: Files, root: str = "") -> Split:
    """The whole set from its four IDX files, raw or .gz: 60,000 training and 10,000 test images (N,28,28,1).

    `DataError` with the path where a file is missing, damaged, or does not fit the others.
    """
    halves = []
    for half in ("train", "t10k"):
        images, path = _read_idx(files, f"{root}{half}-images-idx3-ubyte", 3)
        labels, labels_path = _read_idx(files, f"{root}{half}-labels-idx1-ubyte", 1)
        if len(images) != len(labels) or len(images) == 0:
            raise DataError(f"{labels_path}: holds {len(labels)} labels for {len(images)} images")
        halves.append(ArrayDataset(images[..., None], labels.astype(np.int32), CLASSES, path))
    return Split(*halves)


def _read_idx(files: Files, name: str, rank: int) -> tuple[np.ndarray, str]:
    stored = next((n for n in (name, f"{name}.gz") if n in files.names), None)
    if stored is None:
        raise DataError(f"{files.path(name)}: missing (also as .gz); Fashion-MNIST has four IDX files")
    path = files.path(stored)
    data = files.read(stored)
    if stored.endswith(".gz"):
        data = decompress(data, path)
    header = 4 + 4 * rank
    # Two zero bytes, 8 for uint8, the rank; then each dimension, big endian.
    if len(data) < header or data[:4] != bytes((0, 0, 8, rank)):
        raise DataError(f"{path}: no IDX file of uint8 with {rank} dimension{'s'[: rank > 1]}")
    shape = struct.unpack(f">{rank}I", data[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(data) - header != expected:
        raise DataError(f"{path}: holds {len(data) - header} bytes after its header, which promises {expected}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape), path
