"""Pictures: arrays of numbers turned into uint8 (H, W, 3) arrays that people look at, tiled, and encoded.

A projection is signed and centred on zero, so zero is mid grey and the scale is symmetric. A small picture is enlarged
by whole factors without smoothing, so that a pixel of the net's input stays a visible square.

A signal, of one row and more than one column, would be a picture of one pixel's height. It is drawn instead: a line for
each channel, position across and value up, all in pictures of one size (`size_of`); a map of one row becomes a strip.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..analysis.figures import COLOR_NAMES, COLORS, color_range, full_swing, is_signal
from ..files import write_atomically

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

GAP_COLOR = (255, 255, 255)
MID_GREY = 128

_SIGNAL = (112, 224)  # rows and columns of a signal's picture
_PAPER, _ZERO = (243, 243, 243), (190, 190, 190)  # colours behind a signal, and of the line at zero
_LINE, _FRAME, _MARGIN = 3, 3, 5  # pixels: a line's width, that of the gap around it, and how near to the edge it comes
_AXIS, _INK = 15, (90, 90, 90)  # rows of an axis below a signal's picture, and its colour
_FINE = 4  # dots of a drawing along a pixel


def size_of(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the picture of an array (height, width, C)."""
    return _SIGNAL if is_signal(height, width) else (height, width)


def _as_rgb(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, C) -> (..., H, W, 3): the first three channels, or the first as grey where there are fewer."""
    return np.repeat(pictures[..., :1], 3, axis=-1) if pictures.shape[-1] < 3 else pictures[..., :3]


def _signal(unit: np.ndarray, zero: float | None = None) -> np.ndarray:
    """A signal (W,C) from 0 to 1 -> uint8 (112,224,3): a line for each channel, and a grey one at `zero`; more than six
    channels are bands instead, from black to white."""
    (height, width), (samples, channels) = _SIGNAL, unit.shape
    unit = np.clip(unit, 0, 1)
    if channels > len(COLOR_NAMES):
        bands = Image.fromarray(np.rint(255 * unit.T).astype(np.uint8))
        return _as_rgb(np.asarray(bands.resize((width, height), Image.Resampling.BOX))[..., None])
    height, width = _FINE * height, _FINE * width
    places = (np.arange(samples) + 0.5) * (width / samples)
    if samples > 2 * width:  # the least and the most of each column of dots, which all lines between them would fill
        first = np.arange(width) * samples // width
        ends = np.minimum.reduceat(unit, first), np.maximum.reduceat(unit, first)
        unit, places = np.stack(ends, axis=1).reshape(2 * width, channels), np.arange(2 * width) / 2
    image = Image.new("RGB", (width, height), _PAPER)
    draw, margin = ImageDraw.Draw(image), _MARGIN * _FINE
    places = np.concatenate([[0], places, [width]])
    down = margin + (1 - np.pad(unit, ((1, 1), (0, 0)), "edge")) * (height - 2 * margin)
    if zero is not None:
        level = margin + (1 - zero) * (height - 2 * margin)
        draw.line([0, level, width, level], fill=_ZERO, width=_FINE)
    for channel in range(channels):
        points = np.stack([places, down[:, channel]], axis=1).ravel().tolist()
        draw.line(points, fill=COLORS[channel], width=_LINE * _FINE)
    draw.rectangle([0, 0, width - 1, height - 1], outline=GAP_COLOR, width=_FRAME * _FINE)
    return np.asarray(image.reduce(_FINE))


def from_projection(projection: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Projection (H,W,C) -> uint8 (H,W,3): zero is mid grey, `scale` (by default its `full_swing`) and what is beyond
    are black or full colour. A signal is drawn about a line at zero."""
    projection = np.asarray(projection, np.float32)
    if projection.ndim != 3:
        raise ValueError(f"projection must have shape (H, W, C), got {projection.shape}")
    scale = full_swing(projection) if scale is None else float(scale)
    swing = projection * (127.0 / scale) if scale > 0 else np.zeros_like(projection)
    if is_signal(*projection.shape[:2]):
        return _signal(0.5 + swing[0] / 254, zero=0.5)
    return _as_rgb(np.clip(np.rint(MID_GREY + swing), 0, 255).astype(np.uint8))


