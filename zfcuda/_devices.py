"""What a backend is: the compiled operations, and how the arrays that they work on are made, addressed and read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray

# Of an operation: the function that says how many bytes of scratch memory it needs, and its arguments. Empty: none.
Workspace = tuple[Any, ...]

FLOAT32 = np.dtype(np.float32)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class HostBackend:
    """Serves NumPy arrays, with the CPU kernels or with the emulated CUDA kernels."""

    xp = np
    on_host = True

    def __init__(self, name: str, module: ModuleType):
        self.name = name
        self.module = module
        self.has_bfloat16 = hasattr(module, "bf16")

    def empty(self, shape: tuple[int, ...], dtype: Any = FLOAT32) -> np.ndarray:
        """An array with undefined contents, whose memory is used again when it dies."""
        return self.module.empty(shape, dtype)

    def scratch(self, size: int) -> np.ndarray:
        """`size` bytes of scratch memory for one operation."""
        return self.empty((size,), np.uint8)

    def zeros(self, shape: tuple[int, ...], dtype: Any = FLOAT32) -> np.ndarray:
        """An array of zeros, in memory as that of `empty`."""
        zeros = self.module.empty(shape, dtype)  # not by `empty`: nothing is left to be written
        zeros.fill(0)
        return zeros

    def take(self, rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """rows[numbers]; no number is negative or too large. In memory as that of `empty`."""
        # "clip": in any other mode NumPy takes into a copy of `out`.
        taken = self.module.empty((*numbers.shape, *rows.shape[1:]), rows.dtype)
        return np.take(rows, numbers, axis=0, out=taken, mode="clip")

    def number(self, value: float, dtype: Any) -> np.ndarray:
        """A number as an array of shape ()."""
        return np.full((), value, dtype)

    def read_later(self, array: np.ndarray) -> Callable[[], np.ndarray]:
        """A call that returns the array's values of now, as the host sees them."""
        values = array.copy()
        return lambda: values

    def pointer(self, array: np.ndarray) -> int:
        """Where an array lies."""
        return self.module.address(array)

    def is_aligned(self, array: np.ndarray) -> bool:
        """Whether the array lies at a multiple of its elements' size, as operations need it."""
        return array.flags.aligned

    def run(self, operation: Callable[..., None], arguments: tuple[Any, ...], workspace: Workspace) -> None:
        """Calls an operation with these arguments and its scratch memory."""
        if workspace:
            size = workspace[0](*workspace[1:])
            arguments = (*arguments, self.scratch(size) if size else None)
        operation(*arguments, None)


class CudaBackend:
    """Serves CuPy arrays with the CUDA kernels, on one GPU: CuPy's current one if no number is given."""

    name = "cuda"
    on_host = False
    has_bfloat16 = True

    def __init__(self, module: ModuleType, cupy: ModuleType, number: int | None = None):
        self.module = module
        self.xp = cupy
        self._number = number
        self._bound: dict[int, CudaBackend] = {}

    def on(self, number: int) -> CudaBackend:
        """The same backend, bound to this GPU."""
        if number not in self._bound:
            self._bound[number] = CudaBackend(self.module, self.xp, number)
        return self._bound[number]

    @property
    def stream(self) -> int:
        return self.xp.cuda.get_current_stream().ptr

    def empty(self, shape: tuple[int, ...], dtype: Any = FLOAT32) -> Array:
        """An array with undefined contents, from CuPy's memory pool."""
        with self.device():
            return self.xp.empty(shape, dtype)

    def scratch(self, size: int) -> Array:
        """`size` bytes of scratch memory for one operation."""
        return self.empty((size,), np.uint8)

    def zeros(self, shape: tuple[int, ...], dtype: Any = FLOAT32) -> Array:
        """An array of zeros, from CuPy's memory pool."""
        with self.device():
            return self.xp.zeros(shape, dtype)

    def take(self, rows: Array, numbers: np.ndarray) -> Array:
        """rows[numbers]; no number is negative or too large."""
        with self.device():
            return self.xp.take(rows, self.xp.asarray(numbers), axis=0)

    def number(self, value: float, dtype: Any) -> Array:
        """A number as an array of shape ()."""
        placed = self.empty((), dtype)
        with self.device():
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

    def pointer(self, array: Array) -> int:
        """Where an array lies."""
        return array.data.ptr

    def is_aligned(self, array: Array) -> bool:
        """Whether the array lies at a multiple of its elements' size, as operations need it."""
        return self.pointer(array) % array.dtype.itemsize == 0

    def run(self, operation: Callable[..., None], arguments: tuple[Any, ...], workspace: Workspace) -> None:
        """Calls an operation with these arguments and its scratch memory, on this GPU and CuPy's current stream."""
        ndarray = self.xp.ndarray
        with self.device():
            if workspace:
                size = workspace[0](*workspace[1:])
                arguments = (*arguments, self.scratch(size) if size else None)
            passed = [one.data.ptr if isinstance(one, ndarray) else one for one in arguments]
            operation(*passed, self.stream)

    def device(self) -> contextlib.AbstractContextManager:
        """The context in which this GPU is CuPy's current one."""
        return contextlib.nullcontext() if self._number is None else self.xp.cuda.Device(self._number)


Backend = HostBackend | CudaBackend
