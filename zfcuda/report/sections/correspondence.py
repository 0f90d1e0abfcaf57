"""Correspondence (paper Table 1, P9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...analysis import Correspondence
from ...analysis.geometry import Window
from ...wording import layer_words
from .. import Chart, Picture, Section, Table
from ..parts import Part
from ..pictures import enlarge, from_range, tile

_MASK = 128


def correspondence_section(
    result: Correspondence, images: np.ndarray | None = None, parts: Mapping[str, Sequence[Window]] | None = None
) -> Section:
    """Table 1's form, a chart, and, if there are images, uint8 (N,H,W,C), these with each part masked."""
    rows = [
        [
            part,
            *(
                f"{cell.mean:.3f} ± {cell.deviation:.3f}"
                for cell in (result.cell(part, name) for name in result.layers)
            ),
        ]
        for part in result.parts
    ]
    shown: list[Part] = [
        Table(
            ("masked", *map(layer_words, result.layers)),
            rows,
            "Mean normalised Hamming distance ± its deviation over pairs of images.",
        ),
        Chart("correspondence", result.plot()),
    ]
    if images is not None:
        shown.append(_masked(images, parts or {}))
    blurb = (
        "How differently a mask changes the features of two images, 0 for alike. Parts that the network knows lie "
        "below random masks of the same size."
    )
    return Section("Correspondence", shown, blurb, result.numbers())


def _masked(images: np.ndarray, parts: Mapping[str, Sequence[Window]]) -> Picture:
    tiles = [enlarge(from_range(image), 96) for image in images]
    for boxes in parts.values():
        masked = images.copy()
        for image, box in zip(masked, boxes, strict=True):
            image[box.top : box.top + box.height, box.left : box.left + box.width] = _MASK
        tiles += [enlarge(from_range(image), 96) for image in masked]
    caption = f"The images, then with these masked: {', '.join(parts)}"
    return Picture("correspondence-images", tile(tiles, len(images), gap=2), caption)
