"""What the benchmarks share: calls that are verified before they are timed, and rows of results.

A benchmark makes the `Calls` of a problem and hands them with its device's timer to `measure`; `record` keeps the rows.
Speed is a ratio against the fastest peer in the same run; a cell that nobody measured says so.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

NOT_MEASURED = "not measured"

# The direction of rows that say whether an operation works, and have no time.
SMOKE = "smoke"

# How the warnings of zfcuda.nn.capture begin.
NO_GRAPH = "no CUDA graph"

Call = Callable[[], Any]

# Milliseconds a call, several samples for each named call.
Timer = Callable[[dict[str, Call]], dict[str, list[float]]]


class Graphs(Protocol):
    """How calls become CUDA graphs. Either makes of a call one that launches its graph and returns the same result, in
    memory of the graph; it raises where the call cannot be captured."""

    def ours(self, call: Call) -> Call: ...

    def peer(self, call: Call) -> Call: ...

    def spoil(self, results: Any) -> None:
        """Overwrites the arrays of a result."""
        ...

    def host_us(self, call: Call) -> float:
        """Microseconds of the host for a call, which it does not wait for."""
        ...


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

    `error` is that of a result of ours, relative to a reference, and `alike` how far a peer's result is from ours: a
    peer that is further off than `peers_may` takes no part. `prepare` puts the arrays that calls change back to what
    they were, for the calls whose results are to be judged. `flops` are what the plain algorithm needs, `moved` the
    bytes of every input read once and every output written once. `peer_share`: the peers solve this part of the
    problem, and their times are scaled.

    `captured`: the calls can be CUDA graphs, as those that wait for the GPU cannot. `own_graph`: ours where it makes
    its graph itself (in its second call); `ours` then is the same without, and verified, too.
    """

    ours: Call
    peers: Mapping[str, Call]
    error: Callable[[Any], float]
    tolerance: float
    alike: Callable[[Any, Any], float]
    peers_may: float
    flops: float = 0.0
    moved: float = 0.0
    peer_share: float = 1.0
    prepare: Call = lambda: None
    captured: bool = True
    own_graph: Call | None = None


class Name(NamedTuple):
    """Of a row: what is measured, and in which setting (an allocator of the CPU, a precision of the GPU)."""

    family: str
    problem: str
    direction: str
    setting: str


@dataclass(frozen=True)
class Row:
    """What came out. Times in ms, None where not measured: then `note` says why. On a GPU both sides are launched as
    CUDA graphs; `plain_ms` and `host_us` are of plain calls, by name, ours among them."""

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
    plain_ms: dict[str, float] = field(default_factory=dict)
    host_us: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> Name:
        return Name(self.family, self.problem, self.direction, self.setting)

    @property
    def best_peer(self) -> tuple[str, float] | None:
        measured = {name: ms for name, ms in self.peers_ms.items() if ms is not None}
        return min(measured.items(), key=lambda item: item[1]) if measured else None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best peer."""
        return self.best_peer[1] / self.ours_ms if self.ours_ms and self.best_peer else None

    @property
    def plain_ratio(self) -> float | None:
        """The same of plain calls."""
        peers = [ms for name, ms in self.plain_ms.items() if name != "ours"]
        return min(peers) / self.plain_ms["ours"] if peers and "ours" in self.plain_ms else None

    @property
    def share(self) -> float | None:
        """Of the machine's ceiling."""
        return self.floor_ms / self.ours_ms if self.ours_ms and self.floor_ms else None


def check_shapes(result: Sequence[int], expected: Sequence[int]) -> None:
    """ValueError where they differ: a difference of the two would be of another shape, or of nothing."""
    if tuple(result) != tuple(expected):
        raise ValueError(f"a result of shape {tuple(result)}, not {tuple(expected)}")


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """norm(a - b) / norm(b) in float64; NaN where either is not finite. ValueError where shapes differ."""
    expected = np.asarray(expected, np.float64)
    check_shapes(np.shape(result), expected.shape)
    difference = np.linalg.norm(np.asarray(result, np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected)), 1e-300))


