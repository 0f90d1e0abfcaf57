"""What a backend is: the compiled operations, and how the arrays that they work on are made, addressed and read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Smaller arrays come from NumPy: its own cache is as good.
_POOLED_BYTES = 64 * 1024


class HostBackend:
    """Serves NumPy arrays, with the CPU kernels or with the emulated CUDA kernels."""

    xp = np
    stream = 0
    on_host = True

    def __init__(self, name: str, module: ModuleType):
        self.name = name
        self.module = module
        self.has_bfloat16 = hasattr(module, "bf16")

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An array with undefined contents, whose memory is used again when it dies."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < _POOLED_BYTES:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, buffer=self.module.HostBlock(size))

    def scratch(self, size: int) -> np.ndarray:
        """`size` bytes of scratch memory for one operation."""
        return self.empty((size,), np.uint8)

    def number(self, value: float, dtype: Any) -> np.ndarray:
        """A number as an array of shape ()."""
        return np.full((), value, dtype)

    def read_later(self, array: np.ndarray) -> Callable[[], np.ndarray]:
        """A call that returns the array's values of now, as the host sees them."""
        values = array.copy()
        return lambda: values

    def pointer(self, array: np.ndarray | None) -> int:
        return 0 if array is None else self.module.address(array)

    def device(self, array: np.ndarray) -> contextlib.AbstractContextManager:
        """The context in which operations on this array run."""
        return contextlib.nullcontext()


class CudaBackend:
    """Serves CuPy arrays with the CUDA kernels, on one GPU: CuPy's current one if no number is given."""

    name = "cuda"
    on_host = False
    has_bfloat16 = True

    def __init__(self, module: ModuleType, cupy: ModuleType, number: int | None = None):
        self.module = module
        self.xp = cupy
        self._number = number

    def on(self, number: int) -> CudaBackend:
        """The same backend, bound to this GPU."""
        return CudaBackend(self.module, self.xp, number)

    @property
    def stream(self) -> int:
        return self.xp.cuda.get_current_stream().ptr

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An array with undefined contents, from CuPy's memory pool."""
        with contextlib.nullcontext() if self._number is None else self.xp.cuda.Device(self._number):
            return self.xp.empty(shape, dtype)

    def scratch(self, size: int) -> Array:
        """`size` bytes of scratch memory for one operation."""
        return self.empty((size,), np.uint8)

    def number(self, value: float, dtype: Any) -> Array:
        """A number as an array of shape ()."""
        placed = self.empty((), dtype)
        with self.device(placed):
            placed.fill(np.dtype(dtype).type(value))
        return placed

    def read_later(self, array: Array) -> Callable[[], np.ndarray]:
        """A call that returns the array's values of this place in the stream, as the host sees them: it waits for what
        is in the stream now, and not for what comes after."""
        from cupyx import empty_pinned

        values = empty_pinned(array.shape, array.dtype)
        array.get(out=values, blocking=False)
        copied = self.xp.cuda.Event(disable_timing=True)
        copied.record()

        def read() -> np.ndarray:
            copied.synchronize()
            return values

        return read

    def pointer(self, array: Array | None) -> int:
        return 0 if array is None else array.data.ptr

    def device(self, array: Array) -> contextlib.AbstractContextManager:
        """The context in which operations on this array run."""
        return self.xp.cuda.Device(array.device.id)


Backend = HostBackend | CudaBackend
