"""The parts of a section, each rendered by the macro of its kind in `templates/parts.html.j2`."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..brief import Brief
from ..files import write_atomically
from . import pictures, plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Part:
    """What a section is made of."""

    def shown(self) -> dict[str, Any]:
        """All that a page shows of it, as plain JSON: what the macro of its kind needs, pictures included."""
        raise NotImplementedError

    def save(self, directory: Path) -> list[str]:
        """Leaves its pictures as PNG, and returns their names: none if it has none."""
        return []


@dataclass(frozen=True)
class Note(Part):
    """A sentence that stands out: tone "plain", "good" or "warning"."""

    text: str
    tone: str = "plain"

    def shown(self) -> dict[str, Any]:
        return {"kind": "note", "text": self.text, "tone": self.tone}


@dataclass(frozen=True)
class Facts(Part):
    """A few numbers with their names, as cards."""

    facts: Sequence[tuple[str, str]]

    def shown(self) -> dict[str, Any]:
        return {"kind": "facts", "facts": self.facts}


@dataclass(frozen=True)
class Table(Part):
    """A table that sorts on a click. Cells are words, numbers (shown with `decimals`) or None for "no number"."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    decimals: int = 2

    def shown(self) -> dict[str, Any]:
        rows = [[self._cell(value) for value in row] for row in self.rows]
        return {"kind": "table", "columns": self.columns, "rows": rows, "caption": self.caption}

    def _cell(self, value: Any) -> dict[str, Any]:
        """What a cell says, and the number that it sorts by (None for words)."""
        text = str(value)
        number: float | None = None
        if value is None:
            text = "-"
        elif isinstance(value, (bool, np.bool_)):
            text = "yes" if value else "no"
        elif isinstance(value, (int, np.integer)):
            text, number = f"{value:,}", int(value)
        elif isinstance(value, (float, np.floating)) and np.isfinite(value):
            text, number = f"{value:,.{self.decimals}f}", float(value)
        return {"text": text, "number": number}


@dataclass(frozen=True, repr=False)
class Picture(Brief, Part):
    """A picture, uint8 (H,W,3), saved as NAME.png; shown at least `least` pixels long, by whole factors."""

    name: str
    picture: np.ndarray
    caption: str = ""
    least: int = 0

    def shown(self) -> dict[str, Any]:
        height, width = self.picture.shape[:2]
        factor = max(1, -(-self.least // max(height, width)))
        return {
            "kind": "picture",
            "picture": pictures.data_uri(self.picture),
            "size": [factor * height, factor * width],
            "pixels": factor > 1,
            "caption": self.caption,
        }

    def save(self, directory: Path) -> list[str]:
        pictures.save_png(directory / f"{self.name}.png", self.picture, self.least)
        return [f"{self.name}.png"]


@dataclass(frozen=True)
class Chart(Part):
    """A Matplotlib figure: on its own page SVG in the page's colours, in a study and as NAME.png a picture on white."""

    name: str
    figure: Figure
    caption: str = ""

    @functools.cached_property
    def svg(self) -> str:
        return plots.to_svg(self.figure, self.name)

    @functools.cached_property
    def _png(self) -> bytes:
        return plots.to_png(self.figure)

    def shown(self) -> dict[str, Any]:
        return {
            "kind": "chart",
            "name": self.name,
            "picture": pictures.as_uri("image/png", self._png),
            "width": round(5 * self.figure.get_figwidth()),  # in rem: its words are as large as the captions
            "caption": self.caption,
        }

    def save(self, directory: Path) -> list[str]:
        write_atomically(directory / f"{self.name}.png", self._png)
        return [f"{self.name}.png"]


@dataclass(frozen=True, repr=False)
class Slider(Brief, Part):
    """Pictures of one size in an order, such as epochs, one shown at a time. Saved as NAME-01.png and so on."""

    name: str
    title: str
    pictures: Sequence[np.ndarray]
    labels: Sequence[str]
    caption: str = ""

    def shown(self) -> dict[str, Any]:
        pairs = zip(self.pictures, self.labels, strict=True)
        frames = [{"picture": pictures.data_uri(picture), "label": label} for picture, label in pairs]
        return {"kind": "slider", "title": self.title, "frames": frames, "caption": self.caption}

    def save(self, directory: Path) -> list[str]:
        names = [f"{self.name}-{number:02d}.png" for number in range(1, len(self.pictures) + 1)]
        for name, picture in zip(names, self.pictures, strict=True):
            pictures.save_png(directory / name, picture)
        return names


def file_name(text: str) -> str:
    """Words as a part of a file's name: letters, digits, dots and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60] or "unnamed"
