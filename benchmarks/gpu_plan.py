"""What the GPU benchmark has time for: its jobs in the order of their importance, how long each may take, and what is
left out when it is late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cases

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Part:
    """directions: of its problems. Seconds that one problem takes to make, verify and time, and what each mode of
    torch.compile (`setting.COMPILED`) adds: guesses until a GPU has been measured."""

    directions: tuple[str, ...]
    seconds: float
    precisions: tuple[str, ...] = ("fp32",)
    compiling: tuple[float, ...] = ()


_CONV = ("fprop", "dgrad", "image dgrad", "wgrad")
_DENSE = ("dense fprop", "dense dgrad", "dense wgrad")
_BLOCK = ("block", "block grad")
_NORM = ("norm", "norm grad", "batchnorm", "batchnorm training", "batchnorm grad")
_STORED = ("fp32", "bf16")  # where TF32 makes no difference

# The most important first; `tune` has the problems whose plans are tuned.
_PARTS = {
    "tune": Part((*_CONV, *_DENSE, *_BLOCK), 1.5, PRECISIONS),
    "conv": Part(_CONV, 1.5, PRECISIONS),
    "block": Part(_BLOCK, 2.5, PRECISIONS, (6.0, 20.0)),
    "pool": Part(("pool", "unpool", "average", "average grad"), 1.0, _STORED, (3.0, 5.0)),
    "norm": Part(_NORM, 1.0, _STORED, (4.0, 8.0)),
    "joint": Part(("add", "concat", "residual"), 1.0, _STORED, (3.0, 5.0)),
    "depthwise": Part(("depthwise fprop", "depthwise dgrad", "depthwise wgrad"), 1.0, compiling=(3.0, 5.0)),
    "optimizer": Part(("sgd",), 1.0),
    "step": Part(("step",), 8.0, PRECISIONS, (20.0, 60.0)),
    "forward": Part(("forward",), 4.0, PRECISIONS, (12.0, 40.0)),
    "dense": Part(_DENSE, 1.0, PRECISIONS),
    "projection": Part(("projection",), 15.0),
    "occlusion": Part(("occlusion",), 10.0),
    "curves": Part(("curves",), 15.0),
}
PARTS = tuple(part for part in _PARTS if part != "tune")

_LAST_SECONDS = 5.0  # to write the results
_START_SECONDS = 4.0  # of a process: the GPU's context and the libraries' kernels
_SAMPLING = (0.25, 2.5)  # seconds of timing a problem, at least and at most
_PATIENCE = 4.0, 30.0  # a problem may take so many times its estimate, and so many seconds more


@dataclass(frozen=True)
class Job:
    """A part of the benchmark for one family in one precision; `compiles`: with torch.compile as a peer."""

    part: str
    family: str
    precision: str
    problems: tuple[cases.Problem, ...]
    compiles: bool = False

    @property
    def name(self) -> str:
        return f"{self.family} {self.part} {self.precision}"

    @property
    def every_mode(self) -> int:
        """How many modes of torch.compile there are for it."""
        return len(_PARTS[self.part].compiling)

    @property
    def modes(self) -> int:
        """How many of them can be peers."""
        return self.every_mode if self.compiles else 0


def plan(
    parts: Sequence[str], families: Sequence[str], precisions: Sequence[str], batch: int, *, compiles: bool = True
) -> list[Job]:
    """The jobs of these parts, one family after the other. What is there in float32 alone is measured in it."""
    jobs = []
    for family in families:
        own = cases.problems([case.with_batch(batch) for case in cases.CASES if case.family == family])
        for name, part in _PARTS.items():
            problems = tuple(problem for problem in own if problem.direction in part.directions)
            if name == "tune" and not any(isinstance(problem.case, cases.Net) for problem in own):
                continue
            if name in parts and problems:
                every = [one for one in precisions if one in part.precisions] or ["fp32"]
                jobs += [Job(name, family, precision, problems, compiles) for precision in every]
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
        self._observed: dict[tuple[str, int], float] = {}

    @property
    def used(self) -> float:
        return self._clock() - self._started

    @property
    def left(self) -> float:
        return self.seconds - _LAST_SECONDS - self.used

    def processes(self) -> list[list[Job]]:
        """The jobs that one process does: those of a part of a family."""
        found: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            found.setdefault((job.family, job.part), []).append(job)
        return list(found.values())

    def cost(self, job: Job, modes: int = 0) -> float:
        """Seconds for one problem with so many modes of torch.compile; once there was one, by what it took."""
        part = _PARTS[job.part]
        return self._observed.get((job.part, modes), part.seconds + sum(part.compiling[:modes]))

    def estimate(self, jobs: Sequence[Job]) -> float:
        """Seconds for these jobs without torch.compile."""
        parts = {(job.family, job.part) for job in jobs}
        return sum(len(job.problems) * self.cost(job) for job in jobs) + _START_SECONDS * len(parts)

    def compiling(self, jobs: Sequence[Job]) -> float:
        """Seconds for torch.compile, once more for each further mode."""
        return sum(len(job.problems) * self.cost(job, modes) for job in jobs for modes in range(1, job.modes + 1))

    def describe(self) -> str:
        problems = sum(len(job.problems) for job in self.jobs)
        return (
            f"{problems} problems in {len(self.jobs)} jobs, estimated at {self.estimate(self.jobs):.0f} s, "
            f"torch.compile as a peer at {self.compiling(self.jobs):.0f} s more; {self.seconds:.0f} s are allowed"
        )

    def has_time_for(self, job: Job) -> bool:
        """For one more problem of the job."""
        return self.left >= self.cost(job)

    def limit(self) -> float:
        """Seconds after which the time of a process is over."""
        return max(0.0, self.left + _LAST_SECONDS / 2)

    def patience(self, jobs: Sequence[Job], *, compiling: bool) -> float:
        """Seconds after which a problem of these jobs hangs, with all modes of torch.compile or with none."""
        return _PATIENCE[0] * max(self.cost(job, job.modes if compiling else 0) for job in jobs) + _PATIENCE[1]

    def has_time_to_compile(self, job: Job, modes: int, last: Job) -> bool:
        """With so many modes: only where everything of this family after the `last` job of this process, in which all
        has been measured without, can still be measured."""
        later = [other for other in self.jobs[self.jobs.index(last) + 1 :] if other.family == job.family]
        return self.left >= self.estimate(later) + len(job.problems) * self.cost(job, modes)

    def sampling(self, job: Job, done: int) -> float:
        """Seconds to time the next problem of the job, of which `done` are done: fewer when late."""
        later = self.jobs[self.jobs.index(job) + 1 :]
        problems = len(job.problems) - done
        spare = self.left - problems * self.cost(job) - self.estimate(later)
        return min(_SAMPLING[1], max(_SAMPLING[0], spare / (problems + sum(len(one.problems) for one in later))))

    def took(self, job: Job, modes: int, seconds: float, problems: int) -> None:
        """Remembers how long problems of a part take."""
        self._observed[job.part, modes] = seconds / problems
