"""Pictures of any kind to uint8 arrays of one shape, with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError

# Mapped to one channel; every other mode becomes RGB.
_GRAY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112  # the EXIF tag; values from 5 on swap width and height


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than Pillow's limit of {limit}")
    return image


def peek(data: bytes, path: str) -> tuple[int, int, int]:
    """Height, width (as a viewer would show them) and channels (1 or 3) from a picture's header.

    `DataError` with the path where it is no picture.
    """
    try:
        image = _open(data)
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:
        raise _unreadable(path, error) from error
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    return height, width, 1 if image.mode in _GRAY_MODES else 3


def decode(data: bytes, path: str, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as uint8 (H,W,C) = `shape`.

    A picture of another size is scaled until it covers `shape` and its centre is kept: with a square shape, paper 3's
    "smallest side to 256, centre 256 x 256" (P2). EXIF orientation is applied, transparency is laid on white, 16-bit
    greys keep their upper 8 bits. `DataError` with the path where the picture is damaged, cut short or no picture.
    """
    height, width, channels = shape
    try:
        image = _open(data)
        # JPEG's own downscaling, to no less than what is needed either way round, saves most of the decoding.
        side = max(height, width)
        image.draft("L" if channels == 1 else "RGB", (side, side))
        image = ImageOps.exif_transpose(image)
        image = _flatten(image).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        return np.asarray(image, np.uint8).reshape(shape)
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them raise
        raise _unreadable(path, error) from error


def _flatten(image: Image.Image) -> Image.Image:
    """Transparent pictures on white, 16-bit greys as 8-bit ones."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pictures have no fixed range of brightness")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


def _unreadable(path: str, error: Exception) -> DataError:
    reason = "no picture in a format that Pillow reads" if isinstance(error, Image.UnidentifiedImageError) else error
    return DataError(f"{path}: cannot be read as an image ({reason})")


def read_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture from a file as uint8 (H,W,C) = `shape`; see `decode`. FileNotFoundError, or `DataError`."""
    return decode(Path(path).read_bytes(), str(path), shape)
