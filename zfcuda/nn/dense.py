"""The products of a fully connected layer: y = x W^T + b and its gradients, x (N, in), W (out, in), y (N, out).

They are convolutions of one pixel, in every precision and on every backend. On the CPU a BLAS is slower at these shapes
(the kernels stream W once, on their own threads), and its idle threads keep the cores busy while the next operation
needs them: in a training step of ZFNet that cost more than the products. On a GPU a step is captured as a CUDA graph,
and CuPy refuses to call its BLAS meanwhile.
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..backends import Array, resolve

__all__ = ["data_grad", "forward", "weight_grad"]

# From so many rows on, a processor has the product sooner in tiles, as the pixels of one image, than by streaming W
# past each of a few images: 1.25 times as fast at 128 rows of 9216 and 4096 units, 1.6 times at 784 (AVX-512).
_MANY_ROWS = 96


def forward(x: Array, w: Array, b: Array | None, *, relu: bool = False, precision: ops.Precision = "fp32") -> Array:
    """x (N, ...) w (out, in) b (out,) or None -> (N, out), rectified if `relu`."""
    rows = x.shape[0]
    tiles = rows >= _MANY_ROWS and resolve(x=x)[0].on_host
    pixels = x.reshape(1, rows, 1, -1) if tiles else _pixels(x)
    return ops.conv2d(pixels, _pixels(w), b, relu=relu, precision=precision).reshape(rows, -1)


def data_grad(dy: Array, w: Array, *, precision: ops.Precision = "fp32") -> Array:
    """dy (N, out) w (out, in) -> dx (N, in)."""
    dx = ops.conv_transpose2d(_pixels(dy), _pixels(w), output_size=1, precision=precision)
    return dx.reshape(dy.shape[0], -1)


def weight_grad(dy: Array, x: Array, *, precision: ops.Precision = "fp32", out: Array) -> None:
    """dy (N, out) x (N, ...) -> `out` (out, in), float32."""
    ops.conv2d_weight_grad(_pixels(x), _pixels(dy), kernel_size=1, precision=precision, out=_pixels(out))


def _pixels(matrix: Any) -> Any:
    """(rows, ...) as images or filters of one pixel."""
    return matrix.reshape(matrix.shape[0], 1, 1, -1)
