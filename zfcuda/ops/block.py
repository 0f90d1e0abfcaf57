"""The block of a convnet and of its deconvnet: convolution, bias, ReLU and max pooling as one operation."""

from __future__ import annotations

import numpy as np

from ..backends import Array, resolve
from ..pairs import IntPair, Padding, check_size
from .arguments import (
    Precision,
    check_apart,
    check_groups,
    check_input,
    check_maps,
    check_output,
    check_switches,
    conv_shape,
    element_type,
    expect_shape,
    filters_of,
    pool_shape,
)
from .call import call, kernels_for


def conv2d_relu_pool(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair = 1,
    groups: int = 1,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: Padding = 0,
    pool_ceil_mode: bool = False,
    precision: Precision = "fp32",
) -> tuple[Array, Array]:
    """One block of the convnet, `max_pool2d(conv2d(x, w, b, relu=True))`, without storing the map between (on a GPU,
    with `dilation` or `groups`, it is stored: nothing is gained there).

    x (N,H,W,C), w (K,R,S,C), b (K,) or None -> y and switches as from `max_pool2d`, both (N,P,Q,K).
    x, w and y float32 or bfloat16; b float32.
    """
    backend, (x, w, b) = resolve(x=x, w=w, b=b)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    conv = conv_shape(backend, x.shape, w.shape, stride, padding, dilation, groups)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding, pool_ceil_mode, prefix="pool_")
    b = check_maps(backend, "b", b, w.shape[0])
    y = backend.empty(pool.output, dtype)
    switches = backend.empty(pool.output, np.uint8)
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.conv2d_relu_pool_workspace, conv, pool
    call(backend, kernels.conv2d_relu_pool, conv, pool, x, w, b, results=(y, switches), workspace=workspace)
    return y, switches


def unpool_conv_transpose2d(
    y: Array,
    switches: Array,
    w: Array,
    *,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair = 1,
    groups: int = 1,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: Padding = 0,
    pool_ceil_mode: bool = False,
    output_size: IntPair,
    rectify: bool = False,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """One block of the deconvnet: unpool, rectify, filter (paper 2.1, P3), without storing the map between.

    y and switches (N,P,Q,K) as `conv2d_relu_pool` returns them, w (K,R,S,C) -> x (N,H,W,C), (H, W) = `output_size`.
    Without `rectify`, and with y masked by `relu_grad` against the pooled map, it is the block's data gradient.
    y, w and x float32 or bfloat16.
    """
    backend, (y, switches, w, out) = resolve(y=y, switches=switches, w=w, out=out)
    check_apart(backend, out, y, switches, w)
    dtype = element_type("y", y, precision)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    switches = check_switches(backend, y, switches)
    size = (y.shape[0], *check_size("output_size", output_size), w.shape[3] * check_groups(groups))
    conv = conv_shape(backend, size, w.shape, stride, padding, dilation, groups)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding, pool_ceil_mode, prefix="pool_")
    expect_shape("y", y, pool.output)
    x = check_output(backend, out, size, dtype=dtype)
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.unpool_conv_transpose2d_workspace, conv, pool
    inputs = conv, pool, y, switches, w, bool(rectify)
    call(backend, kernels.unpool_conv_transpose2d, *inputs, results=(x,), workspace=workspace)
    return x


def unpool_conv2d_weight_grad(
    x: Array,
    dy: Array,
    switches: Array,
    *,
    kernel_size: IntPair,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair = 1,
    groups: int = 1,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: Padding = 0,
    pool_ceil_mode: bool = False,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The gradient of a block's filters from the gradient of its pooled map, masked by `relu_grad` against it.

    x (N,H,W,C), dy and switches (N,P,Q,K) -> dw (K,R,S,C), (R, S) = `kernel_size`. Equal to `conv2d_weight_grad`
    of the unpooled dy. (The gradient of the bias is `conv2d_bias_grad(dy)`: unpooling moves values, it loses none.)
    x and dy float32 or bfloat16; dw float32.
    """
    backend, (x, dy, switches, out) = resolve(x=x, dy=dy, switches=switches, out=out)
    check_apart(backend, out, x, dy, switches)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    switches = check_switches(backend, dy, switches)
    filters = filters_of(x, dy, kernel_size, groups)
    conv = conv_shape(backend, x.shape, filters, stride, padding, dilation, groups)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding, pool_ceil_mode, prefix="pool_")
    expect_shape("dy", dy, pool.output)
    dw = check_output(backend, out, filters)
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.unpool_conv2d_weight_grad_workspace, conv, pool
    call(backend, kernels.unpool_conv2d_weight_grad, conv, pool, x, dy, switches, results=(dw,), workspace=workspace)
    return dw
