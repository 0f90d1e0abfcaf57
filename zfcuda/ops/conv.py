"""Convolution, its transpose and its gradients."""

from __future__ import annotations

from typing import Any

from ..backends import Array, resolve
from ..pairs import IntPair, Padding, check_size
from .arguments import (
    Precision,
    check_apart,
    check_channels_output,
    check_groups,
    check_input,
    check_maps,
    check_output,
    conv_shape,
    element_type,
    expect_shape,
    filters_of,
)
from .call import call, kernels_for
from .depthwise import depthwise_conv2d, depthwise_conv2d_data_grad, depthwise_conv2d_weight_grad


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    scale: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """Convolution (cross-correlation, as in every convnet), with bias and ReLU if wanted (paper Fig. 3, P1).

    x (N,H,W,C), w (K,R,S,C/groups), b (K,) or None -> y (N,P,Q,K),
    P = floor((H + top + bottom - (R - 1) * dilation - 1) / stride) + 1. x, w and y float32 or bfloat16; b float32.

    `dilation`: how far the taps of a filter lie apart. `groups`: the first K/groups filters see the first C/groups
    channels, and so on; as many groups as channels are a depthwise convolution. `scale`, float32 (K,): y is what the
    filters give times this, plus the bias: batch normalisation at test time. `add`, of y's shape and dtype, comes to
    that before the ReLU, as at the end of a residual block; `out` may not be this array.

    `out` may be channels of a wider array, wide[..., i : i + K], of which the others stay: a concatenation's part, made
    where it belongs. Not with `add`, nor of a depthwise convolution.

    An infinity or NaN can reach results of its image a few pixels beyond its windows, here as in the operations that
    contain a convolution: on the CPU Winograd's method makes a tile of neighbouring results together, and on a GPU a
    transposed convolution to at most four channels does those of a stride.
    """
    backend, (x, w, b, scale, add, out) = resolve(x=x, w=w, b=b, scale=scale, add=add, out=out)
    check_apart(backend, out, x, w, b, scale, add)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    groups = check_groups(groups)
    if scale is None and add is None and _is_depthwise(groups, x.shape[3], w.shape[0]):
        geometry: Any = {"stride": stride, "padding": padding, "dilation": dilation}
        return depthwise_conv2d(x, w, b, relu=relu, out=out, **geometry)
    shape = conv_shape(backend, x.shape, w.shape, stride, padding, dilation, groups)
    b = check_maps(backend, "b", b, w.shape[0])
    scale = check_maps(backend, "scale", scale, w.shape[0])
    if add is not None:
        add = check_input(backend, "add", add, 4, dtype)
        expect_shape("add", add, shape.output)
    y, pitch = check_channels_output(backend, out, shape.output, dtype=dtype)
    if add is not None and pitch != w.shape[0]:
        raise ValueError("out must be C-contiguous where an array is added")
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.conv2d_workspace, shape
    call(backend, kernels.conv2d, shape, x, w, b, scale, add, bool(relu), pitch, results=(y,), workspace=workspace)
    return y


def conv_transpose2d(
    y: Array,
    w: Array,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    output_size: IntPair,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The transpose of `conv2d`: the deconvnet's filtering (paper 2.1, P3), and the gradient of x.

    y (N,P,Q,K), w (K,R,S,C/groups) -> x (N,H,W,C) with (H, W) = `output_size`, which must be a size that `conv2d`
    maps to (P, Q). y, w and x float32 or bfloat16; `stride`, `padding`, `dilation` and `groups` are those of `conv2d`.
    """
    backend, (y, w, out) = resolve(y=y, w=w, out=out)
    check_apart(backend, out, y, w)
    dtype = element_type("y", y, precision)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    groups = check_groups(groups)
    if _is_depthwise(groups, groups * w.shape[3], w.shape[0]):
        geometry: Any = {"stride": stride, "padding": padding, "dilation": dilation, "output_size": output_size}
        return depthwise_conv2d_data_grad(y, w, channels=groups, out=out, **geometry)
    height, width = check_size("output_size", output_size)
    size = (y.shape[0], height, width, w.shape[3] * groups)
    shape = conv_shape(backend, size, w.shape, stride, padding, dilation, groups)
    expect_shape("y", y, shape.output)
    x = check_output(backend, out, size, dtype=dtype)
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
    dilation: IntPair = 1,
    groups: int = 1,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The gradient of `conv2d`'s filters. x (N,H,W,C), dy (N,P,Q,K) -> dw (K,R,S,C/groups),
    (R, S) = `kernel_size`. x and dy float32 or bfloat16; dw float32. The other arguments are those of `conv2d`."""
    backend, (x, dy, out) = resolve(x=x, dy=dy, out=out)
    check_apart(backend, out, x, dy)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    groups = check_groups(groups)
    if _is_depthwise(groups, x.shape[3], dy.shape[3]):
        geometry: Any = {"stride": stride, "padding": padding, "dilation": dilation, "kernel_size": kernel_size}
        return depthwise_conv2d_weight_grad(x, dy, out=out, **geometry)
    filters = filters_of(x, dy, kernel_size, groups)
    shape = conv_shape(backend, x.shape, filters, stride, padding, dilation, groups)
    expect_shape("dy", dy, shape.output)
    dw = check_output(backend, out, filters)
    kernels = kernels_for(backend, dtype, precision)
    workspace = kernels.conv2d_weight_grad_workspace, shape
    call(backend, kernels.conv2d_weight_grad, shape, x, dy, results=(dw,), workspace=workspace)
    return dw


def conv2d_bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of a bias: the sum over all axes but the last. dy (..., K), float32 or bfloat16 -> db (K,)
    float32."""
    backend, (dy, out) = resolve(dy=dy, out=out)
    check_apart(backend, out, dy)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    if dy.ndim < 2:
        raise ValueError(f"dy must have 2 dimensions or more, got shape {dy.shape}")
    channels = dy.shape[-1]
    rows = dy.size // channels
    db = check_output(backend, out, (channels,))
    workspace = backend.module.conv2d_bias_grad_workspace, rows, channels
    call(backend, kernels_for(backend, dtype).conv2d_bias_grad, rows, channels, dy, results=(db,), workspace=workspace)
    return db


def _is_depthwise(groups: int, channels: int, filters: int) -> bool:
    return 1 < groups == channels and filters % groups == 0
