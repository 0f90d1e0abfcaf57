"""Crops of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._devices import Backend
from ..backends import Array, resolve
from ..pairs import IntPair, check_pair
from .arguments import check_apart, check_input, check_output, expect_shape, geometry
from .call import call


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
    check_apart(backend, out, images, mean, corners, flips)
    images = check_input(backend, "images", images, 4, np.uint8)
    shape, mean, corners, flips = check_crops(backend, images.shape, mean, corners, flips, size)
    y = check_output(backend, out, shape.output)
    call(backend, backend.module.crop_images, shape, images, mean, corners, flips, results=(y,))
    return y


def check_crops(
    backend: Backend, images: tuple[int, ...], mean: Array | None, corners: Array, flips: Array, size: IntPair
) -> tuple[Any, Array | None, Array, Array]:
    """The geometry of crops of images of this shape, and where they are cut, after checks."""
    shape = geometry(backend.module.CropShape, images, check_pair("size", size))
    if mean is not None:
        mean = check_input(backend, "mean", mean, 3)
        expect_shape("mean", mean, images[1:])
    corners = check_input(backend, "corners", corners, 2, np.int32)
    expect_shape("corners", corners, (images[0], 2))
    flips = check_input(backend, "flips", flips, 1, np.uint8)
    expect_shape("flips", flips, (images[0],))
    return shape, mean, corners, flips
