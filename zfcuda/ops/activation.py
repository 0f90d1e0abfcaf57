"""Sums, ReLU, clipping, dropout and casts: one element after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import BFLOAT16, Array, resolve
from ..numbers import check_number, check_whole
from .arguments import (
    array_or_none,
    check_apart,
    check_input,
    check_output,
    element_type,
    expect_shape,
    place_number,
)
from .call import call, kernels_for


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0), any shape, float32 or bfloat16; NaN stays NaN. `out` may be x."""
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x, may_alias=True)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    y = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).relu, x.size, x, results=(y,))
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, zero elsewhere: the gradient of `relu`, from its result y; float32 or bfloat16. `out`
    may be dy."""
    backend, (dy, y, out) = resolve(dy=dy, y=y, out=out)
    check_apart(backend, out, dy, y, may_alias=True)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    y = check_input(backend, "y", y, None, dtype)
    expect_shape("y", y, dy.shape)
    dx = check_output(backend, out, dy.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).relu_grad, dy.size, dy, y, results=(dx,))
    return dx


def add(a: Array, b: Array, *, relu: bool = False, out: Array | None = None) -> Array:
    """a + b of one shape, float32 or bfloat16; through ReLU if `relu`. `out` may be a or b."""
    backend, (a, b, out) = resolve(a=a, b=b, out=out)
    check_apart(backend, out, a, b, may_alias=True)
    dtype = element_type("a", a)
    a = check_input(backend, "a", a, None, dtype)
    b = check_input(backend, "b", b, None, dtype)
    expect_shape("b", b, a.shape)
    y = check_output(backend, out, a.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).add, a.size, a, b, bool(relu), results=(y,))
    return y


def clip(x: Array, low: float, high: float, *, out: Array | None = None) -> Array:
    """min(max(x, low), high), any shape, float32 or bfloat16; NaN stays NaN. low <= high, which may be infinite. `out`
    may be x."""
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x, may_alias=True)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    bounds = _check_bounds(low, high)
    y = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).clip, x.size, x, *bounds, results=(y,))
    return y


def clip_grad(dy: Array, x: Array, low: float, high: float, *, out: Array | None = None) -> Array:
    """The gradient of `clip`, from its input x: dy where low < x < high, zero elsewhere, as of PyTorch's hardtanh and
    relu6. float32 or bfloat16; `out` may be dy."""
    backend, (dy, x, out) = resolve(dy=dy, x=x, out=out)
    check_apart(backend, out, dy, x, may_alias=True)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    x = check_input(backend, "x", x, None, dtype)
    expect_shape("dy", dy, x.shape)
    bounds = _check_bounds(low, high)
    dx = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).clip_grad, x.size, dy, x, *bounds, results=(dx,))
    return dx


def _check_bounds(low: float, high: float) -> tuple[float, float]:
    low, high = check_number("low", low), check_number("high", high)
    if not low <= high:
        raise ValueError(f"low must not be above high, got low={low:g}, high={high:g}")
    return low, high


def dropout(x: Array, *, probability: float, seed: int, offset: int | Array = 0, out: Array | None = None) -> Array:
    """Zeroes each element with `probability` in [0, 1) and scales the others by 1 / (1 - probability) (P2).

    The mask is a pure function of (seed, offset, index), from Philox4x32-10, the same on every backend; the same call
    on a gradient is the gradient, so that no mask is stored. `seed` and `offset` in [0, 2^64); `offset` may be an
    array of x's device, uint64 of shape (), which the host does not look at. x float32 or bfloat16; `out` may be x.
    """
    backend, (x, out, counted) = resolve(x=x, out=out, offset=array_or_none(offset))
    check_apart(backend, out, x, may_alias=True)
    check_apart(backend, out, counted)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    probability = check_number("probability", probability)
    if not 0 <= probability < 1:
        raise ValueError(f"probability must be in [0, 1), got {probability}")
    seed = _check_counter("seed", seed)
    if array_or_none(offset) is None:
        offset = _check_counter("offset", offset)
    offset = place_number(backend, "offset", offset, np.uint64)
    y = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).dropout, x.size, x, probability, seed, offset, results=(y,))
    return y


def _check_counter(name: str, value: int) -> int:
    value = check_whole(name, value)
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} must be in [0, 2^64), got {value}")
    return value


def cast(x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """x, any shape, float32 or bfloat16, as `dtype`, the other one of the two: to bfloat16 rounded to nearest even.

    An x that has this dtype already is returned as it is, unless there is an `out`, which becomes a copy of it.
    """
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x)
    x = check_input(backend, "x", x, None, element_type("x", x))
    wanted = dtype
    try:
        dtype = np.dtype(wanted)
    except TypeError:
        dtype = None
    if dtype not in (np.float32, BFLOAT16):
        raise TypeError(f"dtype must be float32 or bfloat16, got {dtype or repr(wanted)}")
    if dtype == x.dtype and out is None:
        return x
    y = check_output(backend, out, x.shape, dtype=dtype)
    if dtype != x.dtype and backend.has_bfloat16:
        bf16 = backend.module.bf16
        call(backend, bf16.cast_from_fp32 if dtype == BFLOAT16 else bf16.cast_to_fp32, x.size, x, results=(y,))
    else:
        y[...] = x
    return y
