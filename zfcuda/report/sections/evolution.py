"""Evolution (paper Fig. 4, P5)."""

from __future__ import annotations

import math

import numpy as np

from ...analysis import Evolution
from ...analysis.evolution import LayerEvolution
from ...wording import layer_words
from .. import Chart, Picture, Section, Slider, Table
from ..parts import Part, file_name
from ..pictures import GAP_COLOR, at_most, enlarge, from_projection, tile

_CHANGED = (224, 52, 47)
_LEAST = 48  # pixels that a projection is shown with
_PIXELS = 1.5e6  # of all projections, which a page has twice: below 15 MB if all is noise


def evolution_section(evolution: Evolution) -> Section:
    """A chart, a table and, per layer, a slider over the epochs and the grid of Fig. 4."""
    rows = [
        [
            layer_words(name),
            layer.settled if layer.settled is not None else "not yet",
            100 * float(layer.likeness[:-1].mean()) if len(layer.epochs) > 1 else None,
            100 * float(layer.changed[:, 1:].mean()) if len(layer.epochs) > 1 else None,
        ]
        for name, layer in evolution.layers.items()
    ]
    parts: list[Part] = [
        Table(
            ("layer", "settled by epoch", "mean likeness to the last look, %", "top image changes, % of looks"),
            rows,
            decimals=1,
        ),
        Chart("evolution", evolution.plot()),
    ]
    side = max(_LEAST, int(math.sqrt(_PIXELS / sum(layer.values.size for layer in evolution.layers.values()))))
    for name, layer in evolution.layers.items():
        labels = [f"epoch {epoch}" for epoch in layer.epochs]
        frames = [_maps_at(layer, column, side) for column in range(len(labels))]
        parts.append(Slider(f"evolution-{file_name(name)}", f"{layer_words(name)}, by epoch", frames, labels))
        caption = (
            f"{layer_words(name)}: rows are maps {_listed(layer.maps)}, columns are epochs {_listed(layer.epochs)}"
        )
        parts.append(Picture(f"evolution-{file_name(name)}-grid", _grid(layer, side), caption))
    blurb = (
        "For each map, its strongest activation over the images, projected to the input after chosen epochs, each on a "
        "scale of its own about zero. A red frame marks that another image took the top. A layer has settled when its "
        "projections stay like the last ones."
    )
    return Section("Evolution", parts, blurb, evolution.numbers())


def _tile(layer: LayerEvolution, row: int, column: int, side: int) -> np.ndarray:
    picture = enlarge(at_most(from_projection(layer.projections[row, column]), side), _LEAST)
    color = _CHANGED if layer.changed[row, column] else GAP_COLOR
    framed = np.empty((picture.shape[0] + 4, picture.shape[1] + 4, 3), np.uint8)
    framed[...] = color
    framed[2:-2, 2:-2] = picture
    return framed


def _maps_at(layer: LayerEvolution, column: int, side: int) -> np.ndarray:
    return tile([_tile(layer, row, column, side) for row in range(len(layer.maps))], columns=8, gap=2)


def _grid(layer: LayerEvolution, side: int) -> np.ndarray:
    tiles = [_tile(layer, row, column, side) for row in range(len(layer.maps)) for column in range(len(layer.epochs))]
    return tile(tiles, columns=len(layer.epochs), gap=2)


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(str(number) for number in numbers)
