"""The page of a study: what several runs show, on one self-contained page, made of the JSON that each run left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..analysis.results import write_json
from ..errors import DataError
from ..files import read_json, uninterrupted, utf8, write_atomically
from .page import NUMBERS, PAGE, SHOWN, Report, render, render_sections


class Run(NamedTuple):
    """One run's report: its title, the command that made it, all its numbers, and its sections as markup."""

    title: str
    command: str
    numbers: dict[str, Any]
    sections: Any


def read_run(directory: str | os.PathLike, number: int) -> Run:
    """The report in a directory, as the `number`-th of a page. `DataError` if there is none, or it is not zfcuda's."""
    from jinja2 import TemplateError

    directory = Path(directory)
    try:
        numbers, shown = (read_json(directory / name) for name in (NUMBERS, SHOWN))
        sections = render_sections(shown["sections"], shown["partial"], prefix=f"r{number}")
        return Run(numbers["title"], numbers["command"], numbers, sections)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TemplateError) as error:
        raise DataError(f"{directory} holds no report of zfcuda, or an older one's ({error})") from error


def join(directories: Sequence[str | os.PathLike], out: str | os.PathLike, title: str = "A study") -> Path:
    """Writes out/report.html with the sections of every run, folded, and out/report.json with all their numbers."""
    if not directories:
        raise ValueError("directories is empty: there is nothing to join")
    runs = [read_run(directory, number) for number, directory in enumerate(directories, start=1)]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    report = Report(title, f"{len(runs)} runs in one page.")
    with uninterrupted():
        write_json(out / NUMBERS, {"title": title, "runs": [run.numbers for run in runs]})
        write_atomically(out / PAGE, utf8(render("study.html.j2", report=report, runs=runs)))
    return out / PAGE
