"""Images in .npy files, of any number of channels: uint8 (H,W,C) or (H,W). No pickle."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageOps

_MAGIC = b"\x93NUMPY"
_LARGEST = 2**28  # bytes


def is_array(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def shape_of(data: bytes) -> tuple[int, int, int]:
    """(H, W, C) of an array, from its header. ValueError if it is none of images, or not whole."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"version {version} of the .npy format is not read")
    shape, _, dtype = read_header[version](file)
    if dtype != np.uint8 or len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"an array must be uint8 (H,W,C) or (H,W), got {dtype} of shape {shape}")
    if math.prod(shape) > _LARGEST or len(data) - file.tell() != math.prod(shape):
        raise ValueError(f"an array of shape {shape} must be whole, and of at most {_LARGEST:,} bytes")
    return (*shape, 1)[:3]  # type: ignore[return-value]


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """An array as uint8 (H,W,C) = `shape`: scaled until it covers that, and its centre, like a picture."""
    height, width, channels = shape_of(data)
    if channels != shape[2]:
        raise ValueError(f"has {channels} channels, where {shape[2]} are expected")
    array = np.load(io.BytesIO(data), allow_pickle=False).reshape(height, width, channels)
    if (height, width) == shape[:2]:
        return array
    planes = [Image.fromarray(np.ascontiguousarray(array[..., channel])) for channel in range(channels)]
    size = (shape[1], shape[0])
    return np.stack([np.asarray(ImageOps.fit(plane, size, Image.Resampling.BICUBIC)) for plane in planes], axis=-1)
