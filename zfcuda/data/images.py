"""Pictures of any kind to uint8 arrays of one shape, with Pillow: the one reader of every picture in the package.

What it decides for everybody: size and orientation are those that a viewer shows (EXIF); colours are RGB as stored (no
colour profile is applied); what is transparent lies on white; of several pictures in a file the first counts.

Greys and colours of more than 8 bits are scaled by what white is in them. Where the file says that (TIFF's bits per
sample, PGM's largest value), that is it; a 16-bit PNG or TIFF does not, and cameras store 10, 12 or 14 bits in them:
there, white is the end of the least of 8, 10, 12, 14 and 16 bits that hold the brightest pixel, of the picture or, in a
data set, of all its pictures. Floating-point pictures are read where they lie in 0..1.

JPEGs too are decoded with Pillow, whose libjpeg-turbo scales them to a half, a quarter or an eighth meanwhile:
simplejpeg and PyTurboJPEG give the same pixels no sooner, and nvJPEG has not been tried on a GPU. What scaling is left
is done by `zfcuda.data.scaling`, to Pillow's pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import DataError
from . import arrays
from .files import read_file
from .names import printable
from .slow_pictures import check_decoder, check_ppm, check_tiff

# Not EPS, for which Pillow would run Ghostscript, nor FITS, which it unpacks without a limit.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM"),
    *("QOI", "PSD", "SGI", "DDS", "PCX", "ICO", "XBM", "TGA"),
)
_DEEP_GREYS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# Mapped to one channel; every other mode becomes RGB.
_GREYS = ("1", "L", "LA", "F", *_DEEP_GREYS)
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS = (8, 10, 12, 14, 16)

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_KIND, _TIFF_WHITE = 256, 257, 258, 262, 281

_BAND = 2**22  # pixels that are converted at a time
_DARK_COLOURS = 2**25  # pixels of a picture that must be read twice
_SMALL = 2**22  # bytes that do not count
_HELD, _BYTES = 2**29, 12  # bytes of pictures in the making, and for each of their pixels


class Header(NamedTuple):
    """What is known of a picture before it is read. height, width: as a viewer shows it. channels: 1 or 3, of an array
    any. bits: how many its samples need; 0 where they are 8 or where the file says what white is."""

    height: int
    width: int
    channels: int
    bits: int


def peek(data: bytes, path: str) -> Header:
    """The header of a picture, or of an array. `DataError` with the path where it is none."""
    if arrays.is_array(data):
        with _reading(path):
            return Header(*arrays.shape_of(data), 0)
    with _reading(path):
        return _header(_open(data), data)


def peek_picture(image: Image.Image, path: str) -> Header:
    """The header of a picture of Pillow's. `DataError` with `path` where it cannot be read."""
    with _reading(path):
        return _header(image, b"")


def _header(image: Image.Image, data: bytes) -> Header:
    height, width = _size(image, data)
    channels = 1 if image.mode in _GREYS else 3
    bits = 0
    if _is_deep(image) and not _stated_bits(image):
        with _memory.hold(image):
            bits = _Deep(image, data).bits
    return Header(height, width, channels, bits)


def decode(data: bytes, path: str, shape: tuple[int, int, int], bits: int = 0) -> np.ndarray:
    """A picture as uint8 (H,W,C) = `shape`.

    A picture of another size is scaled until it covers `shape` and its centre is kept: with a square shape, paper 3's
    "smallest side to 256, centre 256 x 256" (P2). bits: in how many, or more, white is written where the file does not
    say it. `DataError` with the path where the picture is damaged, cut short or no picture.
    """
    if arrays.is_array(data):
        with _reading(path):
            return arrays.decode(data, shape)
    with _reading(path):
        image = _open(data)
        # JPEG's own downscaling, to no less than what is needed either way round, saves most of the decoding.
        side = max(shape[:2])
        image.draft(_mode(shape), (side, side))
        return _fit(image, data, shape, bits)


def fit_picture(image: Image.Image, path: str, shape: tuple[int, int, int], bits: int = 0) -> np.ndarray:
    """A picture of Pillow's as uint8 (H,W,C) = `shape`; see `decode`."""
    with _reading(path):
        return _fit(image, b"", shape, bits)


