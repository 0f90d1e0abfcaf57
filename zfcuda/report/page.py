"""The report of a run: one page that carries its pictures, styles and scripts, PNGs and numbers beside it.

A page is a list of sections, a section a list of parts. Names of classes and files may be hostile: all text is escaped
by the templates, all data go through JSON that cannot close its script element, pictures are nothing but pictures, and
the page forbids itself any network.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .._version import __version__
from ..analysis.results import to_plain, write_json
from ..errors import Interrupted
from ..files import read_json, uninterrupted, utf8, write_atomically
from .parts import Chart, Part

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE, NUMBERS, SHOWN = "report.html", "report.json", "page.json"

Found = TypeVar("Found")
Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Section:
    """A titled stretch of the page. `numbers` go into report.json under the title."""

    title: str
    parts: Sequence[Part]
    blurb: str = ""
    numbers: Any = None

    @functools.cached_property
    def shown(self) -> dict[str, Any]:
        """What the page shows of it, as plain JSON: encoded once, however often a report that grows is written."""
        return to_plain({"title": self.title, "blurb": self.blurb, "parts": [part.shown() for part in self.parts]})


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

    def kept(
        self, analysis: Callable[Parameters, Found], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> tuple[Found | None, bool]:
        """(what the analysis found, whether Ctrl-C stopped it). Of one that was stopped it is what it had found by
        then, None if that is nothing, and the report says how much it is."""
        try:
            return analysis(*arguments, **options), False
        except Interrupted as stop:
            found, how_far = stop.result, str(stop)
        self.partial.append(how_far)
        print(f"interrupted: {how_far}", file=sys.stderr)
        return found, True

    def shown(self) -> dict[str, Any]:
        """What the page shows, as plain JSON."""
        return {"partial": list(self.partial), "sections": [section.shown for section in self.sections]}

    def html(self, template: str = "page.html.j2", *, unfinished: str = "") -> str:
        """The page: one self-contained HTML document. One that is `unfinished` says why, and reads itself again."""
        sections = [section.shown for section in self.sections]  # before the SVG: drawing it lays charts out anew
        charts = {part.name: part.svg for section in self.sections for part in section.parts if isinstance(part, Chart)}
        content = render_sections(sections, self.partial, charts=charts)
        return render(template, report=self, content=content, unfinished=unfinished)

    def write_page(self, directory: str | os.PathLike, *, unfinished: str = "") -> Path:
        """Writes report.html alone, whole or not at all; returns its path."""
        path = Path(directory) / PAGE
        write_atomically(path, utf8(self.html(unfinished=unfinished)))
        return path

    def save(self, directory: str | os.PathLike) -> Path:
        """Writes report.html, report.json (the numbers), page.json (what the page shows, for a study) and the pictures
        as PNG into the directory, where the pictures of an earlier report go; returns the page's path. Ctrl-C waits
        until all of it is there."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with uninterrupted():
            names = [name for section in self.sections for part in section.parts for name in part.save(directory)]
            for name in _pictures_in(directory) - set(names):
                with contextlib.suppress(OSError, ValueError):  # gone, or never one
                    (directory / name).unlink()
            numbers = {section.title: section.numbers for section in self.sections if section.numbers is not None}
            about = {"title": self.title, "command": self.command, "partial": self.partial, "pictures": names}
            write_json(directory / NUMBERS, {**about, "sections": numbers})
            write_json(directory / SHOWN, self.shown())
            return self.write_page(directory)


def _pictures_in(directory: Path) -> set[str]:
    """The pictures of the report that lies there, of those beside it; none of what is damaged or another's."""
    try:
        names = read_json(directory / NUMBERS)["pictures"]
        return {name for name in names if name == os.path.basename(name) and name.endswith(".png")}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def render_sections(
    sections: Sequence[Any], partial: Sequence[str], *, prefix: str = "", charts: Mapping[str, str] | None = None
) -> Any:
    """What `Report.shown` says as markup; the sections are called `prefix`s1, `prefix`s2 and so on.

    charts: SVG by the names of charts, trusted as it is; a chart without it is shown as its picture.
    """
    from markupsafe import Markup

    trusted = {name: Markup(svg) for name, svg in (charts or {}).items()}
    template = _environment().get_template("sections.html.j2")
    return Markup(template.render(sections=sections, partial=partial, prefix=prefix, charts=trusted))


def render(template: str, **content: Any) -> str:
    """A whole page from one of the templates that extend `base.html.j2`, with the style and the script in it."""
    from markupsafe import Markup

    style, script = (Markup(_template_text(name)) for name in ("style.css", "page.js"))
    return _environment().get_template(template).render(style=style, script=script, version=__version__, **content)


def _template_text(name: str) -> str:
    return (importlib.resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_text), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["picture"] = _check_picture
    return environment


def _check_picture(address: str) -> str:
    if not address.startswith("data:image/"):
        raise ValueError(f"a picture must carry its own data, got the address {address[:60]!r}")
    return address