def from_range(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Image (H,W,C) of any range -> uint8 (H,W,3), linear from `low` (its minimum) to `high` (its maximum); uint8
    without them is as it is. A signal is drawn, `low` at the bottom and `high` (of uint8: 0 and 255) at the top."""
    values = np.asarray(values)
    if values.ndim != 3:
        raise ValueError(f"image must have shape (H, W, C), got {values.shape}")
    signal = is_signal(*values.shape[:2])
    if values.dtype == np.uint8 and low is None and high is None:
        return _signal(values[0] / 255) if signal else _as_rgb(values)
    values = values.astype(np.float32)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    span = high - low
    unit = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    return _signal(unit[0]) if signal else _as_rgb(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8))


def with_axis(picture: np.ndarray, labels: Sequence[str], legend: Sequence[str] = ()) -> np.ndarray:
    """A picture (H,W,3) of a signal or along one, above an axis: a mark at its left end, between and at its right end
    for each label, as many as there are; and what the first colours of lines stand for, if there is a legend."""
    width = picture.shape[1]
    below = Image.new("RGB", (width, _AXIS * (2 if legend else 1)), GAP_COLOR)
    draw, font = ImageDraw.Draw(below), ImageFont.load_default()
    for index, label in enumerate(labels):
        share = index / max(1, len(labels) - 1)
        at = round(share * (width - 1))
        draw.line([at, 0, at, 3], fill=_INK)
        draw.text((at - round(share * draw.textlength(label, font=font)), 3), label, fill=_INK, font=font)
    left = 0
    for label, color in zip(legend, COLORS, strict=False):
        draw.rectangle([left, _AXIS + 4, left + 7, _AXIS + 11], fill=color)
        draw.text((left + 11, _AXIS + 2), label, fill=_INK, font=font)
        left += 19 + round(draw.textlength(label, font=font))
    return np.concatenate([picture, np.asarray(below)])


def shows_filters(shape: tuple[int, ...]) -> bool:
    """Whether filters of this shape (K,R,S,C) can be looked at: grey or coloured ones, and signals."""
    return len(shape) == 4 and (shape[3] in (1, 3) or is_signal(*shape[1:3]))


def from_filters(weight: np.ndarray) -> list[np.ndarray]:
    """First-layer filters (K,R,S,C), C 1 or 3, or signals -> K pictures (R,S,3), each with zero at mid grey and its own
    scale."""
    weight = np.asarray(weight)
    if not shows_filters(weight.shape):
        raise ValueError(
            f"filters must have shape (K, R, S, 1 or 3) or (K, 1, S, C) to be looked at, got {weight.shape}"
        )
    return [from_projection(one) for one in weight]


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Map (rows, columns) -> uint8 (rows, columns, 3), dark violet at `low`, yellow at `high` (by default the map's
    `color_range`); NaN is mid grey. One row is a strip, half as high as it is long."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"a heat map has shape (rows, columns), got {values.shape}")
    least, largest = color_range(values)
    low = least if low is None else low
    high = largest if high is None else high
    span = high - low
    unit = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    picture = _colormap("viridis")(unit, bytes=True)[..., :3]
    picture[~np.isfinite(values)] = MID_GREY
    return _strip(picture)


def from_classes(labels: np.ndarray) -> np.ndarray:
    """Map of class numbers (rows, columns) -> uint8 (rows, columns, 3), a colour for each class; ten, then again. One
    row is a strip, half as high as it is long."""
    colors = _colormap("tab10")
    return _strip(colors(np.asarray(labels) % colors.N, bytes=True)[..., :3])


def _strip(picture: np.ndarray) -> np.ndarray:
    """The picture of a map, of one row in the proportions of a signal's."""
    rows, columns = picture.shape[:2]
    return picture.repeat(max(1, columns * _SIGNAL[0] // _SIGNAL[1]), axis=0) if rows == 1 else picture


def _colormap(name: str) -> Colormap:
    import matplotlib

    return matplotlib.colormaps[name]


def enlarge(picture: np.ndarray, least: int) -> np.ndarray:
    """The picture, repeated by the smallest whole factor that makes its longer side at least `least` pixels."""
    factor = max(1, -(-least // max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def at_most(picture: np.ndarray, longest: int) -> np.ndarray:
    """The picture, reduced so that its longer side has at most `longest` pixels."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture in this size: its pixels as rectangles where that is larger, smooth where it is smaller."""
    larger = height >= picture.shape[0] and width >= picture.shape[1]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def tile(pictures: Sequence[np.ndarray], columns: int, gap: int = 1, color: Sequence[int] = GAP_COLOR) -> np.ndarray:
    """Pictures (H,W,3), of one size or several, row by row -> one picture; cells are as large as the largest."""
    if not pictures:
        raise ValueError("pictures is empty: there is nothing to tile")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = max(p.shape[0] for p in pictures)
    width = max(p.shape[1] for p in pictures)
    canvas = np.empty((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    canvas[...] = color
    for index, picture in enumerate(pictures):
        top = index // columns * (height + gap)
        left = index % columns * (width + gap)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def beside(left: np.ndarray, right: np.ndarray, gap: int = 4, color: Sequence[int] = GAP_COLOR) -> np.ndarray:
    """Two pictures side by side: the paper's 3 x 3 projections beside their 3 x 3 patches."""
    return tile([left, right], columns=2, gap=gap, color=color)


def encode(picture: np.ndarray, photo: bool = False) -> tuple[str, bytes]:
    """uint8 (H,W,3) -> (media type, bytes): PNG; if `photo` allows loss, JPEG where that is smaller."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    png = buffer.getvalue()
    if photo and len(png) > 2048:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        if buffer.tell() < len(png):
            return "image/jpeg", buffer.getvalue()
    return "image/png", png


def data_uri(picture: np.ndarray, photo: bool = False) -> str:
    """The picture as an address that carries its own data."""
    return as_uri(*encode(picture, photo))


def as_uri(media_type: str, data: bytes) -> str:
    """An encoded picture as an address that carries its own data."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def save_png(path: str | os.PathLike, picture: np.ndarray, least: int = 0) -> None:
    """Writes the picture as PNG, enlarged so that its longer side has at least `least` pixels; whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(enlarge(picture, least) if least else picture)[1])
