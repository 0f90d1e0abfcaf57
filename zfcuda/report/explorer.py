"""The occlusion explorer (paper Fig. 7, P8): all panels of one image, and the square under the pointer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from ..analysis.figures import COLOR_NAMES, COLORS, color_range, full_swing, is_signal
from ..analysis.occlusion import Occlusion
from ..brief import Brief
from ..wording import layer_words
from . import pictures
from .parts import Part
from .shown import ONE_OUTPUT, colour_words

_LEAST = 1e-3  # what a map's colours span at least, of a probability


@dataclass(frozen=True, repr=False)
class Explorer(Brief, Part):
    """Occlusion of one image. `picture`: how people see it, uint8; `tops`: the strongest map's 3 x 3 elsewhere."""

    name: str
    title: str
    occlusion: Occlusion
    picture: np.ndarray
    classes: Sequence[str]
    tops: np.ndarray | None = None

    @functools.cached_property
    def _pictures(self) -> list[tuple[np.ndarray, str, bool]]:
        o, (noun, cover) = self.occlusion, self._nouns
        of_map, swing = f"map {o.feature_map}", full_swing(o.projection)
        activation, colours = pictures.heat(o.activation), colour_words(o.activation, color_range(o.activation))
        shown = [
            (activation, f"(b) sum of {layer_words(o.layer)} {of_map}, by the {cover}'s place: {colours}", True),
            (pictures.from_projection(o.projection), f"(c) what {of_map} sees in this {noun}, ±{swing:.2g}", False),
        ]
        if self.tops is not None:
            tops = f"(c) {of_map} in the {noun}s that excite it most, each on its own scale"
            shown.append((self.tops, tops, False))
        factor, unit = 1, ""
        low, high = color_range(o.probability)
        if o.followed == "probability":
            factor, unit = 100, " %"
            low, high = np.clip(color_range(o.probability, _LEAST), 0, 1).tolist()
        colours = colour_words(factor * o.probability, (factor * low, factor * high), unit)
        shown.append((pictures.heat(o.probability, low, high), f"(d) {self._followed}: {colours}", True))
        if not o.one_output:
            shown.append((pictures.from_classes(o.prediction), "(e) most probable class", True))
        return shown

    @property
    def _signal(self) -> bool:
        return is_signal(*self.occlusion.image.shape[:2])

    @property
    def _nouns(self) -> tuple[str, str]:
        """What is looked at, and what covers a part of it."""
        height, width = self.occlusion.size
        return "signal" if self._signal else "image", "square" if height == width else "rectangle"

    def _axis(self, is_map: bool) -> list[str]:
        """Of a signal, the samples at the ends and in the middle of a picture; of a map's, those where the first cover
        begins, one in the middle and the last. Of an image none."""
        if not self._signal:
            return []
        count, step = (self.occlusion.probability.shape[1], self.occlusion.stride[1])
        last, middle = ((count - 1) * step, count // 2 * step) if is_map else (self._length - 1, self._length // 2)
        return [str(sample) for sample in dict.fromkeys((0, middle, last))]

    @property
    def _length(self) -> int:
        return self.occlusion.image.shape[1]

    @property
    def _channels(self) -> list[str]:
        """The legend of a signal's lines, where there are several."""
        channels = self.occlusion.image.shape[2]
        told_apart = self._signal and 1 < channels <= len(COLOR_NAMES)
        return [f"channel {number}" for number in range(channels)] if told_apart else []

    @property
    def _followed(self) -> str:
        """What is followed, and what the network calls it."""
        o, name = self.occlusion, self.classes[self.occlusion.label]
        return o.followed_of(name) if name == ONE_OUTPUT else f"{o.followed} of {name}"

    def shown(self) -> dict[str, Any]:
        panels = [
            {
                "picture": pictures.data_uri(picture),
                "caption": caption,
                "map": is_map,
                "axis": [] if picture is self.tops else self._axis(is_map),
                "legend": [],
            }
            for picture, caption, is_map in self._pictures
        ]
        noun, cover = self._nouns
        colors = [list(ImageColor.getrgb(color)) for color in COLORS]
        if not self.occlusion.one_output:
            panels[-1]["legend"] = self._legend()
        return {
            "kind": "explorer",
            "title": self.title,
            "image": pictures.data_uri(self.picture, photo=True),
            "seen": f"(a) the {noun} and the {cover}" + (", by samples" if self._signal else ""),
            "axis": self._axis(False),
            "legend": [{"label": name, "color": color} for name, color in zip(self._channels, colors, strict=False)],
            "pixels": max(self.picture.shape[:2]) <= 112,
            "panels": panels,
            "data": self._data(),
        }

    def _legend(self) -> list[dict[str, Any]]:
        found = np.unique(self.occlusion.prediction)
        swatches = pictures.from_classes(found[None])[0]
        return [
            {"label": self.classes[label], "color": swatch}
            for label, swatch in zip(found.tolist(), swatches.tolist(), strict=True)
        ]

    def _data(self) -> dict[str, Any]:
        """What the page's script needs to follow the pointer."""
        o = self.occlusion
        return {
            "probability": np.round(o.probability.astype(float), 5).tolist(),
            "prediction": o.prediction.tolist(),
            "baseline": float(o.baseline),
            "followed": o.followed,
            "size": list(o.size),
            "stride": list(o.stride),
            "image_size": list(o.image.shape[:2]),
            "what": self._followed,
            "classes": None if o.one_output else self._predicted(),
        }

    def _predicted(self) -> dict[str, str]:
        """The names of the classes that are predicted somewhere, by their numbers."""
        return {str(label): self.classes[label] for label in np.unique(self.occlusion.prediction).tolist()}

    def save(self, directory: Path) -> list[str]:
        height, width = pictures.enlarge(self.picture, 224).shape[:2]
        shown = [(self.picture, False), *((picture, is_map) for picture, _, is_map in self._pictures)]
        tiles = [pictures.resized(picture, height, width) for picture, _ in shown]
        if self._signal:
            for index, (picture, is_map) in enumerate(shown):
                if picture is not self.tops:
                    legend = [] if index else self._channels
                    tiles[index] = pictures.with_axis(tiles[index], self._axis(is_map), legend)
        pictures.save_png(directory / f"{self.name}.png", pictures.tile(tiles, len(tiles), gap=8))
        return [f"{self.name}.png"]
