"""Labels as a network counts them: classes of data sets are matched with its own by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..wording import listed
from .dataset import Dataset, Described, Skipped
from .loading import shuffled, unread
from .stored import StoredImages


def relabelled(dataset: Dataset, classes: Sequence[str] | None, count: int) -> Dataset:
    """The data set with labels that count in a network's classes.

    classes: their names, or None for a network that has none; count: how many there are. By name, a data set may have
    some of the classes, in any order; its classes without an image play no part. Where no name matches and the data
    set's are the numbers 0 to count - 1 (as those of IDX files are), each number is the class that the network has at
    its place. Without names on the network's side the data set's order counts, and it must have `count` classes; if
    they are these numbers in another order (as folders are sorted, 10 before 2), it cannot be told.

    `DataError` that lists what cannot be matched, and what the network has.
    """
    own = tuple(dataset.classes)
    names = own if classes is None else tuple(classes)
    if len(names) != count:
        raise DataError(f"the network knows {count} classes, but the data set has {len(own)}")
    if classes is None and _are_numbers(own, count) and list(map(int, own)) != list(range(count)):
        raise DataError(
            f"the network has no names of classes, and the data set's are numbers in another order ({listed(own)}): it "
            "cannot be told which is which; give the network names (net.classes, or import --classes FILE)"
        )
    if own == names:
        return dataset
    shown = [own[label] for label in np.unique(dataset.labels)]
    unknown = [name for name in shown if name not in names]
    if not set(own) & set(names) and _are_numbers(own, count):
        return _Relabelled(dataset, names, [int(name) for name in own])
    if unknown:
        first = dataset.identifier(int(np.argmax(dataset.labels == own.index(unknown[0]))))
        raise DataError(
            f"the data set has classes that the network does not know: {listed(unknown)} ({first}); "
            f"it knows {listed(names)}"
        )
    for of_whom, all_names in (("network", names), ("data set", own)):
        twice = [name for name in shown if Counter(all_names)[name] > 1]
        if twice:
            raise DataError(f"the {of_whom} has several classes of one name: {listed(twice)}")
    places = {name: place for place, name in enumerate(names)}
    return _Relabelled(dataset, names, [places.get(name, -1) for name in own])


def of_one_class(dataset: Dataset, name: str) -> Dataset:
    """The data set with all its images in one class of this name, as for a network with one output."""
    return _Relabelled(dataset, (name,), [0] * len(dataset.classes))


def _are_numbers(names: Sequence[str], count: int) -> bool:
    return all(name.isdecimal() for name in names) and sorted(map(int, names)) == list(range(count))


class _Relabelled(Described):
    """Another data set's images; `places` are its classes among these."""

    def __init__(self, dataset: Dataset, classes: tuple[str, ...], places: Sequence[int]):
        self._dataset, self.classes, self._places = dataset, classes, np.array(places, np.int32)
        self.labels = self._places[dataset.labels]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._dataset.image_shape

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self._dataset.skipped

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self._dataset.batch(indices)
        return images, self._places[labels]

    def unread(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray | StoredImages, np.ndarray]:
        images, labels = unread(self._dataset, indices)
        return images, self._places[labels]

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return shuffled(self._dataset, rng)

    def identifier(self, index: int) -> str:
        return self._dataset.identifier(index)
