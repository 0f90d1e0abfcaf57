"""Which backend serves an array.

A NumPy array is served by the CPU kernels, a CuPy array by the CUDA kernels on its own GPU and on CuPy's
current stream. Other arrays that offer ``__cuda_array_interface__`` or DLPack are viewed as one of the two,
without a copy. Nothing is copied between devices.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from . import _cpu
from .errors import BackendError

Array = Any  # numpy.ndarray or cupy.ndarray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

HOST_BACKENDS = ("cpu", "emulated")
NAMES = ("cpu", "cuda", "emulated")

_host_backend = contextvars.ContextVar("zfcuda_host_backend", default="cpu")

_ON_HOST = {np.ndarray, type(None)}

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


@functools.cache
def get(name: str) -> Backend:
    """The backend called "cpu", "cuda" or "emulated"; `BackendError` with the reason if it cannot run."""
    if name == "cpu":
        return HostBackend("cpu", _cpu.load())
    if name == "emulated":
        # `_checked`, where it is built: the same kernels with every access to memory examined.
        module = _load(os.environ.get("ZFCUDA_EMULATED_MODULE", "_emulated"), "emulated")
        if module.debug.checks_accesses():
            from ._emulation import CheckedBackend

            return CheckedBackend(module)
        return HostBackend("emulated", module)
    if name == "cuda":
        module = _load("_cuda", "cuda")
        reason = module.unavailable_reason()
        if reason:
            raise BackendError(f"the CUDA backend cannot run: {reason}")
        try:
            import cupy
        except ImportError as error:
            raise BackendError(
                f"the CUDA backend needs CuPy ({error}): pip install 'zfcuda[cuda12]' or 'zfcuda[cuda13]'"
            ) from error
        from . import plans

        backend = CudaBackend(module, cupy)
        plans.load(backend)
        return backend
    raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")


def _load(module: str, name: str) -> ModuleType:
    from ._build_info import BUILT

    try:
        return importlib.import_module(f"zfcuda.{module}")
    except ImportError as error:
        raise BackendError(f"the {name} backend is not built: {BUILT[name]} ({error})") from error


def status() -> dict[str, str]:
    """For each backend, an empty string if it is usable here, else the reason why not."""
    reasons = {}
    for name in NAMES:
        try:
            get(name)
            reasons[name] = ""
        except BackendError as error:
            reasons[name] = str(error)
    return reasons


def available() -> list[str]:
    """Names of the backends that can run here, of "cpu", "cuda" and "emulated"."""
    return [name for name, reason in status().items() if not reason]


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Within this context (and thread), `name` ("cpu" or "emulated") serves NumPy arrays."""
    if name not in HOST_BACKENDS:
        raise ValueError(
            f"only {' and '.join(HOST_BACKENDS)} serve NumPy arrays, got {name!r}; "
            "for the CUDA backend pass CuPy arrays"
        )
    get(name)
    token = _host_backend.set(name)
    try:
        yield
    finally:
        _host_backend.reset(token)


def resolve(**arrays: Any) -> tuple[Backend, list[Array | None]]:
    """The backend for these named arguments, and the arguments as its arrays; None stays None.

    TypeError if an argument is no array, or if they live on different devices.
    """
    given = list(arrays.values())
    if isinstance(given[0], np.ndarray) and _ON_HOST.issuperset(map(type, given)):
        return get(_host_backend.get()), given
    viewed = {name: _view(name, array) for name, array in arrays.items()}
    places = {name: _place(array) for name, array in viewed.items() if array is not None}
    if len(set(places.values())) != 1:
        listing = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise TypeError(f"arrays must be on one device, got {listing}; nothing is copied silently")
    first = next(array for array in viewed.values() if array is not None)
    backend = get(_host_backend.get() if isinstance(first, np.ndarray) else "cuda")
    if isinstance(backend, CudaBackend):
        backend = backend.on(first.device.id)
    return backend, list(viewed.values())


def array_module(array: Array) -> ModuleType:
    """NumPy or CuPy, whichever made this array."""
    return np if isinstance(array, np.ndarray) else get("cuda").xp


def to_host(array: Array) -> np.ndarray:
    """The array itself, or a copy of a GPU's array on the CPU."""
    return array if isinstance(array, np.ndarray) else array.get()


def _place(array: Array) -> str:
    return "the CPU" if isinstance(array, np.ndarray) else f"GPU {array.device.id}"


_DLPACK_HOST = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost


def _view(name: str, array: Any) -> Array | None:
    if array is None or isinstance(array, np.ndarray):
        return array
    if type(array).__module__.partition(".")[0] == "cupy":
        return array
    if str(getattr(array, "dtype", "")) == "torch.bfloat16":
        # Neither protocol carries it everywhere, so its bits cross.
        bits: Any = _view(name, array.view(sys.modules["torch"].int16))
        return bits.view(BFLOAT16)
    if hasattr(array, "__cuda_array_interface__"):
        return get("cuda").xp.asarray(array)
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        on_host = array.__dlpack_device__()[0] in _DLPACK_HOST
        xp = np if on_host else get("cuda").xp
        try:
            return xp.from_dlpack(array)
        except (BufferError, NotImplementedError, RuntimeError) as error:
            dtype = getattr(array, "dtype", "unknown dtype")
            raise TypeError(
                f"{name}, a {type(array).__name__} of {dtype}, cannot be viewed as an array of {xp.__name__}: {error}"
            ) from error
    raise TypeError(
        f"{name} must be a NumPy or CuPy array (or offer __cuda_array_interface__ or DLPack), "
        f"got {type(array).__name__}"
    )
