"""What a data set is: images of one shape, labels and class names, read in batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import DataError
from ..wording import listed
from .names import printable

_LISTED = 5  # files in a message
_SHOWN = 10  # classes of a data set
_MOST_NUMBERS = 2**16
_CHUNK, _CHUNK_BYTES = 512, 2**27  # of a data set that is read from end to end


def check_numbers(low: int, high: int, images: int, where: str) -> None:
    """`DataError` where labels without names are not in [0, 65,536), or up to the number of images where there are
    more: there are as many classes as the largest says, and a network has an output for each."""
    most = max(_MOST_NUMBERS, images)
    if low < 0 or high >= most:
        raise DataError(f"{where}: labels must be in [0, {most:,}), got values from {low!s:.20} to {high!s:.20}")


class Skipped(NamedTuple):
    """A file that was left out of a data set, and why."""

    path: str
    reason: str


class DamagedFiles(DataError):
    """Files of a data set cannot be read. `advice` says how they could be left out, "" where that is no way out."""

    def __init__(self, where: str, failed: Sequence[Skipped], total: int, advice: str = 'on_error="skip"'):
        self._where, self._failed, self._total, self._advice = where, failed, total, advice
        listed = "\n".join(f"  {path}: {reason}" for path, reason in failed[:_LISTED])
        more = f"\n  and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
        way_out = f" ({advice} goes on without them)" if advice and len(failed) < total else ""
        super().__init__(f"{where}: {len(failed)} of {total} files cannot be read{way_out}:\n{listed}{more}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._where, self._failed, self._total, self._advice)

    def advising(self, advice: str) -> DamagedFiles:
        """The same error for users who have another name for `on_error="skip"`."""
        return DamagedFiles(self._where, self._failed, self._total, advice if self._advice else "")


class Dataset(Protocol):
    """Labelled images of one shape, by index. Everything in the package reads images through this.

    labels: int32 (N,), indices into `classes`. image_shape: (H, W, C), C is 1 or 3 for pictures. skipped: files that
    could not be read and were left out (`on_error="skip"`).
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def skipped(self) -> tuple[Skipped, ...]: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images uint8 (n,H,W,C) and labels int32 (n,), in the order of `indices`."""
        ...

    def identifier(self, index: int) -> str:
        """The path of an image, or its place in its file: what a report prints."""
        ...


class NothingHeldOut(DataError):
    """No class of a source without a test half has two images, of which one could be held out. `dataset`: all of it."""

    def __init__(self, where: str, dataset: Dataset):
        super().__init__(f"{where}: has no test half, and no class with two images to hold one back")
        self.dataset = dataset
        self._where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._where, self.dataset)


class Described:
    """A base of data sets, whose repr is what they hold in a line."""

    def __repr__(self: Dataset) -> str:
        shape = " x ".join(map(str, self.image_shape))
        classes = f"{len(self.classes)} class{'es' if len(self.classes) != 1 else ''}: {listed(self.classes, _SHOWN)}"
        return f"<{type(self).__name__}: {len(self):,} images of {shape}, {classes}>"


class Split(NamedTuple):
    """The two halves of a source: what is trained on and what is tested on."""

    train: Dataset
    test: Dataset


class HeldOut(Split):
    """The two halves of a source that has no test half: a part of each class is held out of the rest."""


@dataclass(frozen=True, repr=False)
class ArrayDataset(Described):
    """A data set in memory: images uint8 (N,H,W,C), labels int32 (N,).

    classes: names of the labels 0, 1, ...; of one name (ImageNet has two called crane) there may be several, and they
    stay several. identifiers: one per image, or one word that prefixes the index. Names of any bytes are shown as
    `printable` makes them. ValueError and TypeError for arrays that do not fit together; `DataError` where a label
    names no class.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    identifiers: Sequence[str] | str = "image"
    skipped: tuple[Skipped, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(printable(name) for name in self.classes))
        if self.images.dtype != np.uint8:
            raise TypeError(f"images must be uint8, got {self.images.dtype}")
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(f"images must be (N,H,W,C), none empty, got shape {self.images.shape}")
        if self.labels.dtype != np.int32:
            raise TypeError(f"labels must be int32, got {self.labels.dtype}")
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"labels must have shape ({len(self.images)},), got {self.labels.shape}")
        if not isinstance(self.identifiers, str) and len(self.identifiers) != len(self.images):
            raise ValueError(f"identifiers must be {len(self.images)} strings, got {len(self.identifiers)}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            name = self.identifier(int(np.argmax((self.labels < 0) | (self.labels >= len(self.classes)))))
            raise DataError(f"{name}: labels must be in [0, {len(self.classes)}), got values from {low} to {high}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return height, width, channels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.asarray(indices, np.intp)
        return self.images[indices], self.labels[indices]

    def identifier(self, index: int) -> str:
        if isinstance(self.identifiers, str):
            return f"{printable(self.identifiers)}[{index}]"
        return printable(self.identifiers[index])


class Subset(Described):
    """Some images of another data set, in a given order; nothing is copied."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray):
        self._dataset = dataset
        self._indices = np.array(indices, np.intp)
        if self._indices.ndim != 1 or self._indices.size == 0:
            raise ValueError(f"indices must be a list of one index or more, got shape {self._indices.shape}")
        if self._indices.min() < 0 or self._indices.max() >= len(dataset):
            raise ValueError(
                f"indices must be in [0, {len(dataset)}), got values from {self._indices.min()} to "
                f"{self._indices.max()}"
            )
        self.labels = dataset.labels[self._indices]
        self.skipped = dataset.skipped

    @property
    def classes(self) -> tuple[str, ...]:
        return self._dataset.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._dataset.image_shape

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._dataset.batch(self._indices[np.asarray(indices, np.intp)])

    def identifier(self, index: int) -> str:
        return self._dataset.identifier(int(self._indices[index]))


class Together(Described):
    """The images of both halves, those to train on first; nothing is copied. ValueError where they are of different
    shapes or classes."""

    def __init__(self, split: Split):
        train, test = self._halves = split
        if train.image_shape != test.image_shape or train.classes != test.classes:
            raise ValueError(
                f"both halves must have images of one shape and the same classes, got {train!r} and {test!r}"
            )
        self.labels = np.concatenate([train.labels, test.labels])
        self.skipped = tuple(dict.fromkeys((*train.skipped, *test.skipped)))

    @property
    def classes(self) -> tuple[str, ...]:
        return self._halves.train.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._halves.train.image_shape

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.asarray(indices, np.intp)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        first = len(self._halves.train)
        for half, own, start in zip(self._halves, (indices < first, indices >= first), (0, first), strict=True):
            if own.any():
                images[own] = half.batch(indices[own] - start)[0]
        return images, self.labels[indices]

    def identifier(self, index: int) -> str:
        train, test = self._halves
        return train.identifier(index) if index < len(train) else test.identifier(index - len(train))


def stratified(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits indices so that `fraction` of every class goes to the second part (at least one image, never all).

    labels (N,) -> two sorted index arrays. The same seed draws the same images. A class with a single image stays
    whole in the first part.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    rng = np.random.default_rng(seed)
    first, second = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held = min(max(1, round(fraction * len(members))), len(members) - 1)
        second.append(members[:held])
        first.append(members[held:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def held_out(dataset: Dataset, where: str, fraction: float, seed: int) -> HeldOut:
    """The data set as two halves: `fraction` of every class is tested on. `NothingHeldOut` where no class has two
    images."""
    kept, held = stratified(dataset.labels, fraction, seed)
    if held.size == 0:
        raise NothingHeldOut(where, dataset)
    test = Subset(dataset, held)
    test.skipped = ()  # they are the training half's
    return HeldOut(Subset(dataset, kept), test)


def chunks(dataset: Dataset, indices: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """All indices, or these, in order: as many at a time as have images of 128 MiB together, and at most 512."""
    indices = np.arange(len(dataset)) if indices is None else indices
    size = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(dataset.image_shape)))
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def sample(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """`count` images of a data set, the same share of every class; all of it where it has no more than `count`."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if count >= len(dataset):
        return dataset
    # Images in order of their rank inside their class: every prefix is as even as the classes allow.
    rng = np.random.default_rng(seed)
    rank = np.empty(len(dataset), np.intp)
    for label in np.unique(dataset.labels):
        members = np.flatnonzero(dataset.labels == label)
        rank[members] = rng.permutation(len(members))
    order = np.lexsort((dataset.labels, rank))
    return Subset(dataset, np.sort(order[:count]))
