"""What the benchmarks share: cases that are verified before they are timed, rows of results, tables and files.

A benchmark makes `Case`s, hands each with its device's timer to `measure`, and writes the rows with `write_results`.
Speed is a ratio against the fastest peer in the same run; a cell that nobody measured says so.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

NOT_MEASURED = "not measured"

# Milliseconds a call, several samples for each named call.
Timer = Callable[[dict[str, Callable[[], Any]]], dict[str, list[float]]]


@dataclass(frozen=True)
class Ceilings:
    """The most that the machine does, measured in the same run."""

    gflops: float  # of matrix products, in the precision of the run
    gbytes: float  # of a copy, read and written, a second

    def floor_ms(self, flops: float, moved: float) -> float:
        """The least time for this arithmetic and for these bytes, overlapped."""
        return max(flops / self.gflops, moved / self.gbytes) / 1e6


@dataclass(frozen=True)
class Case:
    """One problem, ours and the peers' way to solve it.

    `error` computes ours once and returns its relative error against a reference; `flops` are what the plain algorithm
    needs, `moved` the bytes of every input read once and every output written once. `precision` says which ceiling of
    arithmetic is meant.
    """

    part: str
    problem: str
    flops: float
    moved: float
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    error: Callable[[], float]
    tolerance: float
    precision: str = "fp32"


@dataclass(frozen=True)
class Row:
    """What came out. Times in ms, None where not measured: then `note` says why."""

    part: str
    problem: str
    flops: float
    moved: float
    error: float | None = None
    ours_ms: float | None = None
    spread: float | None = None  # of ours: (3rd - 1st quartile) / median
    peers_ms: dict[str, float | None] = field(default_factory=dict)
    floor_ms: float | None = None
    note: str = ""

    @property
    def best_peer(self) -> tuple[str, float] | None:
        measured = {name: ms for name, ms in self.peers_ms.items() if ms is not None}
        return min(measured.items(), key=lambda item: item[1]) if measured else None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best peer."""
        return self.best_peer[1] / self.ours_ms if self.ours_ms and self.best_peer else None

    @property
    def share(self) -> float | None:
        """Of the machine's ceiling."""
        return self.floor_ms / self.ours_ms if self.ours_ms and self.floor_ms else None


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """norm(a - b) / norm(b) in float64; NaN where either is not finite."""
    expected = np.asarray(expected, np.float64)
    difference = np.linalg.norm(np.asarray(result, np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected)), 1e-300))


def measure(case: Case, timer: Timer, ceilings: Ceilings | None) -> Row:
    """Verifies, then times: a wrong result gets no time, and a peer that fails takes no part."""
    row: dict[str, Any] = {"part": case.part, "problem": case.problem, "flops": case.flops, "moved": case.moved}
    row["peers_ms"] = dict.fromkeys(case.peers)
    try:
        row["error"] = case.error()
    except Exception as failure:
        return Row(**row, note=f"ours fails: {first_line(failure)}")
    if not row["error"] <= case.tolerance:
        return Row(**row, note=f"wrong: error {row['error']:.1e}, at most {case.tolerance:.0e} is allowed")
    calls, notes = {"ours": case.ours}, []
    for name, call in case.peers.items():
        try:
            call()
            calls[name] = call
        except Exception as failure:
            notes.append(f"{name} fails: {first_line(failure)}")
    samples = timer(calls)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    quartiles = statistics.quantiles(samples["ours"], n=4)
    return Row(
        **{**row, "peers_ms": {name: medians.get(name) for name in case.peers}},
        ours_ms=medians["ours"],
        spread=(quartiles[2] - quartiles[0]) / medians["ours"],
        floor_ms=ceilings.floor_ms(case.flops, case.moved) if ceilings else None,
        note="; ".join(notes),
    )


def first_line(failure: Exception) -> str:
    """What went wrong, short enough for a table."""
    return f"{type(failure).__name__}: {failure}".splitlines()[0][:200]


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


# ---- Results -------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """The software and the host: commit, versions, processor."""
    import zfcuda

    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git_commit(),
        "zfcuda": zfcuda.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "numpy": np.__version__,
    }
    distributions = metadata.packages_distributions()
    for module in ("torch", "captum", "cupy"):
        found[module] = metadata.version(distributions[module][0]) if module in distributions else "not installed"
    return found


def _git_commit() -> str:
    repository = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: problem, ours, best peer, ratio, share of the ceiling; geometric means by part at its end."""
    lines = [
        "| part | problem | ours, ms | best peer, ms | times as fast | share of ceiling | error | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        best = f"{row.best_peer[1]:.4g} ({row.best_peer[0]})" if row.best_peer else NOT_MEASURED
        cells = [
            row.part,
            row.problem,
            _cell(row.ours_ms, "{:.4g}") + (f" ± {row.spread / 2:.0%}" if row.spread is not None else ""),
            best,
            _cell(row.ratio, "{:.2f}"),
            _cell(row.share, "{:.0%}") if row.flops or row.moved else "no bound",
            _cell(row.error, "{:.0e}"),
            row.note.replace("|", "/"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for part in dict.fromkeys(row.part for row in rows):
        ratios = [row.ratio for row in rows if row.part == part and row.ratio]
        if len(ratios) > 1:
            lines.append(f"| {part} | geometric mean of {len(ratios)} | | | {geometric_mean(ratios):.2f} | | | |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else form.format(value)


def write_results(
    directory: Path, name: str, title: str, facts: Mapping[str, Any], rows: Sequence[Row]
) -> tuple[Path, Path]:
    """Writes NAME.json and NAME.md, whole or not at all; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    rows_json = [{**asdict(row), "ratio": row.ratio, "share": row.share} for row in rows]
    facts_list = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    contents = {
        directory / f"{name}.json": json.dumps({"environment": dict(facts), "rows": rows_json}, indent=1) + "\n",
        directory / f"{name}.md": f"# {title}\n\n{facts_list}\n\n{table(rows)}",
    }
    for path, text in contents.items():
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        os.replace(temporary, path)
    json_path, markdown_path = contents
    return json_path, markdown_path
