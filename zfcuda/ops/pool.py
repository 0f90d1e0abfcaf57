"""Max pooling with switches."""

from __future__ import annotations

import numpy as np

from ..backends import Array, resolve
from ..pairs import IntPair, Padding, check_size
from .arguments import (
    check_apart,
    check_input,
    check_output,
    check_switches,
    element_type,
    expect_shape,
    pool_shape,
)
from .call import call, kernels_for


def max_pool2d(
    x: Array, *, window: IntPair, stride: IntPair, padding: Padding = 0, ceil_mode: bool = False
) -> tuple[Array, Array]:
    """Max pooling that records where each maximum was (paper 2.1, P3).

    x (N,H,W,C) -> y (N,P,Q,C) and switches, uint8 of the same shape: the maximum's offset r * window_width + s from
    the window's corner (also a corner that lies in the padding), the first one in row-major order. NaN wins.
    x and y float32 or bfloat16. The window has at most 256 cells; padding is smaller than the window and never wins.
    `ceil_mode`: as in PyTorch, a last window may hang over the bottom and the right edge if it begins inside the map
    or in the padding before it.
    """
    backend, (x,) = resolve(x=x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    shape = pool_shape(backend, x.shape, window, stride, padding, ceil_mode)
    y = backend.empty(shape.output, dtype)
    switches = backend.empty(shape.output, np.uint8)
    call(backend, kernels_for(backend, dtype).max_pool2d, shape, x, results=(y, switches))
    return y, switches


def max_unpool2d(
    y: Array,
    switches: Array,
    *,
    window: IntPair,
    stride: IntPair,
    padding: Padding = 0,
    ceil_mode: bool = False,
    output_size: IntPair,
    out: Array | None = None,
) -> Array:
    """Puts each value where its switch says, zero elsewhere; values that meet add up (paper 2.1, P3).

    y (N,P,Q,C), switches uint8 (N,P,Q,C) -> x (N,H,W,C), (H, W) = `output_size`. Also the gradient of `max_pool2d`.
    y and x float32 or bfloat16. A switch that names no cell of x (one that `max_pool2d` never makes) is ignored.
    """
    backend, (y, switches, out) = resolve(y=y, switches=switches, out=out)
    check_apart(backend, out, y, switches)
    dtype = element_type("y", y)
    y = check_input(backend, "y", y, 4, dtype)
    switches = check_switches(backend, y, switches)
    size = (y.shape[0], *check_size("output_size", output_size), y.shape[3])
    shape = pool_shape(backend, size, window, stride, padding, ceil_mode)
    expect_shape("y", y, shape.output)
    x = check_output(backend, out, size, dtype=dtype)
    call(backend, kernels_for(backend, dtype).max_unpool2d, shape, y, switches, results=(x,))
    return x


def spatial_max(x: Array) -> tuple[Array, Array]:
    """The strongest activation of every map: x (N,H,W,C) -> values (N,C) and positions int32 (N,C), h * W + w of
    the first maximum (the ranking of P4's top 9). NaN wins. x and values float32 or bfloat16."""
    backend, (x,) = resolve(x=x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    n, h, w, c = x.shape
    values = backend.empty((n, c), dtype)
    positions = backend.empty((n, c), np.int32)
    call(backend, kernels_for(backend, dtype).spatial_max, n, h, w, c, x, results=(values, positions))
    return values, positions
