"""The top-9 gallery (paper Fig. 2, P4): for each map 3 x 3 projections beside the 3 x 3 patches they came from."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from ..analysis.deconvnet import Visualization, cut
from . import pictures
from .page import file_name

# A page embeds larger pictures reduced to these many pixels, so that a hundred maps of nine winners stay below 15 MB.
# Tiles above _EXACT_TILE may be JPEG: losslessly, a hundred maps of tiles of 75 x 75 would be 22 MB.
_EXACT_TILE = 32
_EMBEDDED_TILE = 80
_EMBEDDED_IMAGE = 128
_GAP = 1


class Shown(NamedTuple):
    """An image as people see it: uint8 (H,W,3), where it came from, and its class."""

    picture: np.ndarray
    name: str
    label: str


class MapCard(NamedTuple):
    """What a page shows of one map before anybody clicks."""

    number: int
    projections: str
    patches: str
    summary: str
    find: str


@dataclass(frozen=True)
class Gallery:
    """The maps of one visualised layer. `images` has an entry for every winner's index; saved as NAME.png."""

    kind: ClassVar[str] = "gallery"
    visualization: Visualization
    images: Mapping[int, Shown]
    name: str = ""
    caption: str = ""

    @property
    def layer(self) -> str:
        return self.visualization.layer

    @property
    def pixels(self) -> bool:
        return max(self.visualization.projections.shape[2:4]) <= _EMBEDDED_TILE

    @property
    def _columns(self) -> int:
        return math.ceil(math.sqrt(self.visualization.values.shape[1]))

    def _projections(self, row: int) -> np.ndarray:
        shown = [pictures.from_projection(one) for one in self.visualization.projections[row]]
        return pictures.tile(shown, self._columns, _GAP)

    def _patches(self, row: int) -> np.ndarray:
        view = self.visualization
        shown = [
            cut(self.images[int(index)].picture, frame, fill=pictures.MID_GREY)
            for index, frame in zip(view.indices[row], view.frames[row], strict=True)
        ]
        return pictures.tile(shown, self._columns, _GAP)

    @functools.cached_property
    def maps(self) -> list[MapCard]:
        view = self.visualization
        cards = []
        for row, number in enumerate(view.maps):
            labels = [self.images[int(index)].label for index in view.indices[row]]
            common = sorted(set(filter(None, labels)), key=lambda label: (-labels.count(label), label))
            counted = ", ".join(f"{label} {labels.count(label)}" for label in common)
            cards.append(
                MapCard(
                    number=int(number),
                    projections=_embedded_tiles(self._projections(row), view),
                    patches=_embedded_tiles(self._patches(row), view),
                    summary=f"strongest {view.values[row, 0]:.3g}" + (f" · {counted}" if counted else ""),
                    find=" ".join([view.layer, "map", str(int(number)), *common]),
                )
            )
        return cards

    def data(self) -> dict[str, Any]:
        """What the page's script needs to open a winner."""
        view = self.visualization
        size = list(self._projections(0).shape[:2])
        maps = []
        for row, number in enumerate(view.maps):
            winners = [
                {
                    "value": float(view.values[row, rank]),
                    "image": str(view.indices[row, rank]),
                    "position": view.positions[row, rank].tolist(),
                    "window": view.windows[row, rank].tolist(),
                }
                for rank in range(view.values.shape[1])
            ]
            maps.append({"number": int(number), "columns": self._columns, "size": size, "winners": winners})
        images = {}
        for index in np.unique(view.indices):
            shown = self.images[int(index)]
            images[str(index)] = {
                "uri": pictures.data_uri(_at_most(shown.picture, _EMBEDDED_IMAGE), photo=True),
                "size": list(shown.picture.shape[:2]),
                "name": shown.name,
                "label": shown.label,
            }
        tile = list(view.projections.shape[2:4])
        return {
            "layer": view.layer, "tile": tile, "gap": _GAP, "pixels": self.pixels, "maps": maps, "images": images,
        }  # fmt: skip

    def save(self, directory: Path) -> None:
        pairs = [pictures.beside(self._projections(row), self._patches(row)) for row in range(len(self.maps))]
        across = max(1, round(math.sqrt(len(pairs) / 2)))
        name = self.name or f"top-{file_name(self.layer)}"
        pictures.save_png(directory / f"{name}.png", pictures.tile(pairs, across, gap=8), least=800)


def _at_most(picture: np.ndarray, longest: int) -> np.ndarray:
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _embedded_tiles(tiles: np.ndarray, view: Visualization) -> str:
    side = max(view.projections.shape[2:4])
    small = _at_most(tiles, int(max(tiles.shape[:2]) / max(1.0, side / _EMBEDDED_TILE)))
    return pictures.data_uri(small, photo=side > _EXACT_TILE)


def weight_tiles(weight: np.ndarray, columns: int | None = None) -> np.ndarray:
    """First-layer filters (K,R,S,1 or 3), strongest first as the paper shows them, as one picture."""
    order: Sequence[int] = np.argsort(-np.abs(weight).max(axis=(1, 2, 3)), kind="stable").tolist()
    shown = pictures.from_filters(weight)
    columns = columns or math.ceil(math.sqrt(len(shown) * 1.6))
    return pictures.tile([shown[i] for i in order], columns, _GAP)
