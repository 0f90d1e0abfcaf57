"""The call of an operation of a backend: which of its precisions serves it, and what is passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._devices import BFLOAT16, FLOAT32, Array, Backend, Workspace


def kernels_for(backend: Backend, dtype: Any, precision: str = "fp32") -> Any:
    """The operations that serve arrays of this dtype, float32 or bfloat16: where a backend has none for bfloat16 or
    tf32, those on float32."""
    if backend.has_bfloat16 and dtype == BFLOAT16:
        return backend.module.bf16
    if precision == "tf32":
        return getattr(backend.module, "tf32", backend.module.fp32)
    return backend.module.fp32


def call(
    backend: Backend,
    operation: Callable[..., None],
    *inputs: Any,
    results: tuple[Array, ...] = (),
    workspace: Workspace = (),
) -> None:
    """Runs an operation on what it takes: inputs, results, scratch memory, stream. Where its first array is bfloat16, a
    backend without works on widened arrays."""
    if not backend.has_bfloat16 and _is_bfloat16(inputs):
        _call_in_float32(backend, operation, inputs, results, workspace)
    else:
        backend.run(operation, inputs + results, workspace)


def _is_bfloat16(inputs: tuple[Any, ...]) -> bool:
    """Whether the first array is."""
    for one in inputs:
        if isinstance(one, np.ndarray):
            dtype = one.dtype
            return dtype is not FLOAT32 and dtype == BFLOAT16
    return False


def _call_in_float32(
    backend: Backend,
    operation: Callable[..., None],
    inputs: tuple[Any, ...],
    results: tuple[Array, ...],
    workspace: Workspace,
) -> None:
    """`call` with every bfloat16 array widened to float32, and the results rounded."""

    def is_narrow(argument: Any) -> bool:
        return isinstance(argument, backend.xp.ndarray) and argument.dtype == BFLOAT16

    def wide_result(result: Array) -> Array:
        if result.flags.c_contiguous:
            return backend.empty(result.shape)
        pitch = result.strides[-2] // result.itemsize  # channels of a wider array
        return backend.empty((*result.shape[:-1], pitch))[..., : result.shape[-1]]

    widened = [argument.astype(np.float32) if is_narrow(argument) else argument for argument in inputs]
    wide = [wide_result(result) if is_narrow(result) else result for result in results]
    call(backend, operation, *widened, results=tuple(wide), workspace=workspace)
    for result, value in zip(results, wide, strict=True):
        if value is not result:
            result[...] = value
