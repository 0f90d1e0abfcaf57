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
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from . import _cpu, plans
from ._devices import BFLOAT16, Array, Backend, CudaBackend, HostBackend
from ._emulation import CheckedBackend
from .errors import BackendError

HOST_BACKENDS = ("cpu", "emulated")
NAMES = ("cpu", "cuda", "emulated")

_host_backend = contextvars.ContextVar("zfcuda_host_backend", default="cpu")

_used_cuda: set[int] = set()  # the processes that have: this one, or those it is a fork of

_ON_HOST = {np.ndarray, type(None)}


@functools.cache
def get(name: str) -> Backend:
    """The backend called "cpu", "cuda" or "emulated"; `BackendError` with the reason if it cannot run."""
    if name == "cpu":
        return HostBackend("cpu", _cpu.load())
    if name == "emulated":
        # `_checked`, where it is built: the same kernels with every access to memory examined.
        module = _load(os.environ.get("ZFCUDA_EMULATED_MODULE", "_emulated"), "emulated")
        return CheckedBackend(module) if module.debug.checks_accesses() else HostBackend("emulated", module)
    if name == "cuda":
        if _used_cuda - {os.getpid()}:
            raise BackendError(
                "the CUDA backend cannot run in a fork of a process that has used it: start it by multiprocessing's "
                '"spawn" or "forkserver"'
            )
        module = _load("_cuda", "cuda")
        reason = module.unavailable_reason()
        if reason:
            raise BackendError(f"the CUDA backend cannot run: {reason}")
        _used_cuda.add(os.getpid())
        try:
            import cupy
        except ImportError as error:
            raise BackendError(
                f"the CUDA backend needs CuPy ({error}): pip install 'zfcuda[cuda12]' or 'zfcuda[cuda13]'"
            ) from error
        backend = CudaBackend(module, cupy)
        try:
            plans.load(backend)
        except ValueError as error:  # of ZFCUDA_KERNELS
            raise BackendError(f"the CUDA backend cannot run: {error}") from error
        return backend
    raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=get.cache_clear)


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
    if given[0] is not None:  # nearly always NumPy arrays and None: a loop takes half as long as a set of types
        for array in given:
            if type(array) not in _ON_HOST:
                break
        else:
            return get(_host_backend.get()), given
    viewed = [_view(name, array) for name, array in arrays.items()]
    places = {_place(array) for array in viewed if array is not None}
    if not places:
        not_none(next(iter(arrays)), None)
    if len(places) != 1:
        there = ((name, _place(array)) for name, array in zip(arrays, viewed, strict=True) if array is not None)
        listing = ", ".join(f"{name} on {'the CPU' if gpu is None else f'GPU {gpu}'}" for name, gpu in there)
        raise TypeError(f"arrays must be on one device, got {listing}; nothing is copied silently")
    (gpu,) = places
    backend = get(_host_backend.get() if gpu is None else "cuda")
    if isinstance(backend, CudaBackend) and gpu is not None:
        backend = backend.on(gpu)
    return backend, viewed


def not_none(name: str, array: Array | None) -> Array:
    """The array, where there is one: None is for arguments that may be left out. TypeError."""
    if array is None:
        raise TypeError(f"{name} must be {_ARRAY}, got None")
    return array


def array_module(array: Array) -> ModuleType:
    """NumPy or CuPy, whichever made this array."""
    return np if isinstance(array, np.ndarray) else get("cuda").xp


def to_host(array: Array) -> np.ndarray:
    """The array itself, or a copy of a GPU's array on the CPU."""
    return array if isinstance(array, np.ndarray) else array.get()


def _place(array: Array) -> int | None:
    """The number of the array's GPU; None for the CPU."""
    return None if isinstance(array, np.ndarray) else array.device.id


_ARRAY = "a NumPy or CuPy array (or offer __cuda_array_interface__ or DLPack)"
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
    raise TypeError(f"{name} must be {_ARRAY}, got {type(array).__name__}")
