"""The call of an operation of a backend: which of its precisions serves it, and what is passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import BFLOAT16, Array, Backend


def kernels_for(backend: Backend, dtype: Any, precision: str = "fp32") -> Any:
    """The operations that serve arrays of this dtype, float32 or bfloat16: where a backend has none for bfloat16 or
    tf32, those on float32."""
    if dtype == BFLOAT16 and backend.has_bfloat16:
        return backend.module.bf16
    if precision == "tf32":
        return getattr(backend.module, "tf32", backend.module.fp32)
    return backend.module.fp32


def call(
    backend: Backend,
    operation: Callable[..., None],
    *inputs: Any,
    results: tuple[Array, ...] = (),
    workspace: tuple[Any, ...] = (),
) -> None:
    """Runs an operation. `workspace`: the function that says how many bytes of it there must be, and its arguments.

    Arrays go as addresses (None as 0), in the order inputs, results, workspace, stream. A backend without bfloat16
    works on widened arrays.
    """
    arguments = (*inputs, *results)
    ndarray = backend.xp.ndarray
    arrays = [a for a in arguments if isinstance(a, ndarray)]
    if not backend.has_bfloat16 and BFLOAT16 in [a.dtype for a in arrays]:
        _call_in_float32(backend, operation, inputs, results, workspace)
        return
    with backend.device(arrays[0]):
        passed = [backend.pointer(a) if a is None or isinstance(a, ndarray) else a for a in arguments]
        if workspace:
            size = workspace[0](*workspace[1:])
            scratch = backend.scratch(size) if size else None
            passed.append(backend.pointer(scratch))
        operation(*passed, backend.stream)


def _call_in_float32(
    backend: Backend,
    operation: Callable[..., None],
    inputs: tuple[Any, ...],
    results: tuple[Array, ...],
    workspace: tuple[Any, ...],
) -> None:
    """`call` with every bfloat16 array widened to float32, and the results rounded."""

    def is_narrow(argument: Any) -> bool:
        return isinstance(argument, backend.xp.ndarray) and argument.dtype == BFLOAT16

    widened = [argument.astype(np.float32) if is_narrow(argument) else argument for argument in inputs]
    wide = [backend.empty(result.shape) if is_narrow(result) else result for result in results]
    call(backend, operation, *widened, results=tuple(wide), workspace=workspace)
    for result, value in zip(results, wide, strict=True):
        if value is not result:
            result[...] = value
