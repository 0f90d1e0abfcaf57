"""Work that is done again and again on arrays of the same shapes: on a GPU a CUDA graph, launched as a whole.

A training step is some hundred launches, each of which costs the host microseconds; a graph of them costs one. What a
graph repeats is the work on the very arrays that it was captured with. So what changes from call to call goes in as
arrays, also a learning rate; what else the work depends on is its key.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from ..backends import Array, Backend, HostBackend, resolve

__all__ = ["Captured", "capture", "identity"]


class _Graph(NamedTuple):
    """A captured call. inputs: what it reads its arguments from; pool: the memory of all that it computes."""

    graph: Any
    inputs: list[Array]
    results: Any
    pool: Any


class Captured:
    """Calls a function of arrays; on a GPU it captures the call as a CUDA graph and launches that instead.

    The first call with a key, and with arrays of these shapes and dtypes, is a plain one (kernels are compiled and
    chosen in it); the second one in a row captures; from then on the graph is launched, until one of them changes.
    Every call does the work once, and with the same bits. Results of a launched graph lie in the graph's own memory,
    where the next call overwrites them; it keeps that memory as long as it is good for the next call.

    The function must not wait for the GPU and must do on the host only what may be done twice or never. If a capture
    fails (CuPy without support for one of the calls, too little memory for a graph's own arrays), a RuntimeWarning says
    why, and this and all later calls are plain ones. On the host every call is.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._graph: _Graph | None = None
        self._fails = False

    def __call__(self, function: Callable[..., Any], *, key: Callable[[], Hashable], **arrays: Array) -> Any:
        """function(**arrays). key: a call for all that the work depends on but the values in arrays (`identity`)."""
        backend, resolved = resolve(**arrays)
        values: list[Any] = list(resolved)
        if isinstance(backend, HostBackend) or self._fails:
            return function(**arrays)

        def current() -> Hashable:
            kinds = tuple((value.device.id, value.shape, value.dtype.str) for value in values)
            return backend.stream, key(), kinds

        with backend.device():
            if current() != self._key:
                self._graph = None
                results = function(**arrays)
                self._key = current()
                return results
            if self._graph is None:
                try:
                    self._graph = capture(backend, function, arrays)
                except Exception as error:
                    self._fails = True
                    warnings.warn(
                        f"no CUDA graph, every operation is launched by itself: the capture failed with "
                        f"{type(error).__name__}: {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                    return function(**arrays)
            for fixed, value in zip(self._graph.inputs, values, strict=True):
                fixed[...] = value
            self._graph.graph.launch()
            return self._graph.results


def capture(backend: Backend, function: Callable[..., Any], arrays: dict[str, Array]) -> _Graph:
    """function(**arrays) as a CUDA graph on arrays of its own, before its first launch; a plain call must have preceded
    it. Raises what the function or CuPy raises, with no capture left open."""
    cupy: Any = backend.xp
    # What the plain call has left in the common pool is room for the graph's own.
    cupy.get_default_memory_pool().free_all_blocks()
    pool = cupy.cuda.MemoryPool()
    stream = cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.using_allocator(pool.malloc):
        inputs = {name: cupy.empty(array.shape, array.dtype) for name, array in arrays.items()}
        with stream:
            stream.begin_capture()
            try:
                results = function(**inputs)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error says more
                    stream.end_capture()
                raise
            graph = stream.end_capture()
    return _Graph(graph, list(inputs.values()), results, pool)


def identity(value: Any) -> Hashable:
    """What captured work has fixed of a value: of an array on a GPU the address, of a dict its items' identities, of
    any other value the value itself."""
    if isinstance(value, dict):
        return tuple((name, identity(item)) for name, item in value.items())
    if hasattr(value, "__cuda_array_interface__"):
        return value.__cuda_array_interface__["data"][0]
    return value
