"""CIFAR-10 (Krizhevsky 2009) in its official binary form: 32 x 32 RGB images of ten classes."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .dataset import ArrayDataset, Split
from .files import Files

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = ("test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes


def binary_root(files: Files) -> str | None:
    """The folder of the binary files as a prefix of their names, or None where there are none."""
    return next((name.removesuffix(_TRAIN[0]) for name in files.tree.names if name.endswith(_TRAIN[0])), None)


def open_binary(files: Files, root: str = "") -> Split:
    """data_batch_1.bin .. data_batch_5.bin and test_batch.bin: 50,000 training and 10,000 test images (N,32,32,3).

    `DataError` with the path where a file is missing, cut short, or holds a label beyond the ten classes.
    """
    return Split(_half(files, root, _TRAIN, "train"), _half(files, root, _TEST, "test"))


def _half(files: Files, root: str, names: tuple[str, ...], half: str) -> ArrayDataset:
    parts, identifiers = [], []
    for name in names:
        path = files.path(root + name)
        if root + name not in files.tree.names:
            raise DataError(f"{path}: missing; CIFAR-10's binary form has {', '.join((*_TRAIN, *_TEST))}")
        data = np.frombuffer(files.read(root + name), np.uint8)
        if data.size == 0 or data.size % _RECORD:
            raise DataError(f"{path}: has {data.size} bytes, no multiple of {_RECORD}; is it cut short?")
        records = data.reshape(-1, _RECORD)
        if records[:, 0].max() >= len(CLASSES):
            raise DataError(f"{path}: labels must be in [0, {len(CLASSES)}), got {records[:, 0].max()}")
        parts.append(records)
        identifiers += [f"{path}[{i}]" for i in range(len(records))]
    records = np.concatenate(parts)
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))
    return ArrayDataset(images, records[:, 0].astype(np.int32), CLASSES, identifiers)
