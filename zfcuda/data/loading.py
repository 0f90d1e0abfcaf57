"""In which order images are read, and batches that are ready when they are needed."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import NamedTuple, TypeVar

import numpy as np

from ..backends import Array
from .dataset import Dataset
from .preprocess import Preprocess
from .stored import StoredImages

_AHEAD = 2

T = TypeVar("T")
R = TypeVar("R")


class Drawn(NamedTuple):
    """A batch that is to be: indices of its images, and the crop of each, as `Preprocess.crops` takes them."""

    indices: np.ndarray
    corners: np.ndarray
    flips: np.ndarray


def shuffled(dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """All indices, each once, in an order that `rng` draws: any, or one in which the data set can be read fast (its
    method `order`, which packed images have)."""
    order: Callable[[np.random.Generator], np.ndarray] = getattr(dataset, "order", None) or (
        lambda rng: rng.permutation(len(dataset))
    )
    return order(rng)


def unread(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray | StoredImages, np.ndarray]:
    """`dataset.batch`, but of a data set that can say where images lie (its method `unread`, which packed images have)
    before they are read."""
    return (getattr(dataset, "unread", None) or dataset.batch)(indices)


def load_batches(dataset: Dataset, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`dataset.batch` of each index array, in order, read in a thread of its own while the caller computes.

    What reading raises is raised here, at the batch that it belongs to.
    """
    return _ahead(dataset.batch, batches)


def load_crops(
    dataset: Dataset, preprocess: Preprocess, batches: Iterable[Drawn], xp: ModuleType = np
) -> Iterator[tuple[Array, Array]]:
    """`preprocess.crops` of each batch, float32 (n,h,w,C), and its labels, as arrays of `xp` (NumPy or CuPy).

    A thread of its own reads ahead, as of `load_batches`; and crops, where the host does: packed images then as they
    are read.
    """
    if xp is np:

        def crop(drawn: Drawn) -> tuple[Array, Array]:
            images, labels = unread(dataset, drawn.indices)
            return preprocess.crops(images, drawn.corners, drawn.flips), labels

        yield from _ahead(crop, batches)
        return
    for drawn, (images, labels) in _ahead(lambda drawn: (drawn, dataset.batch(drawn.indices)), batches):
        yield preprocess.crops(xp.asarray(images), drawn.corners, drawn.flips), xp.asarray(labels)


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function of each item, in order, in a thread of its own, and on the backend that serves the caller."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="zfcuda-load")
    context = contextvars.copy_context()
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(context.run, function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
