"""Data sets in .npz files: arrays of images and labels by their names. No pickle."""

from __future__ import annotations

import io
import math
import os
import sys

import numpy as np

from ..errors import DataError
from ..wording import listed
from .arrays import is_channels_first, read_header
from .dataset import ArrayDataset, Split, check_numbers, held_out
from .files import Files
from .names import printable

# Names of images and labels to train on, and of those to test on: our own, and those of MedMNIST and Keras.
_NAMES = (
    (("images", "labels"), None),
    (("train_images", "train_labels"), ("test_images", "test_labels")),
    (("x_train", "y_train"), ("x_test", "y_test")),
)
_CLASSES = "classes"
# Bytes of an array: half of the machine's memory, at most 16 GiB.
_LIMIT = min(2**34, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def is_npz(files: Files) -> bool:
    """Whether an archive holds .npy files and nothing else, none of them in a folder."""
    names = files.tree.names
    return bool(names) and not files.tree.folders and all(name.endswith(".npy") for name in names)


def forms() -> str:
    """What arrays a file may hold, in words."""
    return "; ".join(", ".join(train + (test or ())) for train, test in _NAMES)


def open_npz(files: Files, where: str, hold_out: float, seed: int) -> Split:
    """images uint8 (N,H,W,C) or (N,H,W) and labels, whole numbers (N,) or (N,1), as arrays `images` and `labels` (of
    which `hold_out` of each class are drawn with `seed` for testing); or with `train_` and `test_` before these names;
    or `x_train`, `y_train`, `x_test`, `y_test`.

    classes, an array of names, says what labels 0, 1, ... are called; without it they are the numbers. `DataError`
    where arrays are missing, damaged, or do not fit together.
    """
    there = {name.removesuffix(".npy") for name in files.tree.names}
    for train, test in _NAMES:
        if there.issuperset(train + (test or ())):
            break
    else:
        raise DataError(f"{where}: holds {listed(sorted(map(printable, there)))}; expected {forms()}")
    halves = [_half(files, *names) for names in (train, test) if names]
    if len({images.shape[1:] for images, _ in halves}) > 1:
        shapes = [images.shape[1:] for images, _ in halves]
        raise DataError(f"{where}: holds images of {shapes[0]} to train on, and of {shapes[1]} to test on")
    if _CLASSES in there:
        classes = _names(files)
    else:
        largest = max(int(labels.max()) for _, labels in halves)
        check_numbers(0, largest, sum(len(labels) for _, labels in halves), where)
        classes = tuple(map(str, range(largest + 1)))
    parts = [
        ArrayDataset(images, labels, classes, files.path(names[0]))
        for (images, labels), names in zip(halves, (train, test or train), strict=False)
    ]
    return Split(*parts) if test else held_out(parts[0], where, hold_out, seed)


def _half(files: Files, images_name: str, labels_name: str) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 (N,H,W,C), labels int32 (N,)."""
    images, labels = (_array(files, name) for name in (images_name, labels_name))
    path = files.path(images_name)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(f"{path}: must be uint8 (N,H,W,C) or (N,H,W), got {images.dtype} {images.shape}")
    if images.size == 0:
        what = "images" if len(images) == 0 else "pixels"
        raise DataError(f"{path}: holds no {what}, but an empty array {images.shape}")
    if images.ndim == 4 and is_channels_first(images.shape[1:]):
        raise DataError(f"{path}: must be (N,H,W,C), and {images.shape} looks like (N,C,H,W): transpose it")
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{files.path(labels_name)}: must be whole numbers ({len(images)},), got {labels.dtype} {labels.shape}"
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high >= 2**20:
        raise DataError(f"{files.path(labels_name)}: labels must be in [0, {2**20:,}), got values from {low} to {high}")
    images = np.ascontiguousarray(images if images.ndim == 4 else images[..., None])
    return images, labels.reshape(-1).astype(np.int32)


def _names(files: Files) -> tuple[str, ...]:
    names = _array(files, _CLASSES)
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{files.path(_CLASSES)}: must be names (N,), got {names.dtype} {names.shape}")
    codes = np.ascontiguousarray(names).view(np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
    if codes.max(initial=0) > sys.maxunicode:  # of such text Python itself fails
        raise DataError(f"{files.path(_CLASSES)}: holds names that are no text")
    return tuple(map(str, names))


def _array(files: Files, name: str) -> np.ndarray:
    path = files.path(name)
    data = files.read(f"{name}.npy", _LIMIT)
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which are not read")
        if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
            raise ValueError(f"it holds {len(data) - file.tell():,} bytes of {dtype} {shape}")
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as an array ({error})") from error
    values = np.frombuffer(data, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran else "C")
