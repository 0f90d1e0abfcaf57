"""The page of a study: the reports of several runs joined into one self-contained page."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..files import write_atomically
from .page import Report, render

_SECTIONS = re.compile(r"<main[^>]*>\n(.*)</main>", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One run's report: its title, the command that made it, and its sections as HTML."""

    directory: Path
    title: str
    command: str
    html: str


def read_run(directory: str | os.PathLike, number: int) -> Run:
    """The report in a directory, as the `number`-th of a page. `DataError` if there is none, or it is not zfcuda's."""
    from markupsafe import Markup

    directory = Path(directory)
    try:
        about = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        page = (directory / "report.html").read_text(encoding="utf-8")
        title, command = str(about["title"]), str(about["command"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory} holds no report of zfcuda ({error})") from error
    found = _SECTIONS.search(page)
    if found is None:
        raise DataError(f"{directory / 'report.html'} is no report of zfcuda, or an older one's")
    # Sections are s1, s2, ... in every run; here they are told apart.
    html = re.sub(r'<section id="s(\d+)">', rf'<section id="r{number}s\1">', found.group(1))
    return Run(directory, title, command, Markup(html))


def join(directories: Sequence[str | os.PathLike], out: str | os.PathLike, title: str = "A study") -> Path:
    """Writes out/report.html with the sections of every run, folded, and out/report.json with all their numbers."""
    if not directories:
        raise ValueError("directories is empty: there is nothing to join")
    runs = [read_run(directory, number) for number, directory in enumerate(directories, start=1)]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    numbers = [json.loads((run.directory / "report.json").read_text(encoding="utf-8")) for run in runs]
    report = Report(title, f"{len(runs)} runs in one page.")
    write_atomically(out / "report.json", (json.dumps({"title": title, "runs": numbers}, indent=1) + "\n").encode())
    path = out / "report.html"
    write_atomically(path, render("study.html.j2", report=report, runs=runs).encode())
    return path
