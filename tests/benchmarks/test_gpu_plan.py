"""benchmarks/gpu_plan.py: what there is time for, on any GPU."""

import contextlib

import cases
import gpu_plan
import gpu_worker
import harness
import pytest
from processes import OUT_OF_TIME


class Clock:
    """A clock that runs only where somebody says so."""

    now = 1000.0

    def __call__(self):
        return self.now


def plan(parts=gpu_plan.PARTS, **options):
    return gpu_plan.plan(parts, ["zfnet", "alexnet"], gpu_plan.PRECISIONS, 128, **options)


def test_the_plan_has_every_part_most_important_family_first():
    jobs = plan()
    assert {job.part for job in jobs} == set(gpu_plan.PARTS) - {"joint", "depthwise"}  # of other networks
    families = [job.family for job in jobs]
    assert families == sorted(families, reverse=True)
    assert len(jobs) == (5 * 3 + 2 * 2 + 4) + (
        4 * 3 + 2 * 2
    )  # alexnet: no fully connected layers, analyses, parameters
    assert [job.precision for job in gpu_plan.plan(["norm", "optimizer"], ["zfnet"], ["tf32"], 2)] == ["fp32", "fp32"]


def test_every_problem_has_a_part_or_is_of_the_cpu_alone():
    planned = {
        str(problem) for job in gpu_plan.plan(gpu_plan.PARTS, cases.FAMILIES, ["fp32"], 8) for problem in job.problems
    }
    every = cases.problems([case.with_batch(8) for case in cases.CASES])
    assert {problem.direction for problem in every if str(problem) not in planned} == {"memory MiB"}


class Device:
    """On which every problem costs `pace` times what was estimated, and torch.compile too."""

    Graphs = staticmethod(lambda: None)
    active = staticmethod(contextlib.nullcontext)

    def __init__(self, monkeypatch, pace):
        self.clock, self.pace = Clock(), pace
        monkeypatch.setattr(gpu_worker, "make", lambda problem, setting: (problem, setting))
        monkeypatch.setattr(harness, "measure", self.measure)

    def require(self, tuned):
        self.clock.now += self.pace * gpu_plan._START_SECONDS

    def setting(self, precision, compiled):
        return compiled

    def clear(self):
        pass

    def time_alternating(self):
        pass

    def measure(self, name, made, *_):
        problem, compiled = made
        part = next(
            part for key, part in gpu_plan._PARTS.items() if key != "tune" and problem.direction in part.directions
        )
        self.clock.now += self.pace * (part.seconds + sum(part.compiling[:compiled]))
        return harness.Row(*name, ours_ms=1, note=f"{compiled} compiled")

    def run(self, jobs, seconds=480):
        """-> the schedule, and what was sent."""
        schedule, sent = gpu_plan.Schedule(jobs, seconds, self.clock), []
        for together in schedule.processes():
            gpu_worker.measure(self, together, schedule, {}, False, sent.append)
        return schedule, sent


def late(sent):
    return [message for message in sent if isinstance(message, harness.Row) and OUT_OF_TIME in message.note]


def test_eight_minutes_are_enough_for_zfnet_in_three_precisions(monkeypatch):
    schedule, sent = Device(monkeypatch, 1.0).run(plan())
    assert schedule.used <= 480
    assert all(row.family == "alexnet" for row in late(sent))


@pytest.mark.parametrize("pace", [0.2, 0.5, 2.0, 5.0])
def test_the_time_is_kept_on_any_gpu(monkeypatch, pace):
    jobs = plan()
    schedule, sent = Device(monkeypatch, pace).run(jobs)
    longest = max(len(job.problems) * sum(gpu_plan._PARTS[job.part].compiling) for job in jobs)
    assert schedule.used <= 480 + pace * longest
    measured = {message.name for message in sent if isinstance(message, harness.Row) and message.ours_ms}
    assert len(measured) + sum(int(row.problem.split(" ")[0]) for row in late(sent)) == sum(
        len(job.problems) for job in jobs
    )


def test_a_fast_gpu_leaves_nothing_out(monkeypatch):
    _, sent = Device(monkeypatch, 0.1).run(plan())
    assert not late(sent)
    compiled = {row.name for row in sent if isinstance(row, harness.Row) and row.note == "2 compiled"}
    assert {name.direction for name in compiled} >= {"block", "step", "forward", "pool", "norm"}


def test_a_slow_gpu_leaves_compiling_out(monkeypatch):
    _, sent = Device(monkeypatch, 2.0).run(plan())
    uncompiled = {message.job.name for message in sent if isinstance(message, gpu_worker.Uncompiled)}
    assert uncompiled >= {"zfnet block fp32", "zfnet step fp32"}


def test_what_is_asked_for_alone_is_compiled():
    jobs = plan(["norm"])
    assert gpu_plan.Schedule(jobs, 480, Clock()).has_time_to_compile(jobs[0], 2, jobs[1])
    assert plan(["norm"], compiles=False)[0].modes == 0


def test_the_first_mode_comes_before_the_second(monkeypatch):
    """In all precisions, of the stage of the session that has steps; for the second there is no time."""
    jobs = gpu_plan.plan(["step", "forward"], ["zfnet"], gpu_plan.PRECISIONS, 128)
    _, sent = Device(monkeypatch, 1.0).run(jobs, seconds=140)
    notes = [(row.direction, row.note) for row in sent if isinstance(row, harness.Row)]
    assert notes[:7] == [("step", "0 compiled")] * 3 + [("step", "1 compiled")] * 3 + [("forward", "0 compiled")]
    uncompiled = [(message.job.name, message.modes) for message in sent if isinstance(message, gpu_worker.Uncompiled)]
    assert uncompiled[:3] == [(f"zfnet step {precision}", 2) for precision in gpu_plan.PRECISIONS]


def test_fewer_rounds_when_late():
    clock = Clock()
    jobs = plan()
    schedule = gpu_plan.Schedule(jobs, 480, clock)
    clock.now += 250
    assert schedule.sampling(jobs[1], 0) == 0.25
    alone = gpu_plan.Schedule(jobs[1:2], 480, clock)
    assert alone.sampling(jobs[1], 0) == 2.5
    clock.now += 440
    assert 0.25 < alone.sampling(jobs[1], 5) < 2.5


def test_a_process_and_a_problem_that_hangs_have_a_limit():
    clock = Clock()
    jobs = plan(["optimizer", "pool"])
    schedule = gpu_plan.Schedule(jobs, 480, clock)
    assert schedule.limit() == 477.5
    assert schedule.patience(jobs, compiling=False) == 4 * 1 + 30
    assert schedule.patience(jobs, compiling=True) == 4 * (1 + 3 + 5) + 30
    clock.now += 470
    assert schedule.limit() == 7.5
    clock.now += 20
    assert schedule.limit() == 0
