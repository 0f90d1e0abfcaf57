"""Images as arrays, of any number of channels: uint8 (H,W,C) or (H,W), signals (1,W,C). The .npy format, without
pickles."""

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
        hint = "; scale it to 0..255, all by one factor, and round" if dtype.kind == "f" else ""
        raise ValueError(
            f"an array must be uint8 (H,W,C) or (H,W), of signals (1,W,C), got {dtype} of shape {shape}{hint}"
        )
    if math.prod(shape) > _LARGEST or len(data) - file.tell() != math.prod(shape):
        raise ValueError(f"an array of shape {shape} must be whole, and of at most {_LARGEST:,} bytes")
    return (*shape, 1)[:3]  # type: ignore[return-value]


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """An array in a .npy file, as `fit` returns it."""
    own = shape_of(data)
    return fit(np.load(io.BytesIO(data), allow_pickle=False).reshape(own), shape)


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether (H,W,C) looks like (C,H,W). It may be a signal, (1,W,C), if it has four samples a channel or more."""
    first, middle, last = shape
    return first in (1, 3) and last not in (1, 3) and not (first == 1 and 4 * last <= middle)


def fit(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """An array (H,W,C) as uint8 (H,W,C) = `shape`: scaled until it covers that, and its centre, like a picture.
    ValueError for other channels, and where a signal, (1,W,C), is expected and this is another or none."""
    height, width, channels = array.shape
    if shape[0] == 1 < shape[1] and array.shape != shape:
        has, expected = (" x ".join(map(str, sizes)) for sizes in (array.shape, shape))
        raise ValueError(
            f"is {has}, where signals of {expected} are expected: arrays (1,W,C), which array[None] makes of (W,C); "
            "they are neither scaled nor cut"
        )
    if channels != shape[2]:
        raise ValueError(f"has {channels} channels, where {shape[2]} are expected")
    if (height, width) == shape[:2]:
        return array
    return scaling.fit(array, shape[:2])
