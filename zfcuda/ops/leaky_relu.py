"""Leaky ReLU with one slope or one for each channel (PReLU), and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend, resolve
from ..numbers import check_number, check_whole
from .arguments import (
    array_or_none,
    check_apart,
    check_indexable,
    check_input,
    check_output,
    element_type,
    expect_shape,
)
from .call import call, kernels_for


def leaky_relu(x: Array, slope: float | Array, *, out: Array | None = None) -> Array:
    """x where x > 0, else x * slope; any shape, float32 or bfloat16. `out` may be x.

    `slope`: a number, or a float32 array (C,) with one for each channel, the last axis of x, or (1,) for all.
    """
    backend, (x, slopes, out) = resolve(x=x, slope=array_or_none(slope), out=out)
    check_apart(backend, out, x, may_alias=True)
    check_apart(backend, out, slopes)
    dtype = element_type("x", x)
    x = _check_operand(backend, "x", x, dtype)
    slopes, number = _check_slope(backend, x, slope, slopes)
    y = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).leaky_relu, *_rows(x, slopes), x, slopes, number, results=(y,))
    return y


def leaky_relu_grad(dy: Array, x: Array, slope: float | Array, *, out: Array | None = None) -> Array:
    """The gradient of `leaky_relu`, from its input x: dy where x > 0, else dy * slope. `out` may be dy."""
    backend, (dy, x, slopes, out) = resolve(dy=dy, x=x, slope=array_or_none(slope), out=out)
    check_apart(backend, out, dy, x, may_alias=True)
    check_apart(backend, out, slopes)
    dtype = element_type("dy", dy)
    dy = _check_operand(backend, "dy", dy, dtype)
    x = _check_operand(backend, "x", x, dtype)
    expect_shape("dy", dy, x.shape)
    slopes, number = _check_slope(backend, x, slope, slopes)
    dx = check_output(backend, out, x.shape, dtype=dtype)
    call(backend, kernels_for(backend, dtype).leaky_relu_grad, *_rows(x, slopes), dy, x, slopes, number, results=(dx,))
    return dx


def prelu_weight_grad(dy: Array, x: Array, *, channels: int, out: Array | None = None) -> Array:
    """The gradient of `leaky_relu`'s slopes: the sums of dy * x where x is not positive. dy and x (..., C), float32 or
    bfloat16 -> float32 (channels,); `channels` is C, or 1 for one slope that all share."""
    backend, (dy, x, out) = resolve(dy=dy, x=x, out=out)
    check_apart(backend, out, dy, x)
    dtype = element_type("dy", dy)
    dy = _check_operand(backend, "dy", dy, dtype)
    x = _check_operand(backend, "x", x, dtype)
    expect_shape("dy", dy, x.shape)
    of_x = x.shape[-1] if x.ndim else 1
    channels = check_whole("channels", channels)
    if channels not in (1, of_x):
        raise ValueError(f"channels must be 1 or those of x, {of_x}, got {channels}")
    dslope = check_output(backend, out, (channels,))
    rows = x.size // of_x
    inputs = rows, of_x, channels == 1, dy, x
    workspace = backend.module.prelu_weight_grad_workspace, rows, of_x
    call(backend, kernels_for(backend, dtype).prelu_weight_grad, *inputs, results=(dslope,), workspace=workspace)
    return dslope


def _check_operand(backend: Backend, name: str, array: Array, dtype: Any) -> Array:
    check_indexable(name, array)
    return check_input(backend, name, array, None, dtype)


def _check_slope(backend: Backend, x: Array, slope: Any, slopes: Array | None) -> tuple[Array | None, float]:
    """The slopes as an array, or None and the number."""
    if slopes is None:
        return None, check_number("slope", slope)
    slopes = check_input(backend, "slope", slopes, 1, np.float32)
    channels = x.shape[-1] if x.ndim else 1
    if slopes.shape[0] not in (1, channels):
        raise ValueError(f"slope must have shape ({channels},), as x has channels, or (1,), got {slopes.shape}")
    return slopes, 0.0


def _rows(x: Array, slopes: Array | None) -> tuple[int, int]:
    """x as rows of as many channels as there are slopes."""
    channels = 1 if slopes is None else slopes.shape[0]
    return x.size // channels, channels
