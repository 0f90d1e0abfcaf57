"""What a run leaves behind: what it was made with, its rows as they come, and tables of them.

A GPU's run goes into a folder (`Record`): `rows.jsonl`, a row a line, written one by one; `facts.json`; and
`table.md`, which is made of the two. Of rows with one name, the last counts.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from harness import NOT_MEASURED, SMOKE, Name, Row, geometric_mean


def environment() -> dict[str, str]:
    """The software and the host: what zfcuda was built of and where it lies, versions, processor."""
    import zfcuda
    from zfcuda._build_info import BUILD

    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **{what: value for what, value in BUILD.items() if value},
        "zfcuda": f"{zfcuda.__version__}, in {Path(zfcuda.__file__).parent}",
        "python": platform.python_version(),
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "numpy": np.__version__,
    }
    distributions = metadata.packages_distributions()
    for module in ("torch", "captum", "cupy"):
        found[module] = metadata.version(distributions[module][0]) if module in distributions else "not installed"
    return found


def _processor() -> str:
    """Its name, and what tells generations apart that share one."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        return f"{found['model name']}, family {found['cpu family']}, model {found['model']}"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


# ---- Tables ----------------------------------------------------------------------------------------------------------


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *lines])


def table(rows: Sequence[Row]) -> str:
    """In Markdown: problem, ours, best peer, ratio, share of the ceiling; of a GPU, the same of plain calls."""
    head = ["problem", "direction", "setting", "ours, ms", "best peer, ms", "times as fast", "share of ceiling"]
    of_gpu = any(row.plain_ms for row in rows)
    head += ["plain calls, ms: ours, peer", "times as fast", "host, us: ours, peer"] if of_gpu else []
    return markdown_table([*head, "error", "note"], [_cells(row, of_gpu) for row in rows])


def _cells(row: Row, of_gpu: bool) -> list[str]:
    cells = [
        f"{row.family} {row.problem}",
        row.direction,
        row.setting,
        _cell(row.ours_ms, "{:.4g}") + (f" ± {row.spread / 2:.0%}" if row.spread is not None else ""),
        f"{row.best_peer[1]:.4g} ({row.best_peer[0]})" if row.best_peer else NOT_MEASURED,
        _cell(row.ratio, "{:.2f}"),
        _cell(row.share, "{:.0%}") if row.flops or row.moved else "no bound",
    ]
    if of_gpu:
        cells += [_both(row.plain_ms), _cell(row.plain_ratio, "{:.2f}"), _both(row.host_us)]
    return [*cells, _cell(row.error, "{:.0e}"), row.note.replace("|", "/")]


def _both(times: Mapping[str, float]) -> str:
    """Ours, and the best of the peers'."""
    peers = [time for name, time in times.items() if name != "ours"]
    return ", ".join([f"{times['ours']:.4g}", *([f"{min(peers):.4g}"] if peers else [])]) if times else NOT_MEASURED


def _cell(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else form.format(value)


def summary(rows: Sequence[Row]) -> str:
    """Geometric mean and lowest ratio of each family and direction and of each direction, by setting; then every row
    below 1, and how many have no ratio: not measured, or without a peer that is right."""
    settings = list(dict.fromkeys(row.setting for row in rows if row.ratio is not None))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ratio is not None:
            groups.setdefault((row.family, row.direction), []).append(row)
            groups.setdefault(("all", row.direction), []).append(row)
    lines = [
        [*group, *(_mean_and_lowest([r for r in members if r.setting == setting]) for setting in settings)]
        for group, members in sorted(groups.items(), key=lambda item: item[0][0] == "all")
    ]
    timed = [row for row in rows if row.direction != SMOKE or row.note]
    without = [" ".join((f"{row.family} {row.problem}", row.direction, row.setting)) for row in timed if not row.ratio]
    slower = sorted((row for row in rows if row.ratio is not None and row.ratio < 1), key=lambda row: row.ratio or 0)
    return (
        "Times as fast as the best peer: geometric mean, (lowest of) how many.\n\n"
        + markdown_table(["family", "direction", *settings], lines)
        + "\n"
        + (f"Below 1:\n\n{table(slower)}" if slower else "None below 1.\n")
        + (f"\nWithout a ratio, of {len(timed)} rows: {'; '.join(without)}.\n" if without else "")
    )


def _mean_and_lowest(rows: Sequence[Row]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if not ratios:
        return NOT_MEASURED
    mean = f"{geometric_mean(ratios):.2f}"
    return mean if len(ratios) == 1 else f"{mean} ({min(ratios):.2f} of {len(ratios)})"


# ---- Files -----------------------------------------------------------------------------------------------------------


def refuse_unwritable(parser: argparse.ArgumentParser, folder: Path | None) -> None:
    """A wrong argument, before anything is measured that could not be written there."""
    if folder is None:
        return
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        parser.error(f"--out: nothing can be written to {folder}: {error.strerror}")


class BusyError(RuntimeError):
    """Another run adds to the folder; the message says so."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The only run that adds to this folder meanwhile, which is made: what two drop and add at once gets lost, and what
    they time on one GPU is of both. Processes of this one count as part of it until they have ended."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another run, or a process that it has left, adds to {folder}") from None
        except OSError as error:  # a file system without locks
            print(f"{folder} cannot be locked: {error}")
        yield


def write_results(path: Path, title: str, facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """PATH.json, a row a line, and PATH.md, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_rounded({**asdict(row), "ratio": row.ratio, "share": row.share})) for row in rows]
    environment = json.dumps(dict(facts), indent=1)
    write_whole(
        path.with_name(f"{path.name}.json"), f'{{"environment": {environment},\n"rows": [\n{_JOIN.join(lines)}\n]}}\n'
    )
    write_whole(path.with_name(f"{path.name}.md"), _page(title, facts, rows))


