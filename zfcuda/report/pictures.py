"""Pictures: arrays of numbers turned into uint8 (H, W, 3) arrays that people look at, tiled, and encoded.

A projection is signed and centred on zero, so zero is mid grey and the scale is symmetric. A small picture is enlarged
by whole factors without smoothing, so that a pixel of the net's input stays a visible square.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..analysis.figures import full_swing
from ..files import write_atomically

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

GAP_COLOR = (255, 255, 255)
MID_GREY = 128


def _as_rgb(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, C) -> (..., H, W, 3): the first three channels, or the first as grey where there are fewer."""
    return np.repeat(pictures[..., :1], 3, axis=-1) if pictures.shape[-1] < 3 else pictures[..., :3]


def from_projection(projection: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Projection (H,W,C) -> uint8 (H,W,3): zero is mid grey, `scale` (by default its `full_swing`) and what is beyond
    are black or full colour."""
    projection = np.asarray(projection, np.float32)
    if projection.ndim != 3:
        raise ValueError(f"projection must have shape (H, W, C), got {projection.shape}")
    scale = full_swing(projection) if scale is None else float(scale)
    swing = projection * (127.0 / scale) if scale > 0 else np.zeros_like(projection)
    return _as_rgb(np.clip(np.rint(MID_GREY + swing), 0, 255).astype(np.uint8))


def from_range(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Image (H,W,C) of any range -> uint8 (H,W,3), linear from `low` (its minimum) to `high` (its maximum)."""
    values = np.asarray(values)
    if values.ndim != 3:
        raise ValueError(f"image must have shape (H, W, C), got {values.shape}")
    if values.dtype == np.uint8 and low is None and high is None:
        return _as_rgb(values)
    values = values.astype(np.float32)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    span = high - low
    unit = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    return _as_rgb(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8))


def from_filters(weight: np.ndarray) -> list[np.ndarray]:
    """First-layer filters (K,R,S,C), C 1 or 3 -> K pictures (R,S,3), each with zero at mid grey and its own scale."""
    weight = np.asarray(weight)
    if weight.ndim != 4 or weight.shape[3] not in (1, 3):
        raise ValueError(f"filters must have shape (K, R, S, 1 or 3) to be looked at, got {weight.shape}")
    return [from_projection(one) for one in weight]


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Map (rows, columns) -> uint8 (rows, columns, 3), dark violet at `low`, yellow at `high`; NaN is mid grey."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"a heat map has shape (rows, columns), got {values.shape}")
    finite = values[np.isfinite(values)]
    low = float(finite.min(initial=np.inf)) if low is None else low
    high = float(finite.max(initial=-np.inf)) if high is None else high
    span = high - low
    unit = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    picture = _colormap("viridis")(unit, bytes=True)[..., :3]
    picture[~np.isfinite(values)] = MID_GREY
    return picture


def from_classes(labels: np.ndarray) -> np.ndarray:
    """Map of class numbers (rows, columns) -> uint8 (rows, columns, 3), a colour for each class; ten, then again."""
    colors = _colormap("tab10")
    return colors(np.asarray(labels) % colors.N, bytes=True)[..., :3]


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
