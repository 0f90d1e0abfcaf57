"""Convolution, its transpose and its gradients."""

from __future__ import annotations

from typing import Any

from ..backends import Array, resolve
from ..pairs import IntPair, Padding, check_pair
from .arguments import (
    Precision,
    check_bias,
    check_input,
    check_output,
    conv_shape,
    element_type,
    expect_shape,
)
from .call import call, kernels_for
from .composed import Composition, joined
from .depthwise import depthwise_conv2d, depthwise_conv2d_data_grad, depthwise_conv2d_weight_grad


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    relu: bool = False,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """Convolution (cross-correlation, as in every convnet), with bias and ReLU if wanted (paper Fig. 3, P1).

    x (N,H,W,C), w (K,R,S,C / groups), b (K,) or None -> y (N,P,Q,K), P = floor((H + 2*padding - E) / stride) + 1 with
    E = (R - 1) * dilation + 1. `padding` may also be (top, bottom, left, right). The filters of group g, K / groups of
    them, read the channels of group g. x, w and y float32 or bfloat16; b float32.

    On the CPU, Winograd's method makes a tile of neighbouring results together: an infinity or NaN can then reach
    results of its image a few pixels beyond its windows, here as in the operations that contain a convolution.
    """
    backend, (x, w, b, out) = resolve(x=x, w=w, b=b, out=out)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    composition = Composition.of(groups, dilation)
    if composition is not None:
        composition.check_channels(x.shape[3], w.shape[3], w.shape[0])
        b = check_bias(backend, b, w.shape[0])
        how: Any = {"stride": stride, "padding": padding, "relu": relu}
        if w.shape[3] == 1:
            return depthwise_conv2d(x, w, b, dilation=dilation, out=out, **how)
        filters = composition.spread(backend, w)
        parts = [
            conv2d(part, composition.of_group(filters, i), composition.of_group(b, i), precision=precision, **how)
            for i, part in enumerate(composition.split(backend, x))
        ]
        return joined(backend, parts, out, (x, w, b))
    shape = conv_shape(backend, x.shape, w.shape, stride, padding)
    b = check_bias(backend, b, w.shape[0])
    y = check_output(backend, out, shape.output, (x, w, b), dtype=dtype)
    kernels = kernels_for(backend, dtype, precision)
    call(backend, kernels.conv2d, shape, x, w, b, bool(relu), results=(y,), workspace=(kernels.conv2d_workspace, shape))
    return y


def conv_transpose2d(
    y: Array,
    w: Array,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    output_size: IntPair,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The transpose of `conv2d`: the deconvnet's filtering (paper 2.1, P3), and the gradient of x.

    y (N,P,Q,K), w (K,R,S,C / groups) -> x (N,H,W,C) with (H, W) = `output_size`, which must be a size that `conv2d`
    maps to (P, Q).
    """
    backend, (y, w, out) = resolve(y=y, w=w, out=out)
    dtype = element_type("y", y, precision)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    height, width = check_pair("output_size", output_size)
    composition = Composition.of(groups, dilation)
    if composition is not None:
        composition.check_channels(w.shape[3] * composition.groups, w.shape[3], w.shape[0])
        if y.shape[3] != w.shape[0]:
            raise ValueError(f"y must have {w.shape[0]} channels, as many as there are filters, got {y.shape[3]}")
        how: Any = {"stride": stride, "padding": padding, "output_size": output_size}
        if w.shape[3] == 1:
            return depthwise_conv2d_data_grad(y, w, dilation=dilation, channels=composition.groups, out=out, **how)
        filters = composition.spread(backend, w)
        parts = [
            conv_transpose2d(part, composition.of_group(filters, i), precision=precision, **how)
            for i, part in enumerate(composition.split(backend, y))
        ]
        return joined(backend, parts, out, (y, w))
    shape = conv_shape(backend, (y.shape[0], height, width, w.shape[3]), w.shape, stride, padding)
    expect_shape("y", y, tuple(shape.output))
    x = check_output(backend, out, (y.shape[0], height, width, w.shape[3]), (y, w), dtype=dtype)
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.conv_transpose2d_workspace, shape
    call(backend, kernels.conv_transpose2d, shape, y, w, results=(x,), workspace=workspace)
    return x


def conv2d_weight_grad(
    x: Array,
    dy: Array,
    *,
    kernel_size: IntPair,
    stride: IntPair = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The gradient of `conv2d`'s filters. x (N,H,W,C), dy (N,P,Q,K) -> dw (K,R,S,C / groups), (R, S) = `kernel_size`,
    float32."""
    backend, (x, dy, out) = resolve(x=x, dy=dy, out=out)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    kernel = check_pair("kernel_size", kernel_size)
    composition = Composition.of(groups, dilation)
    if composition is not None:
        count = x.shape[3] // composition.groups
        composition.check_channels(x.shape[3], count, dy.shape[3])
        how: Any = {"stride": stride, "padding": padding}
        if count == 1:
            return depthwise_conv2d_weight_grad(x, dy, kernel_size=kernel, dilation=dilation, out=out, **how)
        dw = check_output(backend, out, (dy.shape[3], *kernel, count), (x, dy))
        signals = composition.split(backend, dy)
        for i, part in enumerate(composition.split(backend, x)):
            found = conv2d_weight_grad(
                part, signals[i], kernel_size=composition.extent(kernel), precision=precision, **how
            )
            composition.of_group(dw, i)[...] = composition.gathered(found)
        return dw
    filters = (dy.shape[3], *kernel, x.shape[3])
    shape = conv_shape(backend, x.shape, filters, stride, padding)
    expect_shape("dy", dy, tuple(shape.output))
    dw = check_output(backend, out, filters, (x, dy))
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.conv2d_weight_grad_workspace, shape
    call(backend, kernels.conv2d_weight_grad, shape, x, dy, results=(dw,), workspace=workspace)
    return dw


def conv2d_bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of a bias: the sum over all axes but the last. dy (..., K), float32 or bfloat16 -> db (K,)
    float32."""
    backend, (dy, out) = resolve(dy=dy, out=out)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    if dy.ndim < 2:
        raise ValueError(f"dy must have 2 dimensions or more, got shape {tuple(dy.shape)}")
    channels = dy.shape[-1]
    rows = dy.size // channels
    db = check_output(backend, out, (channels,), (dy,))
    workspace = backend.module.conv2d_bias_grad_workspace, rows, channels
    call(backend, kernels_for(backend, dtype).conv2d_bias_grad, rows, channels, dy, results=(db,), workspace=workspace)
    return db