_JOIN = ",\n"


def _page(title: str, facts: Mapping[str, Any], rows: Sequence[Row]) -> str:
    listed = "\n".join(f"- {key}: {_said(value)}" for key, value in facts.items())
    return f"# {title}\n\n{listed}\n\n{summary(rows)}\n{table(rows)}"


def _said(value: Any) -> str:
    return "; ".join(f"{key}: {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


def write_whole(path: Path, text: str) -> None:
    """Or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _rounded(value: Any) -> Any:
    """To five digits, which is more than a measurement has."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _line(row: Row) -> str:
    return json.dumps(_rounded(asdict(row))) + "\n"


def _row(line: str) -> Row | None:
    """None where it is no row."""
    try:
        return Row(**json.loads(line))
    except (ValueError, TypeError):
        return None


_TABLE = "table.md"


def _with_ending(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


# The facts that all rows of a folder share: the GPU and what it may do, what was built of what, the peers, the host.
_ORIGIN = (
    *("name", "driver", "memory, MiB", "power limit, W", "processor", "processors"),
    *("commit", "CUDA compiler, architectures, flags", "CUDA machine code"),
    *("torch", "captum", "cupy"),
)


class Record:
    """A folder with the results of one GPU, to which one process after the other may add."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._rows, self._facts = folder / "rows.jsonl", folder / "facts.json"
        self._repair()

    def _repair(self) -> None:
        """Drops what a run that was killed left half written, and says so."""
        text = self._rows.read_text(errors="replace") if self._rows.exists() else ""
        lines = text.splitlines()
        whole = [line for line in lines if _row(line)]
        if len(whole) < len(lines):
            print(f"{self._rows}: {len(lines) - len(whole)} of {len(lines)} rows cannot be read and are dropped")
        if text != "".join(f"{line}\n" for line in whole):
            write_whole(self._rows, "".join(f"{line}\n" for line in whole))
        try:
            if not isinstance(self.facts(), dict):
                raise ValueError("it is no object")
        except ValueError as error:
            print(f"{self._facts} cannot be read and is dropped: {error}")
            self._facts.unlink()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Notes the facts of a run that adds to this folder. What is there of another GPU, build or peer (`_ORIGIN`)
        goes out of its way: into files that end in .old, or .old1 and so on where there are such."""
        before, unknown = self.facts(), bool(self.rows())  # the origin of rows, where facts do not say it
        given = [name for name in _ORIGIN if name in facts and (name in before or unknown)]
        changed = [name for name in given if before.get(name) != facts[name]]
        if changed:
            told = ", ".join(f"{name} {before.get(name)}, not {facts.get(name)}" for name in changed)
            paths = self._rows, self._facts, self.folder / _TABLE
            endings = (f".old{number or ''}" for number in itertools.count())
            ending = next(one for one in endings if not any(_with_ending(path, one).exists() for path in paths))
            print(f"{self.folder} has results of {told}: they are kept in files that end in {ending}")
            for path in paths:
                if path.exists():
                    os.replace(path, _with_ending(path, ending))
        self.note(facts)

    def drop(self, is_old: Callable[[Row], bool]) -> None:
        """Forgets these rows, which are measured again."""
        rows = self.rows()
        kept = [row for row in rows if not is_old(row)]
        if len(kept) < len(rows):
            write_whole(self._rows, "".join(map(_line, kept)))

    def add(self, row: Row) -> None:
        with self._rows.open("a") as file:
            file.write(_line(row))

    def note(self, facts: Mapping[str, Any]) -> None:
        """Adds facts, or puts them in the place of what was said; None: nothing is said any more."""
        found = {name: value for name, value in (self.facts() | dict(facts)).items() if value is not None}
        write_whole(self._facts, json.dumps(found, indent=1) + "\n")

    def facts(self) -> dict[str, Any]:
        return json.loads(self._facts.read_text()) if self._facts.exists() else {}

    def rows(self) -> list[Row]:
        """The last of each name, in the order in which the names came first."""
        found: dict[Name, Row] = {}
        for line in self._rows.read_text().splitlines() if self._rows.exists() else []:
            if row := _row(line):
                found[row.name] = row
        return list(found.values())

    def write(self, title: str) -> Path:
        """The table of all that is there; returns its path."""
        path = self.folder / _TABLE
        write_whole(path, _page(title, self.facts(), self.rows()))
        return path
