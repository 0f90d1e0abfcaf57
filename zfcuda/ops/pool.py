"""Max pooling with switches."""

from __future__ import annotations

import numpy as np

from ..backends import Array, resolve
from ..pairs import IntPair, Padding, check_padding, check_pair
from .arguments import (
    check_input,
    check_output,
    check_switches,
    element_type,
    expect_shape,
    pool_shape,
)
from .call import call, kernels_for
from .composed import Sides, cropped, padded


def max_pool2d(
    x: Array, *, window: IntPair, stride: IntPair, padding: Padding = 0, ceil_mode: bool = False
) -> tuple[Array, Array]:
    """Max pooling that records where each maximum was (paper 2.1, P3).

    x (N,H,W,C) -> y (N,P,Q,C) and switches, uint8 of the same shape: the maximum's offset r * window_width + s from
    the window's corner (also a corner that lies in the padding), the first one in row-major order. NaN wins.
    x and y float32 or bfloat16. The window has at most 256 cells; padding, which may also be (top, bottom, left,
    right), is smaller than the window and never wins. With `ceil_mode` P and Q are rounded up, as long as the last
    window begins in x or in the padding before it (as in PyTorch).
    """
    backend, (x,) = resolve(x=x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    sides = _padding_by_copy(x.shape[1:3], window, stride, padding, ceil_mode)
    if sides is not None:
        return max_pool2d(padded(backend, x, sides, -np.inf), window=window, stride=stride)
    shape = pool_shape(backend, x.shape, window, stride, padding)
    y = backend.empty(tuple(shape.output), dtype)
    switches = backend.empty(tuple(shape.output), np.uint8)
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
    dtype = element_type("y", y)
    y = check_input(backend, "y", y, 4, dtype)
    switches = check_switches(backend, y, switches)
    height, width = check_pair("output_size", output_size)
    size = (y.shape[0], height, width, y.shape[3])
    sides = _padding_by_copy((height, width), window, stride, padding, ceil_mode)
    if sides is not None:
        top, bottom, left, right = sides
        x = check_output(backend, out, size, (y, switches), dtype=dtype)
        whole = max_unpool2d(
            y, switches, window=window, stride=stride, output_size=(height + top + bottom, width + left + right)
        )
        x[...] = cropped(backend, whole, top, left, (height, width))
        return x
    shape = pool_shape(backend, size, window, stride, padding)
    expect_shape("y", y, tuple(shape.output))
    x = check_output(backend, out, size, (y, switches), dtype=dtype)
    call(backend, kernels_for(backend, dtype).max_unpool2d, shape, y, switches, results=(x,))
    return x


def _padding_by_copy(
    size: tuple[int, ...], window: IntPair, stride: IntPair, padding: Padding, ceil_mode: bool
) -> Sides | None:
    """The padding that a copy of maps of this size gets, so that the pool is one without padding; None where it is one
    for the kernels as it is."""
    if not ceil_mode and not (isinstance(padding, (tuple, list)) and len(padding) == 4):
        return None
    top, bottom, left, right = check_padding("padding", padding)
    cells, steps = check_pair("window", window), check_pair("stride", stride)
    if min(*cells, *steps) < 1 or min(top, bottom, left, right) < 0:
        raise ValueError(
            f"window and stride must be at least 1, padding not negative; got {window!r}, {stride!r}, {padding!r}"
        )
    if max(top, bottom) >= cells[0] or max(left, right) >= cells[1]:
        raise ValueError(f"padding {padding!r} must be smaller than the window {window!r}")
    after = []
    for length, cell, step, before, behind in zip(size, cells, steps, (top, left), (bottom, right), strict=True):
        room = length + before + behind - cell
        if room < 0:
            raise ValueError(f"window {cell} is larger than the padded input, {length} + {before} + {behind}")
        last = -(-room // step) if ceil_mode else room // step
        if ceil_mode and last * step >= length + before:
            last -= 1
        after.append(max(0, last * step + cell - length - before))
    if not ceil_mode and top == bottom and left == right:
        return None
    return top, after[0], left, after[1]


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