def measure(name: Name, calls: Calls, timer: Timer, ceilings: Ceilings | None, graphs: Graphs | None = None) -> Row:
    """Verifies, then times what was verified: a wrong result gets no time, and a peer that fails takes no part. With
    `graphs` the launched graph is verified, before and after it was timed: not by what an earlier launch has left."""
    row: dict[str, Any] = {**name._asdict(), "flops": calls.flops, "moved": calls.moved}
    row["peers_ms"] = dict.fromkeys(calls.peers)
    notes: list[str] = []
    whose = "ours"
    with warnings.catch_warnings(record=True) as warned:
        warnings.filterwarnings("always", message=NO_GRAPH)
        try:
            launched = _ours(calls, graphs, notes)
            row["error"] = calls.error(_judged(calls, launched, graphs))
            if row["error"] <= calls.tolerance:
                timed = {"ours": launched, **_peers(calls, launched, graphs, notes)}
                whose = "timing"  # of ours, or of any peer
                row |= _times(calls, timer(timed))
                if graphs:
                    row |= _plain(calls, {peer for peer in timed if peer != "ours"}, timer, graphs)
                    whose = "ours"
                    again = [launched, *([calls.ours] if calls.own_graph else [])]
                    errors = [calls.error(_judged(calls, one, graphs)) for one in again]
                    row["error"] = max(row["error"], *errors, key=_badness)
        except Exception as failure:
            return Row(**{**row, "ours_ms": None}, note=f"{whose} fails: {first_line(failure)}")
    if not row["error"] <= calls.tolerance:
        row = {key: row[key] for key in (*Name._fields, "flops", "moved", "error", "peers_ms")}
        return Row(**row, note=f"wrong: error {row['error']:.1e}, at most {calls.tolerance:.0e} is allowed")
    fell_back = [str(one.message) for one in warned if str(one.message).startswith(NO_GRAPH)]
    notes += dict.fromkeys(message.splitlines()[0][:200] for message in fell_back)
    floor = ceilings.floor_ms(calls.flops, calls.moved) if ceilings else None
    return Row(**row, floor_ms=floor, note="; ".join(notes))


def _badness(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _judged(calls: Calls, launched: Call, graphs: Graphs | None) -> Any:
    """What a call computes now. A graph's results lie where those of its last launch lay: one that does nothing, since
    the work ran beside the capture, would return them."""
    if graphs and calls.captured:
        graphs.spoil(launched())
    calls.prepare()
    return launched()


def _ours(calls: Calls, graphs: Graphs | None, notes: list[str]) -> Call:
    """What is verified and timed."""
    if not graphs:
        return calls.ours
    if calls.own_graph:
        for _ in range(2):
            calls.own_graph()
        return calls.own_graph
    return _as_graph(graphs.ours, calls.ours, "", notes) if calls.captured else calls.ours


def _as_graph(capture: Callable[[Call], Call], call: Call, whose: str, notes: list[str]) -> Call:
    try:
        return capture(call)
    except Exception as failure:
        notes.append(f"{whose}{NO_GRAPH}: {first_line(failure)}")
        return call


def _peers(calls: Calls, ours: Call, graphs: Graphs | None, notes: list[str]) -> dict[str, Call]:
    """Those that do not fail and are not wrong."""
    found = {}
    for peer, call in calls.peers.items():
        launched = _as_graph(graphs.peer, call, f"{peer}: ", notes) if graphs and calls.captured else call
        try:
            error = calls.alike(_judged(calls, launched, graphs), ours())
            if error <= calls.peers_may:
                found[peer] = launched
            else:
                notes.append(f"{peer} is wrong: {error:.1e} from ours")
        except Exception as failure:
            notes.append(f"{peer} fails: {first_line(failure)}")
    if calls.peer_share != 1:
        notes.append(f"peers: {calls.peer_share:.3g} of the problem, scaled")
    return found


def _times(calls: Calls, samples: Mapping[str, list[float]]) -> dict[str, Any]:
    medians = {one: statistics.median(times) for one, times in samples.items()}
    quartiles = statistics.quantiles(samples["ours"], n=4)
    return {
        "ours_ms": medians["ours"],
        "spread": (quartiles[2] - quartiles[0]) / medians["ours"],
        "peers_ms": {peer: medians[peer] / calls.peer_share if peer in medians else None for peer in calls.peers},
    }


def _plain(calls: Calls, peers: set[str], timer: Timer, graphs: Graphs) -> dict[str, Any]:
    """The times of plain calls, and the host's share in them; of calls that are no graphs, they are timed already."""
    if not calls.captured:
        return {}
    plain = {"ours": calls.ours, **{name: call for name, call in calls.peers.items() if name in peers}}
    return {
        "plain_ms": {name: statistics.median(samples) for name, samples in timer(plain).items()},
        "host_us": {name: graphs.host_us(call) for name, call in plain.items()},
    }


def first_line(failure: Exception) -> str:
    """What went wrong, short enough for a table."""
    return f"{type(failure).__name__}: {failure}".splitlines()[0][:200]


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
