"""The products of a fully connected layer: y = x W^T + b and its gradients, x (N, in), W (out, in), y (N, out).

On the CPU they are convolutions of one pixel, which the kernels do on their own threads, streaming W once. A BLAS is
slower at these shapes, and its idle threads keep the cores busy while the next operation needs them: in a training step
of ZFNet that cost more than the products. On a GPU, and for the emulator, exact float32 goes through the BLAS of CuPy
or NumPy; tf32 and bfloat16 are convolutions of one pixel there too, whose kernels do what the precision says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..backends import Array, Backend, resolve

__all__ = ["data_grad", "forward", "weight_grad"]


def forward(x: Array, w: Array, b: Array, *, relu: bool = False, precision: ops.Precision = "fp32") -> Array:
    """x (N, ...) w (out, in) b (out,) -> (N, out), rectified if `relu`."""
    x = x.reshape(x.shape[0], -1)
    backend, _ = resolve(x=x, w=w, b=b)
    if _as_pixels(backend, x, precision):
        return ops.conv2d(_pixels(x), _pixels(w), b, relu=relu, precision=precision).reshape(x.shape[0], -1)
    y = backend.empty((x.shape[0], w.shape[0]))
    backend.xp.matmul(x, w.T, out=y)
    y += b
    return ops.relu(y, out=y) if relu else y


def data_grad(dy: Array, w: Array, *, precision: ops.Precision = "fp32") -> Array:
    """dy (N, out) w (out, in) -> dx (N, in)."""
    backend, _ = resolve(dy=dy, w=w)
    if _as_pixels(backend, dy, precision):
        dx = ops.conv_transpose2d(_pixels(dy), _pixels(w), output_size=1, precision=precision)
        return dx.reshape(dy.shape[0], -1)
    dx = backend.empty((dy.shape[0], w.shape[1]))
    backend.xp.matmul(dy, w, out=dx)
    return dx


def weight_grad(dy: Array, x: Array, *, precision: ops.Precision = "fp32", out: Array) -> None:
    """dy (N, out) x (N, ...) -> `out` (out, in), float32."""
    x = x.reshape(x.shape[0], -1)
    backend, _ = resolve(dy=dy, x=x, out=out)
    if _as_pixels(backend, x, precision):
        ops.conv2d_weight_grad(_pixels(x), _pixels(dy), kernel_size=1, precision=precision, out=_pixels(out))
    else:
        backend.xp.matmul(dy.T, x, out=out)


def _as_pixels(backend: Backend, array: Array, precision: ops.Precision) -> bool:
    return backend.name == "cpu" or precision != "fp32" or array.dtype != np.float32


def _pixels(matrix: Any) -> Any:
    """(rows, columns) as images or filters of one pixel."""
    return matrix.reshape(matrix.shape[0], 1, 1, matrix.shape[1])
