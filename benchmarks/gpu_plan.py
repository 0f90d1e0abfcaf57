"""What the GPU benchmark has time for: its jobs in the order of their importance, how long each may take, and what is
left out when it is late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cases

_CONV = ("fprop", "dgrad", "image dgrad", "wgrad")
_DENSE = ("dense fprop", "dense dgrad", "dense wgrad")
_BLOCK = ("block", "block grad")

# The directions of each part, the most important parts first; of `tune`, those whose plans are tuned.
_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "tune": (*_CONV, *_DENSE, *_BLOCK),
    "conv": _CONV,
    "block": _BLOCK,
    "step": ("step",),
    "pool": ("pool", "unpool", "average", "average grad"),
    "projection": ("projection",),
    "occlusion": ("occlusion",),
    "depthwise": ("depthwise fprop", "depthwise dgrad", "depthwise wgrad"),
    "norm": ("norm", "norm grad", "batchnorm", "batchnorm training", "batchnorm grad"),
    "joint": ("add", "concat"),
    "optimizer": ("sgd",),
    "forward": ("forward",),
    "dense": _DENSE,
}
PARTS = ("tests", *(part for part in _DIRECTIONS if part != "tune"))
_IN_EVERY_PRECISION = ("tune", "conv", "block", "step", "forward", "dense")

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
    "depthwise": (1.0, 5.0),
    "norm": (1.0, 10.0),
    "joint": (1.0, 5.0),
    "optimizer": (1.0, 0.0),
    "forward": (4.0, 25.0),
    "dense": (1.0, 0.0),
}

_TESTS_SHARE = 0.3  # of the whole time, at most
_LAST_SECONDS = 5.0  # to write the results
_SAMPLING = (0.5, 5.0)  # seconds of timing a problem, at least and at most


@dataclass(frozen=True)
class Job:
    """A part of the benchmark for one family in one precision; `compiles`: with torch.compile as a peer."""

    part: str
    family: str = ""
    precision: str = ""
    problems: tuple[cases.Problem, ...] = ()
    compiles: bool = False

    @property
    def name(self) -> str:
        return f"{self.family} {self.part} {self.precision}"

    @property
    def count(self) -> int:
        """Of problems; the tests are one."""
        return len(self.problems) or 1


def plan(
    parts: Sequence[str], families: Sequence[str], precisions: Sequence[str], batch: int, *, compiles: bool = True
) -> list[Job]:
    """The jobs of these parts, one family after the other."""
    jobs = [Job("tests")] if "tests" in parts else []
    for family in families:
        own = cases.problems([case.with_batch(batch) for case in cases.CASES if case.family == family])
        for part, directions in _DIRECTIONS.items():
            problems = tuple(problem for problem in own if problem.direction in directions)
            if part == "tune" and not any(isinstance(problem.case, cases.Net) for problem in own):
                continue
            if part in parts and problems:
                every = precisions if part in _IN_EVERY_PRECISION else ["fp32"]
                jobs += [Job(part, family, precision, problems, compiles) for precision in every]
    return jobs


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
        return sum(job.count * self.cost(job) for job in jobs)

    def describe(self) -> str:
        problems = sum(job.count for job in self.jobs)
        compiling = sum(job.count * _SECONDS[job.part][1] for job in self.jobs if job.compiles)
        return (
            f"{problems} problems in {len(self.jobs)} jobs, estimated at {self.estimate(self.jobs):.0f} s, "
            f"torch.compile as a peer at {compiling:.0f} s more; {self.seconds:.0f} s are allowed"
        )

    def has_time_for(self, job: Job) -> bool:
        """For one more problem of the job."""
        return self.left >= self.cost(job)

    def decides_to_compile(self, job: Job) -> bool:
        """Whether torch.compile takes part: only where everything of this family can still be measured after it.
        Jobs for which there is no time are remembered in `uncompiled`."""
        extra = job.count * _SECONDS[job.part][1]
        if not job.compiles or not extra:
            return False
        later = self.jobs[self.jobs.index(job) :]
        family = [other for other in later if other.family == job.family]
        if self.left >= self.estimate(family) + extra:
            return True
        self.uncompiled.append(job.name)
        return False

    def sampling(self, job: Job, done: int) -> float:
        """Seconds to time the next problem of the job, of which `done` are done: fewer when late."""
        later = self.jobs[self.jobs.index(job) + 1 :]
        problems = job.count - done
        spare = self.left - problems * self.cost(job) - self.estimate(later)
        return min(_SAMPLING[1], max(_SAMPLING[0], spare / (problems + sum(job.count for job in later))))

    def tests_seconds(self) -> float:
        return max(1.0, min(self.left, _TESTS_SHARE * self.seconds))

    def took(self, job: Job, seconds: float, problems: int, compiled: bool) -> None:
        """Remembers how long problems of a part take."""
        if problems and not compiled:
            self._observed[job.part] = seconds / problems
