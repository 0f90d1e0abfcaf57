"""Memory of batches that nobody holds any more, for those that are read next.

What the system gives anew it first fills with zeros, page by page: that takes longer than to read an image into it.
"""

from __future__ import annotations

import math
import weakref

import numpy as np

_KEPT = 2**28  # bytes that nobody holds


class Buffers:
    """Keeps memory of arrays until they are asked for again, up to 256 MiB of it. A copy in another process begins
    with none."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def __reduce__(self) -> tuple[type[Buffers], tuple[()]]:
        return Buffers, ()

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array uint8 whose contents are any. Its memory is kept when neither it nor a view of it is held."""
        size = math.prod(shape)
        memory = self._taken(size)
        if memory is None:
            memory = np.empty(size, np.uint8)
        # Its base is no array, so that it is itself the base of all views, and lives as long as the last of them.
        array = np.frombuffer(memory.data, np.uint8, size)
        weakref.finalize(array, self._keep, memory).atexit = False
        return array.reshape(shape)

    def _taken(self, size: int) -> np.ndarray | None:
        """The last that was kept and is large enough."""
        for place in range(len(self._free) - 1, -1, -1):
            try:
                memory = self._free.pop(place)
            except IndexError:  # another thread has taken it
                continue
            if memory.size >= size:
                return memory
        return None

    def _keep(self, memory: np.ndarray) -> None:
        if memory.size + sum(one.size for one in list(self._free)) <= _KEPT:
            self._free.append(memory)
