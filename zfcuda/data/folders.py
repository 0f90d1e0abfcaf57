"""Folders of class folders: from file names to a train and a test set."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from ..errors import DataError
from . import images
from .buffers import Buffers
from .dataset import ArrayDataset, DamagedFiles, Dataset, Described, Skipped, Split, held_out
from .files import Files, Readable
from .layout import Classes, find_halves, members
from .threads import in_threads

OnError = Literal["raise", "skip"]

SIDE = 256  # P2
_LONGEST = 1024  # side of images that keep their shape

# A larger set is not decoded on opening but batch by batch.
MEMORY_LIMIT = 2 * 2**30
PEEKED = 1000  # images that are looked at to tell what all have in common

R = TypeVar("R")


class FolderDataset(Described):
    """Images that are read and decoded, in threads, each time a batch asks for them.

    A damaged image is a `DataError` with its path.
    """

    def __init__(
        self,
        files: Readable,
        names: Sequence[str],
        labels: np.ndarray,
        classes: tuple[str, ...],
        image_shape: tuple[int, int, int],
        skipped: tuple[Skipped, ...] = (),
        bits: int = 0,
    ):
        self._files = files
        self._names = names
        self.labels = labels
        self.classes = classes
        self.image_shape = image_shape
        self.skipped = skipped
        self._look = Look(image_shape, bits)
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.asarray(indices, np.intp)
        images = self._buffers.empty((len(indices), *self.image_shape))

        def fill(row: int) -> None:
            images[row] = _decode(self._files, self._names[indices[row]], self._look)

        in_threads(fill, range(len(indices)))
        return images, self.labels[indices]

    def identifier(self, index: int) -> str:
        return self._files.path(self._names[index])


@dataclass(frozen=True)
class Reading:
    """How the images of a set are read, and what is tested on where there is no test half.

    The images keep their shape where all have the same, its smaller side is at most 256 and the larger at most 1024.
    Otherwise, and where `image_size` is given, each is scaled and centre-cropped to a square: of `image_size`, or of
    the median smaller side, at most 256 (P2); or to `image_size` (height, width). They are grey (C = 1) where all are,
    if `channels` does not say how many they are to have. Up to 1,000 images are looked at to tell. See
    `zfcuda.data.images` for how their colours are read, `zfcuda.data.arrays` for .npy files of any number of channels.
    Signals, of height 1, are neither scaled nor cropped: all must have one length, whatever it is.

    Sets of up to 2 GiB are decoded on opening, larger ones, and all if not `in_memory`, batch by batch. A file that is
    no image or a damaged one is a `DataError` (on opening, or when its batch is read), or (on_error="skip") is left out
    and listed in `skipped`: then the others are read once on opening to find them.

    Without a test half, `hold_out` of every class is drawn with `seed` for testing.
    """

    image_size: int | tuple[int, int] | None = None
    channels: int | None = None
    on_error: OnError = "raise"
    hold_out: float = 0.1
    seed: int = 0
    in_memory: bool = True


class Listed(NamedTuple):
    """The images of a half by their files' names, and their labels, int32 (N,)."""

    names: list[str]
    labels: np.ndarray


def open_class_folders(files: Files, where: str, reading: Reading) -> Split:
    """A folder that holds a training and a test half, or class folders, as a `Split`.

    The halves are found by their names, in any case: train, training, training_set, seg_train, ... and test, testing,
    val, valid, validation, ...; the first test half that has folders of the training's classes counts, test before
    validation. Folders above the class folders are looked through while each holds nothing but the next; files outside
    class folders and hidden files play no part; files in folders inside a class folder belong to the class.
    """
    train, test = find_halves(files, where)
    classes = tuple(train.folders)
    tested = _labelled(files, test, classes) if test is not None else None
    return read_halves(files, where, classes, _labelled(files, train, classes), tested, reading)


def _labelled(files: Files, half: Classes, classes: tuple[str, ...]) -> Listed:
    """The files of every class, class by class, with labels that are indices into `classes`."""
    found = members(files, half)
    names = [name for label in classes for name in found.get(label, [])]
    labels = [index for index, label in enumerate(classes) for _ in found.get(label, [])]
    return Listed(names, np.array(labels, np.int32))


