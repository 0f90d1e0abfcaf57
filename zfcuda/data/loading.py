"""Batches that are ready when they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .dataset import Dataset

_AHEAD = 2


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
