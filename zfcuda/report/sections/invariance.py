"""Invariance (paper Fig. 5, P6)."""

from __future__ import annotations

import numpy as np

from ...analysis import Invariance
from ...analysis.invariance import transformed
from .. import Chart, Picture, Section, Table
from ..pictures import enlarge, from_range, tile

_SHOWN, _SHOWN_IMAGES = 7, 10  # amounts of each transform, and images, in the pictures


def invariance_section(result: Invariance, images: np.ndarray, names: list[str]) -> Section:
    """The curves of Fig. 5, the transformed images, and how steady each layer is."""
    rows = [[name, *(curves.steadiness(layer) for layer in result.layers)] for name, curves in result.curves.items()]
    columns = ("transform", *(f"relative distance in {layer}" for layer in result.layers))
    parts: list = [Table(columns, rows, "Mean over images and amounts; 0: the features do not move.", decimals=3)]
    parts.append(Chart("invariance", result.plot(names)))
    for name, curves in result.curves.items():
        shown = curves.amounts[np.linspace(0, len(curves.amounts) - 1, min(_SHOWN, len(curves.amounts))).astype(int)]
        low, high = float(images.min()), float(images.max())
        tiles = [
            from_range(transformed(image, name, amount), low, high)
            for image in images[:_SHOWN_IMAGES]
            for amount in shown
        ]
        caption = f"{name}: {', '.join(f'{amount:.3g}' for amount in shown)}"
        parts.append(Picture(f"invariance-{name}", tile([enlarge(t, 64) for t in tiles], len(shown), gap=2), caption))
    blurb = (
        "Left, the Euclidean distance between the features of the image as it is and transformed, in each layer; "
        "right, the probability of the true class."
    )
    return Section("Invariance", parts, blurb, result.numbers())
