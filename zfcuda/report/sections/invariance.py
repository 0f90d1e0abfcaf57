"""Invariance (paper Fig. 5, P6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...analysis import Invariance
from ...analysis.invariance import transformed
from ...data import Preprocess
from ...wording import layer_words
from .. import Chart, Picture, Section, Table
from ..pictures import enlarge, from_range, tile
from ..shown import outputs_only

_SHOWN, _SHOWN_IMAGES = 7, 10  # amounts of each transform, and images, in the pictures


def invariance_section(
    result: Invariance,
    images: np.ndarray | None = None,
    names: Sequence[str] = (),
    preprocess: Preprocess | None = None,
) -> Section:
    """The curves of Fig. 5, how steady each layer is, and, if there are inputs float32 (N,H,W,C), these transformed:
    as the images that `preprocess` made them of."""
    rows = [[name, *(curves.steadiness(layer) for layer in result.layers)] for name, curves in result.curves.items()]
    columns = ("transform", *(f"relative distance in {layer_words(layer)}" for layer in result.layers))
    parts: list = [Table(columns, rows, "Mean over images and amounts; 0: the features do not move.", decimals=3)]
    parts.append(Chart("invariance", result.plot(names)))
    if images is not None:
        parts += [_transformed(name, curves.amounts, images, preprocess) for name, curves in result.curves.items()]
    blurb = (
        "Left, the Euclidean distance between the features of the image as it is and transformed, in each layer; "
        f"right, the {result.followed_of('the true class')}.{outputs_only(result)}"
    )
    return Section("Invariance", parts, blurb, result.numbers())


def _transformed(name: str, amounts: np.ndarray, images: np.ndarray, preprocess: Preprocess | None) -> Picture:
    """Some inputs (N,H,W,C) under some amounts of a transform."""
    shown = amounts[np.linspace(0, len(amounts) - 1, min(_SHOWN, len(amounts))).astype(int)]
    moved = np.stack([transformed(image, name, amount) for image in images[:_SHOWN_IMAGES] for amount in shown])
    low, high = float(images.min()), float(images.max())
    if preprocess is not None:
        moved, low, high = preprocess.images_of(moved), 0.0, 255.0
    tiles = [from_range(one, low, high) for one in moved]
    caption = f"{name}: {', '.join(f'{amount:.3g}' for amount in shown)}"
    return Picture(f"invariance-{name}", tile([enlarge(t, 64) for t in tiles], len(shown), gap=2), caption)
