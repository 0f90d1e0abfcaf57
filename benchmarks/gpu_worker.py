"""What a process of the GPU benchmark does: each function here is the whole work of one, and sends what it finds.

`device` is gpu_device or gpu_rehearsal.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cases
import gpu_smoke
import harness
from gpu_plan import Job, Schedule
from harness import Ceilings, Name, Row
from processes import OUT_OF_TIME, Send


class Took(NamedTuple):
    """How long problems of a job took, with so many modes of torch.compile."""

    job: Job
    modes: int
    seconds: float
    problems: int


class Uncompiled(NamedTuple):
    """There was no time for so many modes of torch.compile in this job."""

    job: Job
    modes: int


def setting_of(job: Job, tuned: bool) -> str:
    return f"{job.precision}, tuned" if tuned and job.part != "tune" else job.precision


def name_of(job: Job, problem: Any, tuned: bool) -> Name:
    if job.part == "tune":
        return Name(job.family, str(problem), job.part, job.precision)
    return Name(job.family, problem.case.label, problem.direction, setting_of(job, tuned))


def is_of(job: Job, row: Row, tuned: bool) -> bool:
    """Whether it is a row of this job, or says what of it was not measured."""
    about = row.ours_ms is None and (row.family, row.direction, row.setting) == (
        job.family,
        job.part,
        setting_of(job, tuned),
    )
    return about or row.name in {name_of(job, problem, tuned) for problem in job.problems}


def left_out(job: Job, done: int, why: str, tuned: bool, *, of: int | None = None) -> Row:
    """of: how many problems it has, where those are not its `problems`."""
    every = len(job.problems) if of is None else of
    what = f"{every - done} of {every} problems"
    return Row(job.family, what, job.part, setting_of(job, tuned), note=f"{harness.NOT_MEASURED}: {why}")


def make(problem: cases.Problem, setting: Any) -> harness.Calls:
    import analyses
    import graph_layers
    import layers
    import networks
    import torch

    torch.manual_seed(0)
    makers: dict[str, Callable[..., harness.Calls]] = (
        layers.MAKERS | graph_layers.MAKERS | networks.MAKERS | analyses.MAKERS
    )
    return makers[problem.direction](setting, problem.case)


def name(device: Any, send: Send) -> None:
    """Of the GPU that is measured; raises where there is none."""
    device.require(tuned=False)
    send(device.measured())


def ceilings(device: Any, send: Send) -> None:
    """What device.ceilings() finds."""
    device.require(tuned=False)
    with device.active():
        send(device.ceilings())


def smoke(device: Any, checks: Sequence[tuple[str, str]], send: Send) -> None:
    """A row for each operation and precision, without a time."""
    device.require(tuned=False)
    with device.active() as place:
        for name, precision in checks:
            row = Row("smoke", name, harness.SMOKE, precision)
            try:
                error = gpu_smoke.error(name, precision, gpu_smoke.call_of(name, precision, place)())
                right = error <= gpu_smoke.tolerance(name, precision)
                send(dataclasses.replace(row, error=error, note="" if right else f"wrong: error {error:.1e}"))
            except Exception as failure:
                send(dataclasses.replace(row, note=f"fails: {harness.first_line(failure)}"))


def measure(
    device: Any,
    jobs: Sequence[Job],
    schedule: Schedule,
    limits: Mapping[str, Ceilings],
    tuned: bool,
    send: Send,
) -> None:
    """The rows of these jobs, as many as there is time for; what is left out of a job is a row that says so. Then, if
    there is time, once more with a mode of torch.compile among the peers, and once more with two: later rows replace
    earlier ones."""
    if not any(schedule.has_time_for(job) for job in jobs):
        for job in jobs:
            send(left_out(job, 0, OUT_OF_TIME, tuned))
        return
    device.require(tuned)

    def row(job: Job, problem: cases.Problem, done: int, modes: int) -> Row:
        """What cannot even be made gets a row that says that, and the others go on."""
        timer = functools.partial(device.time_alternating, seconds=schedule.sampling(job, done))
        name = name_of(job, problem, tuned)
        try:
            calls = make(problem, device.setting(precision=job.precision, compiled=modes))
        except Exception as failure:
            return Row(*name, note=f"cannot be made: {harness.first_line(failure)}")
        return harness.measure(name, calls, timer, limits.get(job.precision), device.Graphs())

    def rows(job: Job, modes: int) -> None:
        started, done = schedule.used, 0
        for problem in job.problems:
            if not modes and not schedule.has_time_for(job):
                send(left_out(job, done, OUT_OF_TIME, tuned))
                break
            send(row(job, problem, done, modes))
            device.clear()
            done += 1
        if done:
            took = Took(job, modes, schedule.used - started, done)
            schedule.took(*took)
            send(took)

    with device.active():
        for job in jobs:
            rows(job, 0)
        for modes in range(1, 1 + max(job.modes for job in jobs)):
            for job in jobs:
                if schedule.has_time_to_compile(job, modes, jobs[-1]):
                    rows(job, modes)
                else:
                    send(Uncompiled(job, modes))


def tune(device: Any, jobs: Sequence[Job], schedule: Schedule, batch: int, send: Send) -> None:
    """Tunes the convolutions of networks: a row for each, the untuned plan as its peer. Each plan is saved at once."""
    import networks
    from setting import CPU

    from zfcuda import tuning

    device.require(tuned=False)
    with device.active():
        for job in jobs:
            started, done = schedule.used, 0
            network = networks.build(CPU, job.family)  # only its shapes count
            network.precision = job.precision
            problems = tuning.problems(network, batch)
            for problem in problems:
                if not schedule.has_time_for(job):
                    send(left_out(job, done, OUT_OF_TIME, tuned=False, of=len(problems)))
                    break
                (plan,) = tuning.tune([problem], device=device.BACKEND)
                tuning.save([plan], device=device.BACKEND)
                peers, note = {"untuned": plan.untuned_ms}, f"{plan.kernel}, {plan.splits} splits"
                send(Row(*name_of(job, problem, tuned=False), ours_ms=plan.ms, peers_ms=dict(peers), note=note))
                done += 1
            if done:
                send(Took(job, 0, schedule.used - started, done))
