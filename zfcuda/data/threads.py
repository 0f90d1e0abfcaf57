"""The threads that read and decode images."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="zfcuda-decode")


os.register_at_fork(after_in_child=_pool.cache_clear)  # its threads are not in the child


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results in the order of the items; what one raises is raised here."""
    return list(_pool().map(function, items))
