"""The occlusion explorer (paper Fig. 7, P8): all panels of one image, and the square under the pointer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.figures import color_range, full_swing
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
        o = self.occlusion
        of_map, swing = f"map {o.feature_map}", full_swing(o.projection)
        activation, colours = pictures.heat(o.activation), colour_words(o.activation, color_range(o.activation))
        shown = [
            (activation, f"(b) sum of {layer_words(o.layer)} {of_map}, by the square's place: {colours}", True),
            (pictures.from_projection(o.projection), f"(c) what {of_map} sees in this image, ±{swing:.2g}", False),
        ]
        if self.tops is not None:
            tops = f"(c) {of_map} in the images that excite it most, each on its own scale"
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
    def _followed(self) -> str:
        """What is followed, and what the network calls it."""
        o, name = self.occlusion, self.classes[self.occlusion.label]
        return o.followed_of(name) if name == ONE_OUTPUT else f"{o.followed} of {name}"

    def shown(self) -> dict[str, Any]:
        panels = [
            {"picture": pictures.data_uri(picture), "caption": caption, "map": is_map, "legend": []}
            for picture, caption, is_map in self._pictures
        ]
        if not self.occlusion.one_output:
            panels[-1]["legend"] = self._legend()
        return {
            "kind": "explorer",
            "title": self.title,
            "image": pictures.data_uri(self.picture, photo=True),
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
        shown = [self.picture, *(picture for picture, _, _ in self._pictures)]
        height, width = pictures.enlarge(self.picture, 224).shape[:2]
        tiles = [pictures.resized(picture, height, width) for picture in shown]
        pictures.save_png(directory / f"{self.name}.png", pictures.tile(tiles, len(tiles), gap=8))
        return [f"{self.name}.png"]
