"""Images as arrays, of any number of channels: uint8 (H,W,C) or (H,W). The .npy format, without pickles."""

from __future__ import annotations

import io
import math
from typing import BinaryIO

import numpy as np

from . import scaling

_MAGIC = b"\x93NUMPY"
_LARGEST = 2**28  # bytes


def is_array(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of a .npy file, which is left where the values begin. ValueError if it
    is none."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not read")
    try:
        shape, fortran, dtype = readers[version](file)
    except ValueError:
        raise
    except Exception as error:  # Python's parser raises whatever the damage makes it raise
        raise ValueError(f"its header is damaged ({str(error) or type(error).__name__})") from error
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise ValueError(f"no array is of {dtype} {shape}")
    return shape, fortran, dtype


def shape_of(data: bytes) -> tuple[int, int, int]:
    """(H, W, C) of an array, from its header. ValueError if it is none of images, or not whole."""
    file = io.BytesIO(data)
    shape, _, dtype = read_header(file)
    if dtype != np.uint8 or len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"an array must be uint8 (H,W,C) or (H,W), got {dtype} of shape {shape}")
    if math.prod(shape) > _LARGEST or len(data) - file.tell() != math.prod(shape):
        raise ValueError(f"an array of shape {shape} must be whole, and of at most {_LARGEST:,} bytes")
    return (*shape, 1)[:3]  # type: ignore[return-value]


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """An array in a .npy file, as `fit` returns it."""
    own = shape_of(data)
    return fit(np.load(io.BytesIO(data), allow_pickle=False).reshape(own), shape)


def fit(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """An array (H,W,C) as uint8 (H,W,C) = `shape`: scaled until it covers that, and its centre, like a picture."""
    height, width, channels = array.shape
    if channels != shape[2]:
        raise ValueError(f"has {channels} channels, where {shape[2]} are expected")
    if (height, width) == shape[:2]:
        return array
    return scaling.fit(array, shape[:2])
