"""Pictures that Pillow would work on for many seconds: known by their headers, and refused before it begins."""

from __future__ import annotations

import re
import struct

from PIL import Image

# Decoders that Pillow has in Python, up to a microsecond a pixel. Not that of binary PGM and PPM with a white of their
# own, which 12-bit cameras write.
_IN_PYTHON = ("ppm_plain", "qoi", "bmp_rle", "dds_rgb")
_PIXELS = 2**22
_COMMENTS = 2**13  # in a plain PPM, for each of which Pillow copies a megabyte

_PPM = re.compile(rb"P[1-6]\s")
_HEADER = 2**16  # bytes of a PPM's, comments and all, which Pillow reads one by one

_PIECES = 2**19  # strips or tiles of a TIFF
_TAGS = 2**16
_PIECE_TAGS = (273, 324)  # where strips begin, or tiles


def check_tiff(data: bytes) -> None:
    """ValueError where the first picture of a TIFF says that it lies in more pieces than can be read in time."""
    if data[:2] not in (b"II", b"MM"):
        return
    order, big = "<" if data[:2] == b"II" else ">", data[2:3] == b"+"
    offset, count, entry = (order + form for form in (("Q", "Q", "HHQ8x") if big else ("I", "H", "HHI4x")))
    try:
        (directory,) = struct.unpack_from(offset, data, 8 if big else 4)
        (tags,) = struct.unpack_from(count, data, directory)
        if tags > _TAGS:
            raise ValueError(f"a TIFF of {tags:,} tags, more than the {_TAGS:,} that can be read")
        for number in range(tags):
            place = directory + struct.calcsize(count) + number * struct.calcsize(entry)
            tag, _, pieces = struct.unpack_from(entry, data, place)
            if tag in _PIECE_TAGS and pieces > _PIECES:
                raise ValueError(f"a TIFF in {pieces:,} pieces, more than the {_PIECES:,} that can be read in time")
    except (struct.error, OverflowError):  # cut short, of which Pillow says more
        return


def check_ppm(data: bytes) -> None:
    """ValueError where the size of a PPM, PGM or PBM stands behind more comments than can be read in time."""
    if len(data) <= _HEADER or not _PPM.match(data):
        return
    words = 3 if data[1:2] in b"14" else 4  # kind, width, height, and what white is
    if len(re.sub(rb"#[^\r\n]*", b"", data[:_HEADER]).split(None, words)) < words:
        raise ValueError(f"its header has more than {_HEADER:,} bytes")


def check_decoder(image: Image.Image, data: bytes) -> None:
    """ValueError where a picture that Pillow has opened, but not read, is of a format that takes it too long."""
    tiles = getattr(image, "tile", None)
    if not tiles or tiles[0][0] not in _IN_PYTHON or image.mode == "1":
        return
    steps = min(image.width * image.height, len(data))  # of runs there are fewer than pixels
    if steps > _PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels in a form of {image.format} that is slow to read: at most "
            f"{_PIXELS:,}; convert it, to PNG for example"
        )
    if tiles[0][0] == "ppm_plain" and data.count(b"#") > _COMMENTS:
        raise ValueError(f"a plain PPM with more than {_COMMENTS:,} comments")