def _fit(image: Image.Image, data: bytes, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    mode = _mode(shape)
    with _memory.hold(image):
        image = _Deep(image, data).eight_bits(bits) if _is_deep(image) else _upright(image, data)
        return arrays.fit(_pixels(_in_mode(image, mode)), shape)


def _mode(shape: tuple[int, int, int]) -> str:
    if shape[2] not in (1, 3):
        raise ValueError(
            f"a picture has 1 or 3 channels, where {shape[2]} are expected; those are read from .npy files"
        )
    return "L" if shape[2] == 1 else "RGB"


def read_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture from a file as uint8 (H,W,C) = `shape`; see `decode`. OSError, or `DataError` with the path."""
    return decode(read_file(path), printable(str(path)), shape)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a picture in a file, as a viewer shows it, or of an array. OSError, or `DataError` with the
    path."""
    data = read_file(path)
    with _reading(printable(str(path))):
        return arrays.shape_of(data)[:2] if arrays.is_array(data) else _size(_open(data), data)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them raise
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "no picture in a format that is read" if unknown else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({reason})") from error


def _open(data: bytes) -> Image.Image:
    check_tiff(data)
    check_ppm(data)
    image = Image.open(io.BytesIO(data))
    if image.format not in _FORMATS:
        raise Image.UnidentifiedImageError
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than Pillow's limit of {limit}")
    if image.width * image.height == 0:
        raise ValueError(f"{image.width} x {image.height} pixels")
    check_decoder(image, data)
    return image


class _Memory:
    """Keeps the pictures that threads decode at a time, together, to about half a gigabyte."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._free = _HELD
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, image: Image.Image) -> Iterator[None]:
        wanted = min(_HELD, image.width * image.height * _BYTES)
        if wanted < _SMALL:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


_memory = _Memory()
os.register_at_fork(after_in_child=_memory.reset)  # the threads that hold some are not in the child


# ---- Size and orientation ----------------------------------------------------------------------------------


def _orientation(image: Image.Image, data: bytes) -> int:
    # data: of the file, if they are there. Pillow decodes a PNG to look for what may stand behind its pixels.
    if (
        data
        and image.format == "PNG"
        and not any(word in data for word in (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type"))
    ):
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what Pillow raises where the picture is whole, but not what is said about it
        return 1


def _size(image: Image.Image, data: bytes) -> tuple[int, int]:
    """Height and width as a viewer shows them, from the header alone."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})  # a TIFF, whose size Pillow's versions have turned by now, or have not
    width, height = tags.get(_TIFF_WIDTH, width), tags.get(_TIFF_HEIGHT, height)
    return (width, height) if _orientation(image, data) in (5, 6, 7, 8) else (height, width)


def _upright(image: Image.Image, data: bytes) -> Image.Image:
    """The picture, decoded and turned as a viewer shows it."""
    image.load()  # which turns a TIFF
    turn = None if image.format == "TIFF" else _TURNS.get(_orientation(image, data))
    return image if turn is None else image.transpose(turn)


# ---- Colours -----------------------------------------------------------------------------------------------


def _boxes(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """The picture in bands: copies of a whole large one would not fit into memory."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture in "L" or "RGB", what is transparent on white."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.width * image.height <= _BAND:
        return _flat(image).convert(mode)
    converted = Image.new(mode, image.size)
    for box in _boxes(image):
        converted.paste(_flat(image.crop(box)).convert(mode), box)
    return converted


def _pixels(image: Image.Image) -> np.ndarray:
    """A picture in "L" or "RGB" as uint8 (H,W,C)."""
    shape = (image.height, image.width, len(image.mode))
    if image.width * image.height <= _BAND:
        return np.asarray(image, np.uint8).reshape(shape)
    pixels = np.empty(shape, np.uint8)
    for box in _boxes(image):
        pixels[box[1] : box[3]] = np.asarray(image.crop(box), np.uint8).reshape(-1, *shape[1:])
    return pixels


def _flat(image: Image.Image) -> Image.Image:
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


# ---- More than 8 bits --------------------------------------------------------------------------------------


def _is_deep(image: Image.Image) -> bool:
    if image.mode in ("RGB", "RGBA"):
        return _raw_mode(image).endswith((";16L", ";16B", ";16N"))
    return image.mode in (*_DEEP_GREYS, "F")


def _raw_mode(image: Image.Image) -> str:
    """How samples lie in the file, in Pillow's words."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _stated_bits(image: Image.Image) -> int:
    """In how many bits the file says that white is written, 0 where it does not."""
    if image.mode == "F" or image.format in ("PPM", "JPEG2000"):  # which are scaled to 16 bits here and by Pillow
        return 16
    tags = getattr(image, "tag_v2", {})
    stored = tags.get(_TIFF_BITS, (16,))[0]
    white = max(tags.get(_TIFF_WHITE, (0,)))
    if 0 < white < 2 ** min(stored, 16) - 1:
        return int(white).bit_length()
    return stored if stored < 16 else 0


class _Deep:
    """A picture of more than 8 bits, upright. bits: how many hold its brightest sample."""

    def __init__(self, image: Image.Image, data: bytes):
        self._stated = _stated_bits(image)
        self._white_is_zero = getattr(image, "tag_v2", {}).get(_TIFF_KIND) == 0
        raw = _raw_mode(image)
        self._image = _upright(image, data)  # of colours Pillow has kept the upper 8 bits
        self._lower: Image.Image | None = None
        self.bits = 16
        if self._image.mode in ("RGB", "RGBA"):
            self._image.info.pop("transparency", None)
            extrema: Any = self._image.getextrema()
            if max(most for _, most in extrema[:3]) >= 2**6:
                return
            if image.width * image.height > _DARK_COLOURS or not raw.startswith("RGB"):
                raise ValueError(f"16 bits, of which not all are used, only in RGB of up to {_DARK_COLOURS:,} pixels")
            self._lower = _upright(_lower_bytes(data, raw), data)
        brightest = 0
        for box in _boxes(self._image):
            samples = self._samples(box)
            brightest = max(brightest, int((samples if samples.ndim == 2 else samples[..., :3]).max()))
        self.bits = next(bits for bits in _BITS if brightest < 2**bits)

    def eight_bits(self, bits: int) -> Image.Image:
        """The picture with 8 bits a sample; white is written in as many bits as the file says, or else in `bits`, or in
        more where it has brighter samples."""
        bits = max(self._stated or bits, self.bits)
        if self._lower is None and self._image.mode in ("RGB", "RGBA"):
            return self._image
        converted = Image.new(self._image.mode if self._lower else "L", self._image.size)
        for box in _boxes(self._image):
            samples = self._samples(box)
            eight = (samples >> (bits - 8)).astype(np.uint8)
            if self._white_is_zero:
                eight = 255 - eight
            if samples.ndim == 3:
                eight[..., 3:] = samples[..., 3:] >> 8
            elif "transparency" in self._image.info:
                eight[samples == self._image.info["transparency"]] = 255
            converted.paste(Image.fromarray(eight), box)
        return converted

    def _samples(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """A part of the picture: uint16 (H,W) or (H,W,C)."""
        samples = np.asarray(self._image.crop(box))
        if self._lower is not None:
            return samples.astype(np.uint16) << 8 | np.asarray(self._lower.crop(box))
        lowest, highest, most = samples.min(), samples.max(), 1 if samples.dtype == np.float32 else 65535
        if not (lowest >= 0 and highest <= most):
            raise ValueError(f"its samples must lie in 0..{most}, got {lowest:g} to {highest:g}")
        return (samples * 65535).round().astype(np.uint16) if most == 1 else samples.astype(np.uint16)


def _lower_bytes(data: bytes, raw: str) -> Image.Image:
    """A picture of 16 bits a colour, read with the other byte of each sample."""
    image: Any = _open(data)
    little = raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little")
    other = raw[:-1] + ("B" if little else "L")
    image.tile = [(*tile[:3], (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other) for tile in image.tile]
    return image
