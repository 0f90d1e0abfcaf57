"""The report of a run: one page that carries its pictures, styles and scripts, PNGs and numbers beside it.

A page is a list of sections, a section a list of parts (the dataclasses below), and each part renders itself through
the macro of its kind in `templates/parts.html.j2`. Names of classes and files may be hostile: all text is escaped by
the templates, all data go through JSON that cannot close its script element, and the page forbids itself any network.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .._version import __version__
from ..analysis.results import write_json
from ..files import write_atomically
from . import pictures, plots

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


class Cell(NamedTuple):
    """A cell of a table: what it says, and the number it sorts by (None for words)."""

    text: str
    number: float | None


class Panel(NamedTuple):
    """One picture of an occlusion explorer; `map` tells whether its pixels are positions of the square."""

    uri: str
    caption: str
    map: bool
    legend: list[dict[str, str]]


class Frame(NamedTuple):
    """One picture of a slider."""

    uri: str
    label: str


@dataclass(frozen=True)
class Note:
    """A sentence that stands out: tone "plain", "good" or "warning"."""

    kind: ClassVar[str] = "note"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Facts:
    """A few numbers with their names, as cards."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table that sorts on a click. Cells are words, numbers (shown with `decimals`) or None for "no number"."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    decimals: int = 2

    def cells(self) -> list[list[Cell]]:
        return [[self._cell(value) for value in row] for row in self.rows]

    def _cell(self, value: Any) -> Cell:
        if value is None:
            return Cell("-", None)
        if isinstance(value, (bool, np.bool_)):
            return Cell("yes" if value else "no", None)
        if isinstance(value, (int, np.integer)):
            return Cell(f"{value:,}", int(value))
        if isinstance(value, (float, np.floating)):
            return Cell(f"{value:,.{self.decimals}f}", float(value)) if np.isfinite(value) else Cell(str(value), None)
        return Cell(str(value), None)


@dataclass(frozen=True)
class Picture:
    """A picture, uint8 (H,W,3), saved as NAME.png; shown at least `least` pixels long, by whole factors."""

    kind: ClassVar[str] = "picture"
    name: str
    picture: np.ndarray
    caption: str = ""
    least: int = 0

    @functools.cached_property
    def uri(self) -> str:
        return pictures.data_uri(self.picture)

    @property
    def pixels(self) -> bool:
        return self.width > self.picture.shape[1]

    @property
    def width(self) -> int:
        return self.picture.shape[1] * max(1, -(-self.least // max(self.picture.shape[:2])))

    @property
    def ratio(self) -> str:
        return f"{self.picture.shape[1]} / {self.picture.shape[0]}"

    def save(self, directory: Path) -> None:
        pictures.save_png(directory / f"{self.name}.png", self.picture, self.least)


@dataclass(frozen=True)
class Chart:
    """A Matplotlib figure, shown as SVG in the page's colours and saved as NAME.png on white."""

    kind: ClassVar[str] = "chart"
    name: str
    figure: Figure
    caption: str = ""

    @functools.cached_property
    def svg(self) -> Any:
        from markupsafe import Markup

        return Markup(plots.to_svg(self.figure, self.name))

    @property
    def width(self) -> str:
        """At which the page shows it: its words as large as the captions."""
        return f"{5 * self.figure.get_figwidth():.0f}rem"

    def save(self, directory: Path) -> None:
        write_atomically(directory / f"{self.name}.png", plots.to_png(self.figure))


@dataclass(frozen=True)
class Slider:
    """Pictures of one size in an order, such as epochs, one shown at a time. Saved as NAME-01.png and so on."""

    kind: ClassVar[str] = "slider"
    name: str
    title: str
    pictures: Sequence[np.ndarray]
    labels: Sequence[str]
    caption: str = ""
    pixels: bool = True

    @functools.cached_property
    def frames(self) -> list[Frame]:
        pairs = zip(self.pictures, self.labels, strict=True)
        return [Frame(pictures.data_uri(picture), label) for picture, label in pairs]

    def save(self, directory: Path) -> None:
        for number, picture in enumerate(self.pictures, start=1):
            pictures.save_png(directory / f"{self.name}-{number:02d}.png", picture)


@dataclass(frozen=True)
class Section:
    """A titled stretch of the page. `numbers` go into report.json under the title."""

    title: str
    parts: Sequence[Any]
    blurb: str = ""
    numbers: Any = None


@dataclass
class Report:
    """A page in the making: add sections, then `save`. `partial`: how far what was interrupted came, in words."""

    title: str
    subtitle: str = ""
    command: str = ""
    sections: list[Section] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    def add(self, section: Section) -> None:
        """Appends a section."""
        self.sections.append(section)

    def html(self) -> str:
        """The page: one self-contained HTML document."""
        return render("page.html.j2", report=self)

    def save(self, directory: str | os.PathLike) -> Path:
        """Writes report.html, report.json and the pictures as PNG into the directory; returns the page's path."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for section in self.sections:
            for part in section.parts:
                if hasattr(part, "save"):
                    part.save(directory)
        numbers = {section.title: section.numbers for section in self.sections if section.numbers is not None}
        about = {"title": self.title, "command": self.command, "partial": self.partial}
        write_json(directory / "report.json", {**about, "sections": numbers})
        page = directory / "report.html"
        write_atomically(page, self.html().encode())
        return page


def render(template: str, **content: Any) -> str:
    """A whole page from one of the templates that extend `base.html.j2`, with the style and the script in it."""
    from markupsafe import Markup

    style, script = (Markup(_template_text(name)) for name in ("style.css", "page.js"))
    return _environment().get_template(template).render(style=style, script=script, version=__version__, **content)


def file_name(text: str) -> str:
    """Words as a part of a file's name: letters, digits, dots and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60] or "unnamed"


def check_directory(directory: str | os.PathLike) -> Path:
    """The directory for a report, made if it is not there; ValueError if it is something else or not writable."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--out {directory} is not a directory") from error
    if not os.access(directory, os.W_OK):
        raise ValueError(f"--out {directory} is not writable")
    if shutil.disk_usage(directory).free < 1 << 20:
        raise ValueError(f"--out {directory} is on a full disk")
    return directory


def _template_text(name: str) -> str:
    return (importlib.resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_text), autoescape=True, undefined=jinja2.StrictUndefined
    )
