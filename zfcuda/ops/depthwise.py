"""Depthwise convolution: each filter sees one channel."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, resolve
from ..pairs import IntPair, Padding, check_padding, check_pair, check_size
from .arguments import check_apart, check_input, check_maps, check_output, element_type, expect_shape, geometry
from .call import call, kernels_for


def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Depthwise convolution: x (N,H,W,C), w (K,R,S,1), b (K,) or None -> y (N,P,Q,K), float32 or bfloat16.

    K is a multiple of C: output channel k reads input channel k // (K // C), as PyTorch's with groups = C. `padding`
    may also be (top, bottom, left, right). With `relu`, y = max(y, 0). The bias is float32.
    """
    backend, (x, w, b, out) = resolve(x=x, w=w, b=b, out=out)
    check_apart(backend, out, x, w, b)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    shape = _shape(backend, x.shape, w.shape, stride, padding, dilation)
    b = check_maps(backend, "b", b, w.shape[0])
    y = check_output(backend, out, shape.output, dtype=dtype)
    workspace = backend.module.depthwise_conv2d_workspace, shape
    operation = kernels_for(backend, dtype).depthwise_conv2d
    call(backend, operation, shape, x, w, b, bool(relu), results=(y,), workspace=workspace)
    return y


def depthwise_conv2d_data_grad(
    y: Array,
    w: Array,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    output_size: IntPair,
    channels: int | None = None,
    out: Array | None = None,
) -> Array:
    """The transpose of `depthwise_conv2d`: y (N,P,Q,K), w (K,R,S,1) -> x (N,H,W,C), float32 or bfloat16.

    (H, W) = `output_size`, C = `channels`, or K where that is None. P and Q must be what the convolution makes of them.
    """
    backend, (y, w, out) = resolve(y=y, w=w, out=out)
    check_apart(backend, out, y, w)
    dtype = element_type("y", y)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    channels = y.shape[3] if channels is None else check_pair("channels", channels)[0]
    size = (y.shape[0], *check_size("output_size", output_size), channels)
    shape = _shape(backend, size, w.shape, stride, padding, dilation)
    expect_shape("y", y, shape.output)
    x = check_output(backend, out, size, dtype=dtype)
    workspace = backend.module.depthwise_conv2d_data_grad_workspace, shape
    operation = kernels_for(backend, dtype).depthwise_conv2d_data_grad
    call(backend, operation, shape, y, w, results=(x,), workspace=workspace)
    return x


def depthwise_conv2d_weight_grad(
    x: Array,
    dy: Array,
    *,
    kernel_size: IntPair,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    out: Array | None = None,
) -> Array:
    """The gradient of the filters: x (N,H,W,C), dy (N,P,Q,K), float32 or bfloat16 -> dw (K,R,S,1), float32."""
    backend, (x, dy, out) = resolve(x=x, dy=dy, out=out)
    check_apart(backend, out, x, dy)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    filters = (dy.shape[3], *check_pair("kernel_size", kernel_size), 1)
    shape = _shape(backend, x.shape, filters, stride, padding, dilation)
    expect_shape("dy", dy, shape.output)
    dw = check_output(backend, out, filters)
    workspace = backend.module.depthwise_conv2d_weight_grad_workspace, shape
    operation = kernels_for(backend, dtype).depthwise_conv2d_weight_grad
    call(backend, operation, shape, x, dy, results=(dw,), workspace=workspace)
    return dw


def _shape(
    backend: Backend,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
) -> Any:
    return geometry(
        backend.module.DepthwiseShape,
        x,
        w,
        check_pair("stride", stride),
        check_padding("padding", padding),
        check_pair("dilation", dilation),
    )
