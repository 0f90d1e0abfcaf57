"""Average pooling."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, resolve
from ..pairs import IntPair, Padding, check_padding, check_pair, check_size
from .arguments import check_apart, check_input, check_output, element_type, expect_shape, geometry
from .call import call, kernels_for


def avg_pool2d(
    x: Array,
    *,
    window: IntPair,
    stride: IntPair,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """Average pooling: x (N,H,W,C) -> y (N,P,Q,C), float32 or bfloat16; as PyTorch's, with more paddings.

    `padding` may also be (top, bottom, left, right), each smaller than the window. With `ceil_mode` P and Q are rounded
    up, as long as the last window begins in x or in the padding before it. A window's sum is divided by its cells: with
    `count_include_pad` those of the padding too, but never those beyond it, which `ceil_mode` may reach.
    """
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    shape = _shape(backend, x.shape, window, stride, padding, ceil_mode, count_include_pad)
    y = check_output(backend, out, shape.output, dtype=dtype)
    workspace = backend.module.avg_pool2d_workspace, shape
    call(backend, kernels_for(backend, dtype).avg_pool2d, shape, x, results=(y,), workspace=workspace)
    return y


def avg_pool2d_grad(
    dy: Array,
    *,
    window: IntPair,
    stride: IntPair,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    output_size: IntPair,
    out: Array | None = None,
) -> Array:
    """The gradient of `avg_pool2d`, and its transpose: each value is spread evenly over its window.

    dy (N,P,Q,C) -> dx (N,H,W,C), (H, W) = `output_size`, float32 or bfloat16; the other arguments are those of
    `avg_pool2d`.
    """
    backend, (dy, out) = resolve(dy=dy, out=out)
    check_apart(backend, out, dy)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, 4, dtype)
    size = (dy.shape[0], *check_size("output_size", output_size), dy.shape[3])
    shape = _shape(backend, size, window, stride, padding, ceil_mode, count_include_pad)
    expect_shape("dy", dy, shape.output)
    dx = check_output(backend, out, size, dtype=dtype)
    call(backend, kernels_for(backend, dtype).avg_pool2d_grad, shape, dy, results=(dx,))
    return dx


def _shape(
    backend: Backend,
    x: tuple[int, ...],
    window: IntPair,
    stride: IntPair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Any:
    return geometry(
        backend.module.AvgPoolShape,
        x,
        check_pair("window", window),
        check_pair("stride", stride),
        check_padding("padding", padding),
        bool(ceil_mode),
        bool(count_include_pad),
    )
