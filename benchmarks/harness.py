"""What the benchmarks share: calls that are verified before they are timed, rows of results, tables and files.

A benchmark makes the `Calls` of a problem, hands them with its device's timer to `measure`, and writes the rows with
`write_results`. Speed is a ratio against the fastest peer in the same run; a cell that nobody measured says so.
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
from typing import Any, NamedTuple

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
class Calls:
    """Ours and the peers' way to solve a problem.

    `error` computes ours once and returns its relative error against a reference; `flops` are what the plain algorithm
    needs, `moved` the bytes of every input read once and every output written once. `peer_share`: the peers solve this
    part of the problem, and their times are scaled.
    """

    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    error: Callable[[], float]
    tolerance: float
    flops: float = 0.0
    moved: float = 0.0
    peer_share: float = 1.0


class Name(NamedTuple):
    """Of a row: what is measured, and in which setting (an allocator of the CPU, a precision of the GPU)."""

    family: str
    problem: str
    direction: str
    setting: str


@dataclass(frozen=True)
class Row:
    """What came out. Times in ms, None where not measured: then `note` says why."""

    family: str
    problem: str
    direction: str
    setting: str
    flops: float = 0.0
    moved: float = 0.0
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


def measure(name: Name, calls: Calls, timer: Timer, ceilings: Ceilings | None) -> Row:
    """Verifies, then times: a wrong result gets no time, and a peer that fails takes no part."""
    row: dict[str, Any] = {**name._asdict(), "flops": calls.flops, "moved": calls.moved}
    row["peers_ms"] = dict.fromkeys(calls.peers)
    try:
        row["error"] = calls.error()
    except Exception as failure:
        return Row(**row, note=f"ours fails: {first_line(failure)}")
    if not row["error"] <= calls.tolerance:
        return Row(**row, note=f"wrong: error {row['error']:.1e}, at most {calls.tolerance:.0e} is allowed")
    timed, notes = {"ours": calls.ours}, []
    for peer, call in calls.peers.items():
        try:
            call()
            timed[peer] = call
        except Exception as failure:
            notes.append(f"{peer} fails: {first_line(failure)}")
    if calls.peer_share != 1:
        notes.append(f"peers: {calls.peer_share:.3g} of the problem, scaled")
    samples = timer(timed)
    medians = {one: statistics.median(times) for one, times in samples.items()}
    quartiles = statistics.quantiles(samples["ours"], n=4)
    peers_ms = {peer: medians[peer] / calls.peer_share if peer in medians else None for peer in calls.peers}
    return Row(
        **{**row, "peers_ms": peers_ms},
        ours_ms=medians["ours"],
        spread=(quartiles[2] - quartiles[0]) / medians["ours"],
        floor_ms=ceilings.floor_ms(calls.flops, calls.moved) if ceilings else None,
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


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *lines])


def table(rows: Sequence[Row]) -> str:
    """In Markdown: problem, ours, best peer, ratio, share of the ceiling."""
    head = ["problem", "direction", "setting", "ours, ms", "best peer, ms", "times as fast", "share of ceiling"]
    return markdown_table([*head, "error", "note"], [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    return [
        f"{row.family} {row.problem}",
        row.direction,
        row.setting,
        _cell(row.ours_ms, "{:.4g}") + (f" ± {row.spread / 2:.0%}" if row.spread is not None else ""),
        f"{row.best_peer[1]:.4g} ({row.best_peer[0]})" if row.best_peer else NOT_MEASURED,
        _cell(row.ratio, "{:.2f}"),
        _cell(row.share, "{:.0%}") if row.flops or row.moved else "no bound",
        _cell(row.error, "{:.0e}"),
        row.note.replace("|", "/"),
    ]


def _cell(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else form.format(value)


def summary(rows: Sequence[Row]) -> str:
    """Geometric mean and lowest ratio of each family and direction and of each direction, by setting; then every row
    below 1."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ratio is not None:
            groups.setdefault((row.family, row.direction), []).append(row)
            groups.setdefault(("all", row.direction), []).append(row)
    lines = [
        [*group, *(_mean_and_lowest([r for r in members if r.setting == setting]) for setting in settings)]
        for group, members in sorted(groups.items(), key=lambda item: item[0][0] == "all")
    ]
    slower = sorted((row for row in rows if row.ratio is not None and row.ratio < 1), key=lambda row: row.ratio or 0)
    return (
        "Times as fast as the best peer: geometric mean, (lowest of) how many.\n\n"
        + markdown_table(["family", "direction", *settings], lines)
        + "\n"
        + (f"Below 1:\n\n{table(slower)}" if slower else "None below 1.\n")
    )


def _mean_and_lowest(rows: Sequence[Row]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if not ratios:
        return NOT_MEASURED
    mean = f"{geometric_mean(ratios):.2f}"
    return mean if len(ratios) == 1 else f"{mean} ({min(ratios):.2f} of {len(ratios)})"


def write_results(path: Path, title: str, facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """PATH.json, a row a line, and PATH.md, each whole or not at all."""
    lines = [json.dumps(_rounded({**asdict(row), "ratio": row.ratio, "share": row.share})) for row in rows]
    environment = json.dumps(dict(facts), indent=1)
    facts_list = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    contents = {
        ".json": '{{"environment": {},\n"rows": [\n{}\n]}}\n'.format(environment, ",\n".join(lines)),
        ".md": f"# {title}\n\n{facts_list}\n\n{summary(rows)}\n{table(rows)}",
    }
    write_files(path, contents)


def write_files(path: Path, contents: Mapping[str, str]) -> None:
    """PATH with each ending, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in contents.items():
        temporary = path.with_name(f".{path.name}{ending}.tmp")
        temporary.write_text(text)
        os.replace(temporary, path.with_name(path.name + ending))


def _rounded(value: Any) -> Any:
    """To five digits, which is more than a measurement has."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
