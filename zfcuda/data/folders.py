"""Folders of class folders: from file names to a train and a test set."""

from __future__ import annotations

import functools
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np

from ..errors import DataError
from . import images
from .dataset import ArrayDataset, Dataset, Skipped, Split, Subset, stratified
from .files import Files

OnError = Literal["raise", "skip"]

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")
SIDE = 256  # P2

# A larger set is not decoded on opening but batch by batch.
MEMORY_LIMIT = 2 * 2**30
_PEEKED = 1000
_LISTED = 5

T = TypeVar("T")
R = TypeVar("R")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="zfcuda-decode")


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    return list(_pool().map(function, items))


class FolderDataset:
    """Images that are read and decoded, in threads, each time a batch asks for them.

    A damaged image is a `DataError` with its path.
    """

    def __init__(
        self,
        files: Files,
        names: Sequence[str],
        labels: np.ndarray,
        classes: tuple[str, ...],
        image_shape: tuple[int, int, int],
        skipped: tuple[Skipped, ...] = (),
    ):
        self._files = files
        self._names = names
        self.labels = labels
        self.classes = classes
        self.image_shape = image_shape
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.asarray(indices, np.intp)
        decoded = _in_threads(lambda index: _decode(self._files, self._names[index], self.image_shape), indices)
        return np.stack(decoded), self.labels[indices]

    def identifier(self, index: int) -> str:
        return self._files.path(self._names[index])


def open_class_folders(
    files: Files,
    where: str,
    *,
    image_size: int | None = None,
    on_error: OnError = "raise",
    hold_out: float = 0.1,
    seed: int = 0,
    in_memory: bool = True,
) -> Split:
    """A folder that holds train/ and test/ (or val/, valid/, validation/), or class folders, as a `Split`.

    Without a test folder, `hold_out` of every class is drawn with `seed` for testing. Folders above the class folders
    are looked through while each holds nothing but the next; files outside class folders and hidden files play no
    part; files in folders inside a class folder belong to the class.

    The images keep their shape where all have the same and its smaller side is at most 256. Otherwise, and where
    `image_size` is given, each is scaled and centre-cropped to a square: of `image_size`, or of the median smaller
    side, at most 256 (P2). They are grey (C = 1) where all are. Up to 1,000 images are looked at to tell.

    Sets of up to 2 GiB are decoded on opening, larger ones, and all if not `in_memory`, batch by batch. A file that is
    no image or a damaged one is a `DataError` (on opening, or when its batch is read), or is left out and listed in
    `skipped`: then the others are read once on opening to find them.
    """
    root = _look_through(files)
    train_root, test_root = _halves(files, root)
    classes = _class_names(files, train_root, where)
    train_names, train_labels = _members(files, train_root, classes, where)
    shape = _common_shape(files, train_names, image_size, where)
    limit = MEMORY_LIMIT if in_memory else 0
    train = _read(files, train_names, train_labels, classes, shape, on_error, where, limit)
    if test_root is None:
        kept, held = stratified(train.labels, hold_out, seed)
        if held.size == 0:
            raise DataError(f"{where}: has no test folder, and no class with two images to hold one back")
        return Split(Subset(train, kept), Subset(train, held))
    unknown = set(_class_names(files, test_root, where)) - set(classes)
    if unknown:
        raise DataError(
            f"{files.path(test_root)}: has classes that {files.path(train_root)} lacks: {', '.join(sorted(unknown))}"
        )
    test_names, test_labels = _members(files, test_root, classes, where)
    return Split(train, _read(files, test_names, test_labels, classes, shape, on_error, where, limit))


# ---- The tree of folders ------------------------------------------------------------------------------


def _children(names: Iterable[str], root: str) -> list[str]:
    prefix = f"{root}/" if root else ""
    return sorted({name for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :] and name})


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


def _look_through(files: Files) -> str:
    """The folder that holds the splits or the classes: down through folders that hold only one that holds others."""
    root = ""
    while True:
        below = _children(files.folders, root)
        if len(below) != 1 or not _children(files.folders, below[0]):
            return root
        root = below[0]


def _halves(files: Files, root: str) -> tuple[str, str | None]:
    folders = {_basename(folder): folder for folder in _children(files.folders, root)}
    for name in TEST_FOLDERS:
        if TRAIN_FOLDER in folders and name in folders:
            return folders[TRAIN_FOLDER], folders[name]
    return root, None


