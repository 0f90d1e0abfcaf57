"""Local response normalisation."""

from __future__ import annotations

import functools

import numpy as np

from ..backends import Array, resolve
from ..numbers import check_number, check_whole
from .arguments import check_apart, check_input, check_output, element_type, expect_shape
from .call import call, kernels_for


@functools.lru_cache
def constants_problem(alpha: float, beta: float, k: float) -> str:
    """What is wrong with these constants, as the kernels get them, in float32; or nothing."""
    with np.errstate(over="ignore"):
        a, b, c = np.float32(alpha), np.float32(beta), np.float32(k)
        if c >= np.finfo(np.float32).tiny and alpha >= 0 and np.isfinite(c + a) and np.isfinite(b):
            return ""
    return f"k must be positive, alpha not negative, all finite, in float32; got k={k}, alpha={alpha}, beta={beta}"


def _check_norm(size: int, alpha: float, beta: float, k: float, channels: int) -> tuple[int, float, float, float]:
    size = check_whole("size", size)
    alpha, beta, k = check_number("alpha", alpha), check_number("beta", beta), check_number("k", k)
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if problem := constants_problem(alpha, beta, k):
        raise ValueError(problem)
    # Twice the channels reach from any of them to all others.
    return min(size, 2 * channels), alpha, beta, k


def local_response_norm(
    x: Array,
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    out: Array | None = None,
) -> Array:
    """Contrast normalisation across feature maps (Krizhevsky et al. 2012; paper Fig. 3, P1).

    y = x / (k + alpha * sum of x^2 over the `size` neighbouring channels) ** beta; x (..., C), the sum runs over
    channels c - size // 2 .. c + (size - 1) // 2. `alpha` is not divided by `size`. float32 or bfloat16.
    """
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    channels = x.shape[-1] if x.ndim else 1
    parameters = _check_norm(size, alpha, beta, k, channels)
    y = check_output(backend, out, x.shape, dtype=dtype)
    kernels = kernels_for(backend, dtype)
    call(backend, kernels.local_response_norm, x.size // channels, channels, *parameters, x, results=(y,))
    return y


def local_response_norm_grad(
    dy: Array,
    x: Array,
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    out: Array | None = None,
) -> Array:
    """The gradient of `local_response_norm`, from its input x and the gradient dy of its result, both (..., C),
    float32 or bfloat16, and its other arguments."""
    backend, (dy, x, out) = resolve(dy=dy, x=x, out=out)
    check_apart(backend, out, dy, x)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    x = check_input(backend, "x", x, None, dtype)
    expect_shape("dy", dy, x.shape)
    channels = x.shape[-1] if x.ndim else 1
    parameters = _check_norm(size, alpha, beta, k, channels)
    dx = check_output(backend, out, x.shape, dtype=dtype)
    kernels = kernels_for(backend, dtype)
    call(backend, kernels.local_response_norm_grad, x.size // channels, channels, *parameters, dy, x, results=(dx,))
    return dx
