"""What the GPU benchmark has time for: its jobs in the order of their importance, how long each may take, and what is
left out when it is late."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, MaxPoolSpec, NormSpec

# Seconds that one problem takes to make, verify and time, and what torch.compile adds where it is a peer: guesses until
# a GPU has been measured. Once a part has run, its later jobs go by what it took.
_SECONDS = {
    "tests": (120.0, 0.0),
    "tune": (1.5, 0.0),
    "conv": (1.5, 0.0),
    "block": (3.0, 12.0),
    "step": (8.0, 40.0),
    "pool": (1.0, 5.0),
    "projection": (15.0, 0.0),
    "occlusion": (10.0, 0.0),
    "norm": (1.0, 10.0),
    "optimizer": (1.0, 0.0),
    "forward": (4.0, 25.0),
}
PARTS = tuple(part for part in _SECONDS if part != "tune")  # the most important first
_IN_EVERY_PRECISION = ("tune", "conv", "block", "step", "forward")

_TESTS_SHARE = 0.3  # of the whole time, at most
_LAST_SECONDS = 5.0  # to write the results
_SAMPLING = (0.5, 5.0)  # seconds of timing a problem, at least and at most


@dataclass(frozen=True)
class Job:
    """A part of the benchmark for one network in one precision (in the setting), and how many problems that are."""

    part: str
    setting: Any
    problems: int

    @property
    def name(self) -> str:
        """As the part is called in the tables."""
        return f"{self.part} {self.setting.precisions[0]}" if self.part in _IN_EVERY_PRECISION else self.part


def plan(parts: Sequence[str], setting: Any) -> list[Job]:
    """The jobs of these parts, one network after the other."""
    jobs = [Job("tests", setting, 1)] if "tests" in parts else []
    for network in setting.networks:
        for part in _SECONDS:
            if part == "tests" or part not in parts:
                continue
            for precision in setting.precisions if part in _IN_EVERY_PRECISION else ("fp32",):
                own = dataclasses.replace(setting, networks=(network,), precisions=(precision,))
                jobs.append(Job(part, own, _count(part, own)))
    return jobs


def _count(part: str, setting: Any) -> int:
    def count(kind: type) -> int:
        return sum(isinstance(layer, kind) for _, network in setting.architectures() for layer in network.layers)

    convs, dense, pools, norms = (count(kind) for kind in (ConvSpec, FullyConnectedSpec, MaxPoolSpec, NormSpec))
    return {
        "tune": 3 * (convs + dense) + 2 * pools,
        "conv": 3 * convs,
        "block": 2 * pools,
        "pool": 2 * pools,
        "norm": 2 * norms,
    }.get(part, 1)


class Schedule:
    """Jobs in a limited time, which began `started` on the clock."""

    def __init__(
        self,
        jobs: Sequence[Job],
        seconds: float,
        clock: Callable[[], float] | None = None,
        started: float | None = None,
    ):
        self.jobs = list(jobs)
        self.seconds = seconds
        self._clock = clock or time.monotonic
        self._started = self._clock() if started is None else started
        self._observed: dict[str, float] = {}
        self.uncompiled: list[str] = []

    @property
    def used(self) -> float:
        return self._clock() - self._started

    @property
    def left(self) -> float:
        return self.seconds - _LAST_SECONDS - self.used

    def cost(self, job: Job) -> float:
        """Seconds for one problem without torch.compile."""
        return self._observed.get(job.part, _SECONDS[job.part][0])

    def estimate(self, jobs: Sequence[Job]) -> float:
        """Seconds for these jobs without torch.compile."""
        return sum(job.problems * self.cost(job) for job in jobs)

    def describe(self) -> str:
        problems = sum(job.problems for job in self.jobs)
        compiling = sum(job.problems * _SECONDS[job.part][1] for job in self.jobs if job.setting.compiled)
        return (
            f"{problems} problems in {len(self.jobs)} jobs, estimated at {self.estimate(self.jobs):.0f} s, "
            f"torch.compile as a peer at {compiling:.0f} s more; {self.seconds:.0f} s are allowed"
        )

    def has_time_for(self, job: Job) -> bool:
        """For one more problem of the job."""
        return self.left >= self.cost(job)

    def decides_to_compile(self, job: Job) -> bool:
        """Whether torch.compile takes part: only where everything of this network can still be measured after it.
        Jobs for which there is no time are remembered in `uncompiled`."""
        extra = job.problems * _SECONDS[job.part][1]
        if not job.setting.compiled or not extra:
            return False
        later = self.jobs[self.jobs.index(job) :]
        network = [other for other in later if other.setting.networks == job.setting.networks]
        if self.left >= self.estimate(network) + extra:
            return True
        self.uncompiled.append(job.name)
        return False

    def sampling(self, job: Job, done: int) -> float:
        """Seconds to time the next problem of the job, of which `done` are done: fewer when late."""
        later = self.jobs[self.jobs.index(job) + 1 :]
        problems = job.problems - done
        spare = self.left - problems * self.cost(job) - self.estimate(later)
        return min(_SAMPLING[1], max(_SAMPLING[0], spare / (problems + sum(job.problems for job in later))))

    def tests_seconds(self) -> float:
        return max(1.0, min(self.left, _TESTS_SHARE * self.seconds))

    def took(self, job: Job, seconds: float, problems: int, compiled: bool) -> None:
        """Remembers how long problems of a part take."""
        if problems and not compiled:
            self._observed[job.part] = seconds / problems
