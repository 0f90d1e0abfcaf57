"""Emulated CUDA kernels with every access to memory examined: what they may touch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ._devices import FLOAT32, HostBackend, Workspace


class CheckedBackend(HostBackend):
    """Tells the emulator the bounds of each array of a call, and which of them hold nothing yet."""

    def __init__(self, module: ModuleType):
        super().__init__("emulated", module)
        # By address: made by `empty` for the coming call, so that a kernel has to write it first.
        self._unwritten: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()

    def empty(self, shape: tuple[int, ...], dtype: Any = FLOAT32) -> np.ndarray:
        array = super().empty(shape, dtype)
        self._unwritten[self.pointer(array)] = array
        return array

    def run(self, operation: Callable[..., None], arguments: tuple[Any, ...], workspace: Workspace) -> None:
        """Arrays are known until the call ends."""

        def examined(*arguments: Any) -> None:
            arrays = [one for one in arguments if isinstance(one, np.ndarray)]
            for i, array in enumerate(arrays):
                address = self.pointer(array)
                name = f"array {i} of the call, {array.dtype} {array.shape},"
                # With what lies between rows, where these are some channels of a wider array.
                last = sum((count - 1) * step for count, step in zip(array.shape, array.strides, strict=True))
                extent = last + array.itemsize if array.size else 0
                self.module.debug.register_array(address, extent, address not in self._unwritten, name)
            operation(*arguments)

        try:
            super().run(examined, arguments, workspace)
        finally:
            self.module.debug.forget_arrays()
            self._unwritten.clear()