def _class_names(files: Files, root: str, where: str) -> tuple[str, ...]:
    classes = tuple(_basename(folder) for folder in _children(files.folders, root))
    place = files.path(root) if root else where
    if not classes:
        raise DataError(f"{place}: has no class folders; expected one folder per class, with its images inside")
    return classes


def _members(files: Files, root: str, classes: tuple[str, ...], where: str) -> tuple[list[str], np.ndarray]:
    """The files of every class, class by class, and their labels."""
    if len(classes) < 2:
        raise DataError(f"{files.path(root) if root else where}: has one class folder, {classes[0]}; two are needed")
    prefix = f"{root}/" if root else ""
    members: dict[str, list[str]] = {_basename(folder): [] for folder in _children(files.folders, root)}
    for name in files.names:
        if name.startswith(prefix):
            label, slash, _ = name[len(prefix) :].partition("/")
            if slash:
                members[label].append(name)
    for label, names in members.items():
        if not names:
            raise DataError(f"{files.path(prefix + label)}: the class folder is empty")
    names = [name for label in classes for name in members.get(label, [])]
    labels = [index for index, label in enumerate(classes) for _ in members.get(label, [])]
    return names, np.array(labels, np.int32)


# ---- The images ------------------------------------------------------------------------------------------


def _read_bytes(files: Files, name: str) -> bytes:
    try:
        return files.read(name)
    except OSError as error:
        raise DataError(f"{files.path(name)}: cannot be read ({error})") from error


def _decode(files: Files, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    return images.decode(_read_bytes(files, name), files.path(name), shape)


def _attempt(function: Callable[[], R], name: str, files: Files) -> R | Skipped:
    """The result, or the file and the reason why there is none."""
    try:
        return function()
    except DataError as error:
        path = files.path(name)
        return Skipped(path, str(error).removeprefix(f"{path}: "))


def _common_shape(files: Files, names: list[str], image_size: int | None, where: str) -> tuple[int, int, int]:
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    step = -(-len(names) // _PEEKED)

    def peek(name: str) -> tuple[int, int, int] | Skipped:
        return _attempt(lambda: images.peek(_read_bytes(files, name), files.path(name)), name, files)

    peeked = _in_threads(peek, names[::step])
    shapes = [shape for shape in peeked if not isinstance(shape, Skipped)]
    if not shapes:
        raise _cannot_read([item for item in peeked if isinstance(item, Skipped)], len(names), where)
    channels = max(shape[2] for shape in shapes)
    sizes = {shape[:2] for shape in shapes}
    height, width = next(iter(sizes))
    if image_size is None and len(sizes) == 1 and min(height, width) <= SIDE:
        return height, width, channels
    side = image_size or min(SIDE, int(statistics.median(min(shape[:2]) for shape in shapes)))
    return side, side, channels


def _read(
    files: Files,
    names: list[str],
    labels: np.ndarray,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    on_error: OnError,
    where: str,
    limit: int,
) -> Dataset:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    in_memory = len(names) * shape[0] * shape[1] * shape[2] <= limit
    if not in_memory and on_error == "raise":
        return FolderDataset(files, names, labels, classes, shape)

    packed = np.empty((len(names) if in_memory else 0, *shape), np.uint8)

    def unpack(index: int) -> None:
        decoded = _decode(files, names[index], shape)
        if in_memory:
            packed[index] = decoded

    results = _in_threads(lambda index: _attempt(lambda: unpack(index), names[index], files), range(len(names)))
    skipped = tuple(result for result in results if result is not None)
    if skipped:
        if on_error == "raise" or len(skipped) == len(names):
            raise _cannot_read(skipped, len(names), where)
        good = np.array([result is None for result in results])
        names = [name for name, kept in zip(names, good, strict=True) if kept]
        for label in set(labels.tolist()) - set(labels[good].tolist()):
            raise DataError(f"{where}: no image of the class {classes[label]} can be read")
        labels, packed = labels[good], packed[good] if in_memory else packed
    if not in_memory:
        return FolderDataset(files, names, labels, classes, shape, skipped)
    return ArrayDataset(packed, labels, classes, [files.path(name) for name in names], skipped)


def _cannot_read(failed: Sequence[Skipped], total: int, where: str) -> DataError:
    listed = "\n".join(f"  {path}: {reason}" for path, reason in failed[:_LISTED])
    more = f"\n  and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
    advice = 'on_error="skip" goes on without them'
    return DataError(f"{where}: {len(failed)} of {total} files cannot be read ({advice}):\n{listed}{more}")
