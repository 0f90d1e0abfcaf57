"""The top-9 gallery (paper Fig. 2, P4): for each map 3 x 3 projections beside the 3 x 3 patches they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..analysis.deconvnet import Visualization, cut
from ..analysis.figures import full_swing
from ..wording import layer_words
from . import pictures
from .parts import Part, file_name
from .shown import Shown

_LARGEST_TILE, _LARGEST_IMAGE = 112, 128  # sides that larger ones are reduced to

# What a page shows of a gallery stays below 15 MB however many maps it has: that is what these many pixels of tiles and
# of images take if all is noise, tiles as JPEG. Only small ones are PNG.
_EXACT_TILE, _EXACT_PIXELS = 32, 2e6
_TILE_PIXELS, _IMAGE_PIXELS = 9e6, 9.3e6
_GAP = 1
_FILTER = 96  # pixels that the longer side of a first-layer filter has at most


class _Image(NamedTuple):
    """What is kept of an image: a picture of it, no larger than it is shown, and what it was."""

    picture: np.ndarray
    drawn: tuple[int, int]  # the size of the picture before it was reduced
    size: tuple[int, int]  # of the image in pixels, in which windows count
    name: str
    label: str


class Gallery(Part):
    """The maps of one layer. Made of a visualisation, which may be forgotten afterwards: what is kept is as small as
    the page. Galleries of other maps of the layer, with the same k, are put behind it by `add`. Saved as NAME.png.

    images: an entry for every winner's index.
    """

    def __init__(self, visualization: Visualization, images: Mapping[int, Shown], name: str = "", caption: str = ""):
        self.layer = visualization.layer
        self.name = name or f"top-{file_name(self.layer)}"
        self.caption = caption
        self._tile = pictures.size_of(*visualization.projections.shape[2:4])
        self._columns = math.ceil(math.sqrt(visualization.values.shape[1]))
        self._numbers: list[dict[str, Any]] = [visualization.numbers()]
        self._tiles: list[tuple[np.ndarray, np.ndarray]] = []  # of each map: projections, patches
        self._about: list[tuple[str, str]] = []
        self._swings = [[float(f"{full_swing(one):.2g}") for one in of_map] for of_map in visualization.projections]
        self._images: dict[int, _Image] = {}
        for row in range(len(visualization.maps)):
            labels = [images[int(index)].label for index in visualization.indices[row]]
            common = sorted(set(filter(None, labels)), key=lambda label: (-labels.count(label), label))
            counted = ", ".join(f"{label} {labels.count(label)}" for label in common)
            summary = f"strongest {visualization.values[row, 0]:.3g}" + (f" · {counted}" if counted else "")
            find = " ".join([self.layer, "map", str(int(visualization.maps[row])), *common])
            self._about.append((summary, find))
            patches = [
                pictures.from_range(cut(images[int(index)].image, frame, fill=pictures.MID_GREY))
                for index, frame in zip(visualization.indices[row], visualization.frames[row], strict=True)
            ]
            projections = [pictures.from_projection(one) for one in visualization.projections[row]]
            self._tiles.append((self._tiled(projections), self._tiled(patches)))
        for index in sorted(set(visualization.indices.ravel().tolist())):
            shown, picture = images[index], images[index].picture
            (height, width, _), (rows, columns, _) = shown.image.shape, picture.shape
            small = pictures.at_most(picture, _LARGEST_IMAGE)
            self._images[index] = _Image(small, (rows, columns), (height, width), shown.name, shown.label)

    def add(self, more: Gallery) -> None:
        """More maps of the layer."""
        self._numbers += more._numbers
        self._tiles += more._tiles
        self._about += more._about
        self._swings += more._swings
        self._images |= {index: image for index, image in more._images.items() if index not in self._images}

    def numbers(self) -> dict[str, Any]:
        """Those of the visualisations, as if they were one."""
        arrays = [name for name in self._numbers[0] if name != "layer"]
        return {"layer": self.layer} | {name: np.concatenate([n[name] for n in self._numbers]) for name in arrays}

    @property
    def pixels(self) -> bool:
        return max(self._tile) <= self._shown_tile

    @property
    def _tile_count(self) -> int:
        return sum(2 * numbers["values"].size for numbers in self._numbers)

    @property
    def _shown_tile(self) -> int:
        """The side of the tiles in the page, unless their own is smaller."""
        return min(_LARGEST_TILE, int(math.sqrt(_TILE_PIXELS / self._tile_count)))

    def shown(self) -> dict[str, Any]:
        photo = max(self._tile) > _EXACT_TILE or self._tile_count * math.prod(self._tile) > _EXACT_PIXELS
        uris = [[pictures.data_uri(side, photo) for side in pair] for pair in self._reduced()]
        maps = [
            {"number": number, "projections": projections, "patches": patches, "summary": summary, "find": find}
            for number, (projections, patches), (summary, find) in zip(
                self.numbers()["maps"].tolist(), uris, self._about, strict=True
            )
        ]
        return {
            "kind": "gallery",
            "layer": self.layer,
            "title": layer_words(self.layer),
            "caption": self.caption,
            "pixels": self.pixels,
            "maps": maps,
            "data": self._data(),
        }

    def _data(self) -> dict[str, Any]:
        """What the page's script needs to open a winner."""
        numbers = self.numbers()
        keys = ("values", "indices", "positions", "windows")
        height, width = self._tile
        maps = []
        found = (numbers[key].tolist() for key in keys)
        for number, swings, *of_map in zip(numbers["maps"].tolist(), self._swings, *found, strict=True):
            winners = [
                {"value": value, "image": str(index), "position": position, "window": window}
                for value, index, position, window in zip(*of_map, strict=True)
            ]
            rows = -(-len(winners) // self._columns)
            size = [rows * (height + _GAP) - _GAP, self._columns * (width + _GAP) - _GAP]
            maps.append(
                {"number": number, "columns": self._columns, "size": size, "winners": winners, "swings": swings}
            )
        longest = int(math.sqrt(_IMAGE_PIXELS / len(self._images)))
        images = {
            str(index): {
                "uri": pictures.data_uri(pictures.at_most(image.picture, longest), photo=True),
                "drawn": list(image.drawn),
                "size": list(image.size),
                "name": image.name,
                "label": image.label,
            }
            for index, image in self._images.items()
        }
        return {
            "layer": layer_words(self.layer),
            "tile": [height, width],
            "gap": _GAP,
            "pixels": self.pixels,
            "maps": maps,
            "images": images,
        }

    def save(self, directory: Path) -> list[str]:
        pairs = [pictures.beside(projections, patches) for projections, patches in self._reduced()]
        across = max(1, round(math.sqrt(len(pairs) / 2)))
        pictures.save_png(directory / f"{self.name}.png", pictures.tile(pairs, across, gap=8), least=800)
        return [f"{self.name}.png"]

    def _reduced(self) -> list[list[np.ndarray]]:
        """Of each map the projections and the patches, as large as the page shows them."""
        longest = self._across(self._shown_tile)
        return [[pictures.at_most(side, longest) for side in pair] for pair in self._tiles]

    def _tiled(self, tiles: Sequence[np.ndarray]) -> np.ndarray:
        """The winners of a map as one picture, no larger than they are shown."""
        return pictures.at_most(pictures.tile(tiles, self._columns, _GAP), self._across(_LARGEST_TILE))

    def _across(self, side: int) -> int:
        """The length of a map's winners as one picture, if a winner is `side` long."""
        return self._columns * (side + _GAP) - _GAP


def weight_tiles(weight: np.ndarray, columns: int | None = None) -> np.ndarray:
    """First-layer filters, as `pictures.from_filters` takes them, strongest first as the paper shows them, as one
    picture."""
    order: Sequence[int] = np.argsort(-np.abs(weight).max(axis=(1, 2, 3)), kind="stable").tolist()
    shown = [pictures.at_most(one, _FILTER) for one in pictures.from_filters(weight)]
    columns = columns or math.ceil(math.sqrt(len(shown) * 1.6))
    return pictures.tile([shown[i] for i in order], columns, _GAP)
