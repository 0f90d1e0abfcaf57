"""Windows of images."""

from __future__ import annotations

import numpy as np

from ..backends import BFLOAT16, Array, resolve
from ..pairs import IntPair, check_pair
from .arguments import check_apart, check_input, check_output, expect_shape, geometry
from .call import call


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
    check_apart(backend, out, x, corners, images)
    if x.dtype not in (np.float32, BFLOAT16, np.uint8):
        raise TypeError(f"x must be float32, bfloat16 or uint8, got {x.dtype}")
    x = check_input(backend, "x", x, 4, x.dtype)
    corners = check_input(backend, "corners", corners, 2, np.int32)
    if images is not None:
        images = check_input(backend, "images", images, 1, np.int32)
    count = x.shape[0] if images is None else images.shape[0]
    expect_shape("corners", corners, (count, 2))
    shape = geometry(backend.module.WindowShape, x.shape, count, check_pair("size", size), x.dtype.itemsize)
    y = check_output(backend, out, shape.output, dtype=x.dtype)
    # The bytes of the arrays: elements have no type here.
    results = (y.view(np.uint8),)
    call(backend, backend.module.cut_windows, shape, x.view(np.uint8), corners, images, results=results)
    return y
