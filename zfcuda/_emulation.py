"""Emulated CUDA kernels with every access to memory examined: what they may touch."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ._devices import HostBackend


class CheckedBackend(HostBackend):
    """Tells the emulator the bounds of each array of a call, and which of them hold nothing yet."""

    def __init__(self, module: ModuleType):
        super().__init__("emulated", module)
        # By address: made by `empty` for the coming call, so that a kernel has to write it first.
        self._unwritten: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        self._in_call = False
        self._registered = 0

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        in_call, self._in_call = self._in_call, False
        array = super().empty(shape, dtype)
        self._in_call = in_call
        self._unwritten[self.module.address(array)] = array
        return array

    def scratch(self, size: int) -> np.ndarray:
        """Exactly `size` bytes, so that an access beyond them is found."""
        return self.empty((size,), np.uint8)

    def pointer(self, array: np.ndarray | None) -> int:
        address = super().pointer(array)
        if array is not None and self._in_call:
            name = f"array {self._registered} of the call, {array.dtype} {array.shape},"
            self.module.debug.register_array(address, array.nbytes, address not in self._unwritten, name)
            self._registered += 1
        return address

    @contextlib.contextmanager
    def device(self, array: np.ndarray) -> Iterator[None]:
        """The context of one call: its arrays are known until it ends."""
        self._in_call, self._registered = True, 0
        try:
            yield
        finally:
            self._in_call = False
            self.module.debug.forget_arrays()
            self._unwritten.clear()
