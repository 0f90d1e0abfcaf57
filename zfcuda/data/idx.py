"""Data sets in four IDX files, as MNIST is, and Fashion-MNIST, EMNIST, KMNIST after it.

IDX (LeCun): two zero bytes, 8 for uint8, the number of dimensions, each dimension as a big-endian int32, the values.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from . import fashion_mnist
from .dataset import ArrayDataset, Split
from .files import Files, decompress
from .names import printable

# train-images-idx3-ubyte, t10k-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte.gz
_NAME = re.compile(r"(.*?)(train|t10k|test)[-.](images|labels)[-.]idx\d[-.]ubyte(?:\.gz)?", re.DOTALL)
_HALVES = ("train", "t10k")
_KINDS = ("images", "labels")
_LIMIT = 2**31 - 2**20  # bytes of a file
_DIGITS = 10


class IdxFiles(NamedTuple):
    """What the names of a set begin with, and the name by half and kind ("train", "images")."""

    prefix: str
    names: dict[tuple[str, str], str]


def find(files: Files) -> IdxFiles | None:
    """The files of a set, or None where there is none; `DataError` where there are several sets."""
    sets: dict[str, dict[tuple[str, str], str]] = {}
    for name in files.tree.names:
        match = _NAME.fullmatch(name)
        if match:
            prefix, half, kind = match.groups()
            sets.setdefault(prefix, {}).setdefault(("train" if half == "train" else "t10k", kind), name)
    begun = [IdxFiles(prefix, names) for prefix, names in sets.items() if ("train", "images") in names]
    whole = [found for found in begun if len(found.names) == len(_HALVES) * len(_KINDS)]
    if len(whole) > 1:
        raise DataError(
            f"{files.path(whole[0].names['train', 'images'])}: is one of several data sets in IDX files "
            f"({', '.join(printable(found.prefix) for found in whole)}); give it a folder of its own"
        )
    return next(iter(whole or begun), None)


def open_idx(files: Files, found: IdxFiles) -> Split:
    """A set from its files, raw or .gz: images (N,H,W,C) of (N,H,W), (N,H,W,1) or (N,H,W,3).

    What its classes are called is in the data: in a file mapping.txt beside them (EMNIST's), in images that are
    Fashion-MNIST's, else they are the numbers themselves. `DataError` with the path where a file is missing, damaged,
    or does not fit the others.
    """
    for half in _HALVES:
        for kind in _KINDS:
            if (half, kind) not in found.names:
                place = files.path(found.names["train", "images"])
                raise DataError(f"{place}: the file of {half} {kind} is missing beside it; a set has four IDX files")
    images = {half: _read(files, found.names[half, "images"], (3, 4)) for half in _HALVES}
    labels = {half: _read(files, found.names[half, "labels"], (1,)) for half in _HALVES}
    for half in _HALVES:
        if len(images[half]) != len(labels[half]) or images[half].size == 0:
            path = files.path(found.names[half, "labels"])
            raise DataError(f"{path}: holds {len(labels[half])} labels for {len(images[half])} images")
    shapes = [images[half].shape[1:] for half in _HALVES]
    if shapes[0] != shapes[1]:
        path = files.path(found.names["t10k", "images"])
        raise DataError(f"{path}: holds images of {shapes[1]}, but those to train on are {shapes[0]}")
    names = _class_names(files, found, images["train"], labels)
    index = np.full(256, -1, np.int32)
    index[list(names)] = np.arange(len(names))
    halves = []
    for half in _HALVES:
        unknown = np.setdiff1d(labels[half], list(names))
        if unknown.size:
            path = files.path(found.names[half, "labels"])
            raise DataError(f"{path}: labels must be in {sorted(names)}, got {unknown[0]}")
        where = files.path(found.names[half, "images"])
        halves.append(ArrayDataset(images[half], index[labels[half]], tuple(names.values()), where))
    return Split(*halves)


def _class_names(files: Files, found: IdxFiles, images: np.ndarray, labels: dict[str, np.ndarray]) -> dict[int, str]:
    """The name of every label."""
    mapping = f"{found.prefix}mapping.txt"
    if mapping in files.tree.names:
        return _mapping(files, mapping)
    if fashion_mnist.recognise(images, labels["train"]):
        return dict(enumerate(fashion_mnist.CLASSES))
    occurring = np.union1d(*labels.values())
    last = int(occurring[-1])
    first = int(occurring[0] == 1 and last >= _DIGITS)
    if last >= _DIGITS and len(occurring) < last + 1 - first:
        raise DataError(
            f"{files.path(found.names['train', 'labels'])}: labels must be in [0, {_DIGITS}), or each "
            f"number up to the largest must occur; got {last}, but only {len(occurring)} different ones"
        )
    return {label: str(label) for label in range(first, last + 1)}


def _mapping(files: Files, name: str) -> dict[int, str]:
    """EMNIST's: a label in each line, then the code of its character, or of its two."""
    try:
        lines = [[int(word) for word in line.split()] for line in files.read(name).decode("ascii").splitlines()]
        named = {label: "/".join(map(chr, codes)) for label, *codes in filter(None, lines)}
        if not named or min(named) < 0 or max(named) > 255 or len(set(named.values()) - {""}) < len(named):
            raise ValueError("its labels must be bytes, each with a character of its own")
    except (ValueError, OverflowError) as error:
        raise DataError(f"{files.path(name)}: must have lines of a label and character codes ({error})") from error
    return dict(sorted(named.items()))


def _read(files: Files, name: str, ranks: tuple[int, ...]) -> np.ndarray:
    path = files.path(name)
    data = files.read(name, _LIMIT)
    if name.endswith(".gz"):
        data = decompress(data, path)
    rank = data[3] if data[:3] == bytes((0, 0, 8)) and len(data) > 3 else 0
    header = 4 + 4 * rank
    if rank not in ranks or len(data) < header:
        raise DataError(f"{path}: no IDX file of uint8 with {ranks[0]} dimension{'s'[: ranks[0] > 1]}")
    shape = struct.unpack(f">{rank}I", data[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(data) - header != expected:
        raise DataError(f"{path}: holds {len(data) - header} bytes after its header, which promises {expected}")
    if rank == 4 and shape[3] not in (1, 3):
        raise DataError(f"{path}: images must be (N,H,W), (N,H,W,1) or (N,H,W,3), got {shape}")
    values = np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    return values[..., None] if rank == 3 else values
