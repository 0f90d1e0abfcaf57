"""The operations: convolution, pooling with switches, and what a convnet and its deconvnet need besides.

Images are NHWC and filters KRSC, C-contiguous float32 unless an operation says more. N H W C are batch, height,
width and channels of the input, P Q K those of the output, R S the filter's height and width. `stride`, `padding`,
`window`, `kernel_size` and `output_size` are an int or (height, width). A NumPy array runs on the CPU, a CuPy
array on its GPU and CuPy's current stream; results live where the arguments do. An argument that is not
C-contiguous is copied first; `out` must be contiguous and is never resized.

Where an operation says "float32 or bfloat16", its arrays may also be bfloat16 (`ml_dtypes.bfloat16`), all of them:
they are stored in 16 bits, the arithmetic is float32, and results are rounded to nearest even. On a backend without
bfloat16 kernels (the CPU's) the arguments are widened to float32 and the results rounded: the same numbers, no saving.

`precision="tf32"` permits an operation on float32 arrays to multiply on tensor cores, which round every factor to 11
significant bits (by at most 2^-11 of it); sums are float32. A backend without tensor cores (the CPU's) computes exact
float32 all the same. The default, "fp32", forbids it. bfloat16 arrays need no permission.

Errors: ValueError for shapes and values, TypeError for dtypes, kinds of arrays and mixed devices. Each names
the argument, what it was and what is allowed.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ._border import (
    IntPair,
    Precision,
    array_or_none,
    call,
    check_bias,
    check_in_place,
    check_input,
    check_output,
    check_pair,
    check_switches,
    conv_shape,
    element_type,
    expect_shape,
    or_null,
    place_number,
    pool_shape,
)
from .backends import BFLOAT16, Array, Backend, resolve

__all__ = [
    "cast",
    "conv2d",
    "conv2d_bias_grad",
    "conv2d_relu_pool",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "crop_images",
    "cut_windows",
    "dropout",
    "local_response_norm",
    "local_response_norm_grad",
    "max_pool2d",
    "max_unpool2d",
    "relu",
    "relu_grad",
    "renormalize_filters",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "spatial_max",
    "unpool_conv2d_weight_grad",
    "unpool_conv_transpose2d",
]


# ---- Convolution -----------------------------------------------------------------------------------------


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    relu: bool = False,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """Convolution (cross-correlation, as in every convnet), with bias and ReLU if wanted (paper Fig. 3, P1).

    x (N,H,W,C), w (K,R,S,C), b (K,) or None -> y (N,P,Q,K), P = floor((H + 2*padding - R) / stride) + 1.
    x, w and y float32 or bfloat16; b float32.

    On the CPU, Winograd's method makes a tile of neighbouring results together, with small maps of a batch side by
    side: an infinity or NaN can then reach results a few pixels beyond its windows, also at the edge of another image,
    here as in the operations that contain a convolution.
    """
    backend, (x, w, b, out) = resolve(x=x, w=w, b=b, out=out)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    shape = conv_shape(backend, x.shape, w.shape, stride, padding)
    b = check_bias(backend, b, w.shape[0])
    y = check_output(backend, out, shape.output, (x, w, b), dtype=dtype)
    call(backend, "conv2d", shape, x, w, or_null(b), bool(relu), results=(y,), workspace=(shape,), precision=precision)
    return y


def conv_transpose2d(
    y: Array,
    w: Array,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_size: IntPair,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The transpose of `conv2d`: the deconvnet's filtering (paper 2.1, P3), and the gradient of x.

    y (N,P,Q,K), w (K,R,S,C) -> x (N,H,W,C) with (H, W) = `output_size`, which must be a size that `conv2d` maps
    to (P, Q).
    """
    backend, (y, w, out) = resolve(y=y, w=w, out=out)
    dtype = element_type("y", y, precision)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    height, width = check_pair("output_size", output_size)
    shape = conv_shape(backend, (y.shape[0], height, width, w.shape[3]), w.shape, stride, padding)
    expect_shape("y", y, tuple(shape.output))
    x = check_output(backend, out, (y.shape[0], height, width, w.shape[3]), (y, w), dtype=dtype)
    call(backend, "conv_transpose2d", shape, y, w, results=(x,), workspace=(shape,), precision=precision)
    return x


