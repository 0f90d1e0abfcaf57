"""In which order images are read, and batches that are ready when they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .dataset import Dataset

_AHEAD = 2


def shuffled(dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """All indices, each once, in an order that `rng` draws: any, or one in which the data set can be read fast (its
    method `order`, which packed images have)."""
    order: Callable[[np.random.Generator], np.ndarray] = getattr(dataset, "order", None) or (
        lambda rng: rng.permutation(len(dataset))
    )
    return order(rng)


def load_batches(dataset: Dataset, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`dataset.batch` of each index array, in order, read in a thread of its own while the caller computes.

    What reading raises is raised here, at the batch that it belongs to.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="zfcuda-load")
    waiting: deque[Future] = deque()
    try:
        for indices in batches:
            waiting.append(pool.submit(dataset.batch, indices))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