def read_halves(
    files: Readable, where: str, classes: tuple[str, ...], train: Listed, test: Listed | None, reading: Reading
) -> Split:
    """Both halves, of one look, which is that of the training images."""
    look = _look_at(files, train.names, reading.image_size, reading.channels, where)
    limit = MEMORY_LIMIT if reading.in_memory else 0
    trained = _read(files, train, classes, look, reading.on_error, where, limit)
    if test is not None:
        return Split(trained, _read(files, test, classes, look, reading.on_error, where, limit))
    return held_out(trained, where, reading.hold_out, reading.seed)


# ---- The images ------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What the images of a set have in common: their shape as they are read, and in how many bits white is written."""

    shape: tuple[int, int, int]
    bits: int


def _decode(files: Readable, name: str, look: Look) -> np.ndarray:
    return images.decode(files.read(name), files.path(name), *look)


def _attempt(function: Callable[[], R], name: str, files: Readable) -> R | Skipped:
    """The result, or the file and the reason why there is none."""
    try:
        return function()
    except DataError as error:
        path = files.path(name)
        return Skipped(path, str(error).removeprefix(f"{path}: "))


def _look_at(
    files: Readable, names: list[str], image_size: int | tuple[int, int] | None, wanted: int | None, where: str
) -> Look:
    step = -(-len(names) // PEEKED)

    def peek(name: str) -> images.Header | Skipped:
        return _attempt(lambda: images.peek(files.read(name), files.path(name)), name, files)

    peeked = in_threads(peek, names[::step])
    headers = [header for header in peeked if not isinstance(header, Skipped)]
    if not headers:
        raise DamagedFiles(where, [item for item in peeked if isinstance(item, Skipped)], len(names), advice="")
    return look_of(headers, image_size, wanted, where)


def look_of(
    headers: Sequence[images.Header], image_size: int | tuple[int, int] | None, wanted: int | None, where: str
) -> Look:
    """What images with such headers become, as `Reading` says; wanted: how many channels, if that is given. `DataError`
    for signals of several lengths, or that are to be images of another size."""
    channels = wanted or max(header.channels for header in headers)
    bits = max(header.bits for header in headers)
    sizes = {(header.height, header.width) for header in headers}
    height, width = next(iter(sizes))
    if max(sizes) > (1, 1) and max(header.height for header in headers) == 1:
        if len(sizes) > 1:
            raise DataError(
                f"{where}: holds signals of {min(sizes)[1]} to {max(sizes)[1]} samples; they must have one length, as "
                "they are neither scaled nor cut"
            )
        if image_size not in (None, (1, width)):
            wanted_size = " x ".join(map(str, image_size if isinstance(image_size, tuple) else (image_size,) * 2))
            raise DataError(f"{where}: holds signals of 1 x {width}, which are not scaled to {wanted_size}")
        return Look((1, width, channels), bits)
    if image_size is None and len(sizes) == 1 and min(height, width) <= SIDE and max(height, width) <= _LONGEST:
        return Look((height, width, channels), bits)
    if isinstance(image_size, tuple):
        return Look((*image_size, channels), bits)
    side = image_size or min(SIDE, int(statistics.median(min(header.height, header.width) for header in headers)))
    return Look((side, side, channels), bits)


def _read(
    files: Readable,
    listed: Listed,
    classes: tuple[str, ...],
    look: Look,
    on_error: OnError,
    where: str,
    limit: int,
) -> Dataset:
    names, labels = listed
    in_memory = len(names) * math.prod(look.shape) <= limit
    if not in_memory and on_error == "raise":
        return FolderDataset(files, names, labels, classes, look.shape, bits=look.bits)

    packed = np.empty((len(names) if in_memory else 0, *look.shape), np.uint8)

    def unpack(index: int) -> None:
        decoded = _decode(files, names[index], look)
        if in_memory:
            packed[index] = decoded

    results = in_threads(lambda index: _attempt(lambda: unpack(index), names[index], files), range(len(names)))
    skipped = tuple(result for result in results if result is not None)
    if skipped:
        if on_error == "raise" or len(skipped) == len(names):
            raise DamagedFiles(where, skipped, len(names))
        good = np.array([result is None for result in results])
        names = [name for name, kept in zip(names, good, strict=True) if kept]
        for label in set(labels.tolist()) - set(labels[good].tolist()):
            raise DataError(f"{where}: no image of the class {classes[label]} can be read")
        labels, packed = labels[good], packed[good] if in_memory else packed
    if not in_memory:
        return FolderDataset(files, names, labels, classes, look.shape, skipped, look.bits)
    return ArrayDataset(packed, labels, classes, [files.path(name) for name in names], skipped)
