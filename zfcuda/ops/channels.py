"""Channels copied between arrays (concatenation, and its way back) and put into another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..backends import Array, Backend, resolve
from ..numbers import check_whole
from .arguments import check_apart, check_indexable, check_input, check_output, element_type, expect_shape
from .call import call


def copy_channels(x: Array, out: Array, *, source: int = 0, target: int = 0, channels: int | None = None) -> Array:
    """out[..., target : target + channels] = x[..., source : source + channels]; the rest of `out` stays.

    Concatenation, an input at a time, and the way back. x (..., C) and out (..., D), float32 or bfloat16, with the
    same axes before the last; without `channels` all of x from `source` on. Returns `out`, which shares no memory
    with x.
    """
    backend, (x, out) = resolve(x=x, out=out)
    check_apart(backend, out, x)
    dtype = element_type("x", x)
    check_indexable("out", out)
    x = _check_channels(backend, x, dtype)
    out = check_output(backend, out, (*x.shape[:-1], *out.shape[-1:]), dtype=dtype)
    source, target = check_whole("source", source), check_whole("target", target)
    count = x.shape[-1] - source if channels is None else check_whole("channels", channels)
    for name, array, first in (("source", x, source), ("target", out, target)):
        if first < 0 or count < 1 or first + count > array.shape[-1]:
            raise ValueError(
                f"{name} {first} and channels {count} must name channels of {'x' if array is x else 'out'}, "
                f"which has {array.shape[-1]}"
            )
    rows, pitches = x.size // x.shape[-1], (x.shape[-1], source, out.shape[-1], target)
    # The bytes of the arrays: elements have no type here.
    arrays = x.view(np.uint8), out.view(np.uint8)
    call(backend, backend.module.copy_channels, rows, *pitches, count, dtype.itemsize, *arrays)
    return out


def permute_channels(x: Array, order: Sequence[int] | Array, *, out: Array | None = None) -> Array:
    """y[..., i] = x[..., order[i]]; x (..., C) float32 or bfloat16, `order` a permutation of 0 .. C - 1.

    `order` may be an int32 array (C,) of x's device, so that nothing is copied there at each call. A GPU's array is
    not looked at: an entry that is no channel reads zero.
    """
    placed = order if hasattr(order, "dtype") else None
    backend, (x, placed, out) = resolve(x=x, order=placed, out=out)
    check_apart(backend, out, x, placed)
    dtype = element_type("x", x)
    x = _check_channels(backend, x, dtype)
    channels = x.shape[-1]
    if placed is None:
        if not isinstance(order, Sequence):
            raise TypeError(f"order must be a sequence of ints or an int32 array, got {order!r}")
        _check_order([check_whole("order", i) for i in order], channels)
        placed = backend.xp.asarray(order, np.int32)
    placed = check_input(backend, "order", placed, 1, np.int32)
    expect_shape("order", placed, (channels,))
    if isinstance(placed, np.ndarray):
        _check_order(placed, channels)
    y = check_output(backend, out, x.shape, dtype=dtype)
    sizes = x.size // channels, channels, dtype.itemsize
    call(backend, backend.module.permute_channels, *sizes, x.view(np.uint8), placed, results=(y.view(np.uint8),))
    return y


def _check_channels(backend: Backend, x: Array, dtype: np.dtype) -> Array:
    check_indexable("x", x)
    if x.ndim == 0:
        raise ValueError("x must have 1 dimension or more, got shape ()")
    return check_input(backend, "x", x, None, dtype)


def _check_order(order: Sequence[int] | np.ndarray, channels: int) -> None:
    if not np.array_equal(np.sort(order), np.arange(channels)):
        raise ValueError(f"order must be a permutation of 0 .. {channels - 1}, got {np.asarray(order).tolist()}")
