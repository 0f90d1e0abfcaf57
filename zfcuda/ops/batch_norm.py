"""Batch normalisation (Ioffe and Szegedy 2015)."""

from __future__ import annotations

import math

import numpy as np

from ..backends import BFLOAT16, Array, Backend, resolve
from ..numbers import check_number
from .arguments import check_apart, check_indexable, check_input, check_output, element_type, expect_shape, row_pitch
from .call import call, kernels_for


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    weight: Array,
    bias: Array,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias, channel by channel; through ReLU if `relu`.

    x (..., C), 2 or more dimensions, float32 or bfloat16; the others float32 (C,). In training mean and variance are
    those of `batch_norm_statistics`, at test time those that training has kept. x may be the channels of a wider array,
    wide[..., :C]: it is read where it lies.
    """
    backend, (x, mean, variance, weight, bias, out) = resolve(
        x=x, mean=mean, variance=variance, weight=weight, bias=bias, out=out
    )
    check_apart(backend, out, x, mean, variance, weight, bias)
    dtype = element_type("x", x)
    x, pitch = _rows_apart(backend, x, dtype)
    channels = x.shape[-1]
    parameters = _check_parameters(backend, channels, mean=mean, variance=variance, weight=weight, bias=bias)
    y = check_output(backend, out, x.shape, dtype=dtype)
    kernels = kernels_for(backend, dtype)
    rows = x.size // channels
    call(backend, kernels.batch_norm, rows, channels, pitch, x, *parameters, _check_eps(eps), bool(relu), results=(y,))
    return y


def batch_norm_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel over all else: x (..., C), float32 or bfloat16 -> float32 (C,) both.

    The variance is that of x itself, divided by the number of rows (not by one less), and accurate however far the
    mean is from zero.
    """
    backend, (x,) = resolve(x=x)
    dtype = element_type("x", x)
    x = _check_rows(backend, "x", x, dtype)
    channels = x.shape[-1]
    rows = x.size // channels
    mean, variance = backend.empty((channels,)), backend.empty((channels,))
    workspace = backend.module.batch_norm_statistics_workspace, rows, channels
    kernels = kernels_for(backend, dtype)
    results = mean, variance
    call(backend, kernels.batch_norm_statistics, rows, channels, x, results=results, workspace=workspace)
    return results


def batch_norm_grad(
    dy: Array, x: Array, mean: Array, variance: Array, weight: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """The gradients (dx, dweight, dbias) of training: of `batch_norm` with the `batch_norm_statistics` of x, through
    them. dy, x and dx (..., C), float32 or bfloat16; the others float32 (C,)."""
    backend, (dy, x, mean, variance, weight) = resolve(dy=dy, x=x, mean=mean, variance=variance, weight=weight)
    dtype = element_type("dy", dy)
    dy = _check_rows(backend, "dy", dy, dtype)
    x = _check_rows(backend, "x", x, dtype)
    expect_shape("dy", dy, x.shape)
    channels = x.shape[-1]
    rows = x.size // channels
    parameters = _check_parameters(backend, channels, mean=mean, variance=variance, weight=weight)
    results = backend.empty(x.shape, dtype), backend.empty((channels,)), backend.empty((channels,))
    inputs = rows, channels, dy, x, *parameters, _check_eps(eps)
    workspace = backend.module.batch_norm_grad_workspace, rows, channels
    call(backend, kernels_for(backend, dtype).batch_norm_grad, *inputs, results=results, workspace=workspace)
    return results


def _check_rows(backend: Backend, name: str, array: Array, dtype: object) -> Array:
    check_indexable(name, array)
    if array.ndim < 2:
        raise ValueError(f"{name} must have 2 dimensions or more, got shape {array.shape}")
    return check_input(backend, name, array, None, dtype)


def _rows_apart(backend: Backend, x: Array, dtype: np.dtype) -> tuple[Array, int]:
    """x after checks, and how many elements its rows lie apart: where it lies, if it is the channels of a wider array,
    else contiguous."""
    if x.ndim >= 2 and not x.flags.c_contiguous and (dtype != BFLOAT16 or backend.has_bfloat16):
        pitch = row_pitch(x)
        if pitch is not None:
            return x, pitch
    x = _check_rows(backend, "x", x, dtype)
    return x, x.shape[-1]


def _check_parameters(backend: Backend, channels: int, **arrays: Array) -> list[Array]:
    checked = [check_input(backend, name, array, 1) for name, array in arrays.items()]
    for name, array in zip(arrays, checked, strict=True):
        expect_shape(name, array, (channels,))
    return checked


def _check_eps(eps: float) -> float:
    eps = check_number("eps", eps)
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"eps must be finite and not negative, got {eps}")
    return eps