def conv2d_weight_grad(
    x: Array,
    dy: Array,
    *,
    kernel_size: IntPair,
    stride: IntPair = 1,
    padding: IntPair = 0,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The gradient of `conv2d`'s filters. x (N,H,W,C), dy (N,P,Q,K) -> dw (K,R,S,C), (R, S) = `kernel_size`."""
    backend, (x, dy, out) = resolve(x=x, dy=dy, out=out)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    filters = (dy.shape[3], *check_pair("kernel_size", kernel_size), x.shape[3])
    shape = conv_shape(backend, x.shape, filters, stride, padding)
    expect_shape("dy", dy, tuple(shape.output))
    dw = check_output(backend, out, filters, (x, dy))
    call(backend, "conv2d_weight_grad", shape, x, dy, results=(dw,), workspace=(shape,), precision=precision)
    return dw


def conv2d_bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of a bias: the sum over all axes but the last. dy (..., K), float32 or bfloat16 -> db (K,)
    float32."""
    backend, (dy, out) = resolve(dy=dy, out=out)
    dy = check_input(backend, "dy", dy, None, element_type("dy", dy))
    if dy.ndim < 2:
        raise ValueError(f"dy must have 2 dimensions or more, got shape {tuple(dy.shape)}")
    channels = dy.shape[-1]
    rows = dy.size // channels
    db = check_output(backend, out, (channels,), (dy,))
    call(backend, "conv2d_bias_grad", rows, channels, dy, results=(db,), workspace=(rows, channels))
    return db


# ---- Max pooling with switches ------------------------------------------------------------------------------


def max_pool2d(x: Array, *, window: IntPair, stride: IntPair, padding: IntPair = 0) -> tuple[Array, Array]:
    """Max pooling that records where each maximum was (paper 2.1, P3).

    x (N,H,W,C) -> y (N,P,Q,C) and switches, uint8 of the same shape: the maximum's offset r * window_width + s from
    the window's corner (also a corner that lies in the padding), the first one in row-major order. NaN wins.
    x and y float32 or bfloat16. The window has at most 256 cells; padding is smaller than the window and never wins.
    """
    backend, (x,) = resolve(x=x)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, 4, dtype)
    shape = pool_shape(backend, x.shape, window, stride, padding)
    y = backend.empty(tuple(shape.output), dtype)
    switches = backend.empty(tuple(shape.output), np.uint8)
    call(backend, "max_pool2d", shape, x, results=(y, switches))
    return y, switches


def max_unpool2d(
    y: Array,
    switches: Array,
    *,
    window: IntPair,
    stride: IntPair,
    padding: IntPair = 0,
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
    size = (y.shape[0], *check_pair("output_size", output_size), y.shape[3])
    shape = pool_shape(backend, size, window, stride, padding)
    expect_shape("y", y, tuple(shape.output))
    x = check_output(backend, out, size, (y, switches), dtype=dtype)
    call(backend, "max_unpool2d", shape, y, switches, results=(x,))
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
    call(backend, "spatial_max", n, h, w, c, x, results=(values, positions))
    return values, positions


# ---- The block: conv + bias + ReLU + max pool -----------------------------------------------------------------


def conv2d_relu_pool(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: IntPair,
    padding: IntPair,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: IntPair = 0,
    precision: Precision = "fp32",
) -> tuple[Array, Array]:
    """One block of the convnet, `max_pool2d(conv2d(x, w, b, relu=True))`, without storing the map between.

    x (N,H,W,C), w (K,R,S,C), b (K,) or None -> y and switches as from `max_pool2d`, both (N,P,Q,K).
    x, w and y float32 or bfloat16; b float32.
    """
    backend, (x, w, b) = resolve(x=x, w=w, b=b)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    conv = conv_shape(backend, x.shape, w.shape, stride, padding)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding)
    b = check_bias(backend, b, w.shape[0])
    y = backend.empty(tuple(pool.output), dtype)
    switches = backend.empty(tuple(pool.output), np.uint8)
    call(
        backend,
        "conv2d_relu_pool",
        conv,
        pool,
        x,
        w,
        or_null(b),
        results=(y, switches),
        workspace=(conv, pool),
        precision=precision,
    )
    return y, switches


def unpool_conv_transpose2d(
    y: Array,
    switches: Array,
    w: Array,
    *,
    stride: IntPair,
    padding: IntPair,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: IntPair = 0,
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
    dtype = element_type("y", y, precision)
    y = check_input(backend, "y", y, 4, dtype)
    w = check_input(backend, "w", w, 4, dtype)
    switches = check_switches(backend, y, switches)
    size = (y.shape[0], *check_pair("output_size", output_size), w.shape[3])
    conv = conv_shape(backend, size, w.shape, stride, padding)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding)
    expect_shape("y", y, tuple(pool.output))
    x = check_output(backend, out, size, (y, switches, w), dtype=dtype)
    call(
        backend,
        "unpool_conv_transpose2d",
        conv,
        pool,
        y,
        switches,
        w,
        bool(rectify),
        results=(x,),
        workspace=(conv, pool),
        precision=precision,
    )
    return x


def unpool_conv2d_weight_grad(
    x: Array,
    dy: Array,
    switches: Array,
    *,
    kernel_size: IntPair,
    stride: IntPair,
    padding: IntPair,
    window: IntPair,
    pool_stride: IntPair,
    pool_padding: IntPair = 0,
    precision: Precision = "fp32",
    out: Array | None = None,
) -> Array:
    """The gradient of a block's filters from the gradient of its pooled map, masked by `relu_grad` against it.

    x (N,H,W,C), dy and switches (N,P,Q,K) -> dw (K,R,S,C), (R, S) = `kernel_size`. Equal to `conv2d_weight_grad`
    of the unpooled dy. (The gradient of the bias is `conv2d_bias_grad(dy)`: unpooling moves values, it loses none.)
    x and dy float32 or bfloat16; dw float32.
    """
    backend, (x, dy, switches, out) = resolve(x=x, dy=dy, switches=switches, out=out)
    dtype = element_type("x", x, precision)
    x = check_input(backend, "x", x, 4, dtype)
    dy = check_input(backend, "dy", dy, 4, dtype)
    switches = check_switches(backend, dy, switches)
    filters = (dy.shape[3], *check_pair("kernel_size", kernel_size), x.shape[3])
    conv = conv_shape(backend, x.shape, filters, stride, padding)
    pool = pool_shape(backend, conv.output, window, pool_stride, pool_padding)
    expect_shape("dy", dy, tuple(pool.output))
    dw = check_output(backend, out, filters, (x, dy, switches))
    call(
        backend,
        "unpool_conv2d_weight_grad",
        conv,
        pool,
        x,
        dy,
        switches,
        results=(dw,),
        workspace=(conv, pool),
        precision=precision,
    )
    return dw


# ---- Element-wise ---------------------------------------------------------------------------------------------


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0), any shape, float32 or bfloat16; NaN stays NaN. `out` may be x."""
    backend, (x, out) = resolve(x=x, out=out)
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    y = check_output(backend, out, x.shape, (x,), dtype=dtype, may_alias=True)
    call(backend, "relu", x.size, x, results=(y,))
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, zero elsewhere: the gradient of `relu`, from its result y; float32 or bfloat16. `out`
    may be dy."""
    backend, (dy, y, out) = resolve(dy=dy, y=y, out=out)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    y = check_input(backend, "y", y, None, dtype)
    expect_shape("y", y, dy.shape)
    dx = check_output(backend, out, dy.shape, (dy, y), dtype=dtype, may_alias=True)
    call(backend, "relu_grad", dy.size, dy, y, results=(dx,))
    return dx


def dropout(x: Array, *, probability: float, seed: int, offset: int | Array = 0, out: Array | None = None) -> Array:
    """Zeroes each element with `probability` in [0, 1) and scales the others by 1 / (1 - probability) (P2).

    The mask is a pure function of (seed, offset, index), from Philox4x32-10, the same on every backend; the same call
    on a gradient is the gradient, so that no mask is stored. `seed` and `offset` in [0, 2^64); `offset` may be an
    array of x's device, uint64 of shape (), which the host does not look at. x float32 or bfloat16; `out` may be x.
    """
    backend, (x, out, _) = resolve(x=x, out=out, offset=array_or_none(offset))
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    if not 0 <= probability < 1:
        raise ValueError(f"probability must be in [0, 1), got {probability}")
    for name, value in (("seed", seed), ("offset", offset)):
        if array_or_none(value) is None and not 0 <= operator.index(value) < 2**64:
            raise ValueError(f"{name} must be in [0, 2^64), got {value}")
    offset = place_number(backend, "offset", offset, np.uint64)
    y = check_output(backend, out, x.shape, (x,), dtype=dtype, may_alias=True)
    call(backend, "dropout", x.size, x, float(probability), int(seed), offset, results=(y,))
    return y


def cast(x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """x, any shape, float32 or bfloat16, as `dtype`, the other one of the two: to bfloat16 rounded to nearest even.

    An x that has this dtype already is returned as it is, unless there is an `out`, which becomes a copy of it.
    """
    backend, (x, out) = resolve(x=x, out=out)
    x = check_input(backend, "x", x, None, element_type("x", x))
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, BFLOAT16):
        raise TypeError(f"dtype must be float32 or bfloat16, got {dtype}")
    if dtype == x.dtype and out is None:
        return x
    y = check_output(backend, out, x.shape, (x,), dtype=dtype)
    function = "cast_from_fp32" if dtype == BFLOAT16 else "cast_to_fp32"
    if dtype != x.dtype and hasattr(backend.module, "bf16"):
        call(backend, function, x.size, x, results=(y,))
    else:
        y[...] = x
    return y


# ---- Local response normalisation --------------------------------------------------------------------------------


def _check_norm(size: int, alpha: float, beta: float, k: float) -> tuple[int, float, float, float]:
    if operator.index(size) < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if not (k > 0 and alpha >= 0 and math.isfinite(k + alpha) and math.isfinite(beta)):
        raise ValueError(f"k must be positive, alpha not negative, all finite; got k={k}, alpha={alpha}, beta={beta}")
    return int(size), float(alpha), float(beta), float(k)


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
    dtype = element_type("x", x)
    x = check_input(backend, "x", x, None, dtype)
    parameters = _check_norm(size, alpha, beta, k)
    y = check_output(backend, out, x.shape, (x,), dtype=dtype)
    channels = x.shape[-1] if x.ndim else 1
    call(backend, "local_response_norm", x.size // channels, channels, *parameters, x, results=(y,))
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
    float32 or bfloat16."""
    backend, (dy, x, out) = resolve(dy=dy, x=x, out=out)
    dtype = element_type("dy", dy)
    dy = check_input(backend, "dy", dy, None, dtype)
    x = check_input(backend, "x", x, None, dtype)
    expect_shape("dy", dy, x.shape)
    parameters = _check_norm(size, alpha, beta, k)
    dx = check_output(backend, out, x.shape, (dy, x), dtype=dtype)
    channels = x.shape[-1] if x.ndim else 1
    call(backend, "local_response_norm_grad", x.size // channels, channels, *parameters, dy, x, results=(dx,))
    return dx


# ---- Loss ------------------------------------------------------------------------------------------------------------


def softmax(logits: Array, *, out: Array | None = None) -> Array:
    """The probabilities of each row: logits (N, classes) -> probabilities (N, classes)."""
    backend, (logits, out) = resolve(logits=logits, out=out)
    logits = check_input(backend, "logits", logits, 2)
    probabilities = check_output(backend, out, logits.shape, (logits,))
    call(backend, "softmax", *logits.shape, logits, results=(probabilities,))
    return probabilities


def check_label_range(labels: Array, classes: int) -> None:
    """ValueError unless all labels are in [0, classes). Waits for a GPU, which no operation does."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be in [0, {classes}), got values from {low} to {high}")


def _check_labels(backend: Backend, labels: Array, n: int, classes: int) -> Array:
    labels = check_input(backend, "labels", labels, 1, np.int32)
    expect_shape("labels", labels, (n,))
    if backend.on_host:
        check_label_range(labels, classes)
    return labels


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The loss (P2): logits (N, classes), labels int32 (N,) -> mean loss, a float32 array of shape (), and
    probabilities (N, classes). A label out of range is a ValueError on the host; on a GPU, where looking for one would
    mean to wait, it makes the loss NaN."""
    backend, (logits, labels) = resolve(logits=logits, labels=labels)
    logits = check_input(backend, "logits", logits, 2)
    n, classes = logits.shape
    labels = _check_labels(backend, labels, n, classes)
    loss = backend.empty(())
    probabilities = backend.empty((n, classes))
    call(
        backend,
        "softmax_cross_entropy",
        n,
        classes,
        logits,
        labels,
        results=(loss, probabilities),
        workspace=(n, classes),
    )
    return loss, probabilities


def softmax_cross_entropy_grad(probabilities: Array, labels: Array, *, out: Array | None = None) -> Array:
    """The gradient of the mean loss for the logits: (probabilities - one_hot(labels)) / N."""
    backend, (probabilities, labels, out) = resolve(probabilities=probabilities, labels=labels, out=out)
    probabilities = check_input(backend, "probabilities", probabilities, 2)
    n, classes = probabilities.shape
    labels = _check_labels(backend, labels, n, classes)
    dlogits = check_output(backend, out, (n, classes), (probabilities,))
    call(backend, "softmax_cross_entropy_grad", n, classes, probabilities, labels, results=(dlogits,))
    return dlogits


# ---- Optimiser ---------------------------------------------------------------------------------------------


def _check_guard(guard: Array | None) -> None:
    if guard is None:
        return
    expect_shape("guard", guard, ())
    if guard.dtype != np.float32:
        raise TypeError(f"guard must be float32, got {guard.dtype}")


def sgd_step(
    w: Array,
    g: Array,
    v: Array,
    *,
    lr: float | Array,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    guard: Array | None = None,
) -> None:
    """One step of SGD with momentum and weight decay (P2), in place, any shape:
    v = momentum * v - lr * (g + weight_decay * w); w = w + v.

    lr: a number, or a float32 array of shape (). guard: float32 of shape (), such as a loss; where it is not finite,
    nothing changes. The host looks at neither array.
    """
    backend, (w, g, v, guard, _) = resolve(w=w, g=g, v=v, guard=guard, lr=array_or_none(lr))
    check_in_place("w", w)
    check_in_place("v", v)
    g = check_input(backend, "g", g, None)
    expect_shape("g", g, w.shape)
    expect_shape("v", v, w.shape)
    _check_guard(guard)
    factors = place_number(backend, "lr", lr, np.float32), float(momentum), float(weight_decay)
    call(backend, "sgd_step", w.size, w, g, v, *factors, or_null(guard))


def renormalize_filters(w: Array, *, max_rms: float, guard: Array | None = None) -> None:
    """Scales every filter whose RMS exceeds `max_rms` back to it, in place (paper 3, P2). w (K, ...): K filters; guard
    as in `sgd_step`."""
    backend, (w, guard) = resolve(w=w, guard=guard)
    check_in_place("w", w)
    if w.ndim < 2 or w.size == 0:
        raise ValueError(f"w must have 2 dimensions or more and elements, got shape {tuple(w.shape)}")
    if not max_rms > 0:
        raise ValueError(f"max_rms must be positive, got {max_rms}")
    _check_guard(guard)
    call(backend, "renormalize_filters", w.shape[0], w.size // w.shape[0], float(max_rms), w, or_null(guard))


# ---- Images ------------------------------------------------------------------------------------------------


def crop_images(
    images: Array,
    mean: Array | None,
    corners: Array,
    flips: Array,
    *,
    size: IntPair,
    out: Array | None = None,
) -> Array:
    """Crops, horizontal flips and mean subtraction (P2) in one pass: uint8 images to a float32 batch.

    images uint8 (N,H,W,C), mean float32 (H,W,C) or None, corners int32 (N,2) of (top, left), flips uint8 (N,) ->
    float32 (N,h,w,C), (h, w) = `size`. The mean is subtracted pixel by pixel before the crop is flipped. What lies
    outside the image reads zero.
    """
    backend, (images, mean, corners, flips, out) = resolve(
        images=images, mean=mean, corners=corners, flips=flips, out=out
    )
    images = check_input(backend, "images", images, 4, np.uint8)
    shape = backend.module.CropShape(tuple(images.shape), check_pair("size", size))
    if mean is not None:
        mean = check_input(backend, "mean", mean, 3)
        expect_shape("mean", mean, images.shape[1:])
    corners = check_input(backend, "corners", corners, 2, np.int32)
    expect_shape("corners", corners, (images.shape[0], 2))
    flips = check_input(backend, "flips", flips, 1, np.uint8)
    expect_shape("flips", flips, (images.shape[0],))
    y = check_output(backend, out, tuple(shape.output), (images, mean))
    call(backend, "crop_images", shape, images, or_null(mean), corners, flips, results=(y,))
    return y


def cut_windows(
    x: Array, corners: Array, *, size: IntPair, images: Array | None = None, out: Array | None = None
) -> Array:
    """Windows of one size, each cut at its own place: x (N,H,W,C), corners int32 (M,2) of (top, left) -> (M,h,w,C),
    (h, w) = `size`. What lies outside x reads zero. Window m is cut from image images[m] of x, images int32 (M,); one
    that is not in [0, N) is all zero. Without `images` it is image m, and M = N.

    x, and so the result, float32, bfloat16 or uint8. At the negative corner and in the map's size, a window is pasted:
    `cut_windows(windows, -corners, size=(H, W))` is zero outside the windows.
    """
    backend, (x, corners, images, out) = resolve(x=x, corners=corners, images=images, out=out)
    if x.dtype not in (np.float32, BFLOAT16, np.uint8):
        raise TypeError(f"x must be float32, bfloat16 or uint8, got {x.dtype}")
    x = check_input(backend, "x", x, 4, x.dtype)
    corners = check_input(backend, "corners", corners, 2, np.int32)
    if images is not None:
        images = check_input(backend, "images", images, 1, np.int32)
    count = x.shape[0] if images is None else images.shape[0]
    expect_shape("corners", corners, (count, 2))
    shape = backend.module.WindowShape(tuple(x.shape), count, check_pair("size", size), x.dtype.itemsize)
    y = check_output(backend, out, tuple(shape.output), (x,), dtype=x.dtype)
    # The bytes of the arrays: elements have no type here.
    results = (y.view(np.uint8),)
    call(backend, "cut_windows", shape, x.view(np.uint8), corners, or_null(images), results=results)
    return y
