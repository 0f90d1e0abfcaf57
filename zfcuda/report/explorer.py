"""The occlusion explorer (paper Fig. 7, P8): all panels of one image, and the square under the pointer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.occlusion import Occlusion
from ..brief import Brief
from . import pictures
from .parts import Part
from .shown import ONE_OUTPUT


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
        shown = [
            (pictures.heat(o.activation), f"(b) sum of {o.layer} map {o.feature_map}, by the square's place", True),
            (pictures.from_projection(o.projection), f"(c) what map {o.feature_map} sees in this image", False),
        ]
        if self.tops is not None:
            shown.append((self.tops, f"(c) map {o.feature_map} in the images that excite it most", False))
        factor, unit = (1, "") if o.followed == "output" else (100, " %")
        low, high = factor * float(o.probability.min()), factor * float(o.probability.max())
        scale = f"{low:.3g}{unit} (dark) to {high:.3g}{unit}"
        shown.append((pictures.heat(o.probability), f"(d) {self._followed}, {scale}", True))
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
