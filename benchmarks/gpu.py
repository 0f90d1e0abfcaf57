"""zfcuda's kernels against PyTorch on this machine's GPU.

    python benchmarks/gpu.py                    everything
    python benchmarks/gpu.py conv block         only these parts

Describes the GPU, measures its ceilings, tries every operation once in every precision, then verifies and times each
part against PyTorch (cuDNN in benchmark mode, channels_last, the same precision, eager and compiled) or Captum. What
is timed is what was verified. Both sides are launched as CUDA graphs; plain calls, and the host's time for one, are
further figures. Products, forward pass and training step run in every precision of --precisions, kernels that are
bound by memory in float32 and bfloat16.

Every part of a family of cases.py has a process of its own: one that crashes or hangs is a row that says so. Rows go
one by one into rows.jsonl in the folder of --out, to which other runs may add; table.md there is made of them. A part
that is measured again replaces what was there of it; results of another GPU, build or version of a peer are set aside,
in files that end in .old. Without a usable GPU it says why and measures nothing. It keeps to --minutes by itself: the
most important parts come first, one family after the other; when it is late it times fewer rounds and leaves out
torch.compile, and what it does not reach is written down as not measured. Plans of `zfcuda tune` are not used; --tune
tunes the convolutions first and goes by the plans that it found.

The tests, and all else that makes evidence of a GPU, are in gpu_session.py.

Exit status: 0, all results right, of those that there was time for; 1, not; 2, wrong arguments; 3, no usable GPU, or
another run in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cases
import gpu_device
import gpu_plan
import gpu_rehearsal
import gpu_smoke
import gpu_worker
import harness
import record
from gpu_plan import PRECISIONS, Schedule
from harness import Row
from processes import OUT_OF_TIME, LateError, Send, StoppedError, exit_when_stopped, messages

PARTS = ("smoke", *gpu_plan.PARTS)
_RATES = {"fp32": "float32, TFLOP/s", "tf32": "TF32, TFLOP/s", "bf16": "bfloat16, TFLOP/s"}
_SMOKE_SECONDS, _OPERATION_SECONDS, _CEILINGS_SECONDS = 60.0, 10.0, 60.0
_EARLY = "its process ended before it was done"
_COMPILED = "modes of torch.compile among the peers"
_LATE = f"{harness.NOT_MEASURED}: {OUT_OF_TIME}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="gpu.py", description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--batch", type=int, default=128, help="images (default 128)")
    parser.add_argument("--families", nargs="+", choices=cases.FAMILIES, default=["zfnet", "alexnet"])
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="all if not given"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together (default 8)")
    parser.add_argument("--tune", action="store_true", help="tune the convolutions first")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--rehearse", action="store_true", help="on small shapes with the emulated kernels, no GPU")
    out = Path(__file__).resolve().parent / "results" / "gpu"
    parser.add_argument("--out", type=Path, default=out, help="the folder where results go")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    if options.batch < 1:
        parser.error(f"--batch must be at least 1, got {options.batch}")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    record.refuse_unwritable(parser, options.out)
    options.parts = options.parts or list(PARTS)
    options.families, options.precisions = (list(dict.fromkeys(one)) for one in (options.families, options.precisions))
    return options


def _problems(row: Row) -> int:
    """For how many it stands: one that says what was left out may be of several."""
    several = re.match(r"(\d+) of \d+ problems$", row.problem)
    return int(several[1]) if several else 1


class Run:
    """One run of this script: its device, and where its rows go."""

    def __init__(self, options: argparse.Namespace, device: Any, started: float):
        self.options, self.device, self.started = options, device, started
        self.record = record.Record(options.out)
        self.right = True
        self.measured: set[harness.Name] = set()
        self.left = 0  # problems that there was no time for

    def add(self, row: Row) -> None:
        self.record.add(row)
        tried = row.error is not None and not row.note
        if row.ours_ms is not None or tried:
            self.measured.add(row.name)
        elif row.note == _LATE:
            self.left += _problems(row)
        else:
            self.right = False
            print(f"wrong: {' '.join(row.name)}")
        print(record.table([row]).splitlines()[-1], flush=True)

    def messages(
        self, work: Callable[[Send], None], seconds: float, each: Callable[[], float] | None = None
    ) -> Iterator[Any]:
        """Of a process; a rehearsal, whose machine may be slow, waits for it."""
        return messages(work) if self.options.rehearse else messages(work, seconds, each)

    def smoke(self) -> None:
        """Where an operation hangs or kills its process, another process goes on behind it."""
        left = gpu_smoke.checks()
        self.record.drop(lambda row: row.direction == harness.SMOKE)
        end = min(time.monotonic() + _SMOKE_SECONDS, self.started + 60 * self.options.minutes)
        while left:
            work = functools.partial(gpu_worker.smoke, self.device, left)
            try:
                for row in self.messages(work, max(0.0, end - time.monotonic()), lambda: _OPERATION_SECONDS):
                    self.add(row)
                    left = left[1:]
                if left:
                    raise StoppedError(_EARLY)
            except LateError:
                for name, precision in left:
                    self.add(Row("smoke", name, harness.SMOKE, precision, note=_LATE))
                return
            except StoppedError as why:
                name, precision = left[0] if left else ("the end of the process", "all")
                left = left[1:]
                self.add(Row("smoke", name, harness.SMOKE, precision, note=f"failed: {why}"))

    def ceilings(self) -> None:
        """Measured once for a folder."""
        if "copy, GB/s" not in self.record.facts():
            try:
                (found,) = self.messages(functools.partial(gpu_worker.ceilings, self.device), _CEILINGS_SECONDS)
                self.record.note({name: round(value, 1) for name, value in found.items()} | {"ceilings": None})
            except StoppedError as why:
                self.record.note({"ceilings": f"{harness.NOT_MEASURED}: {why}"})

    def limits(self) -> dict[str, harness.Ceilings]:
        facts = self.record.facts()
        return {
            precision: harness.Ceilings(gflops=1e3 * facts[rate], gbytes=facts["copy, GB/s"])
            for precision, rate in _RATES.items()
            if rate in facts
        }

    def jobs(self) -> None:
        """All parts, each in its process; of one that stops, what is missing is a row for each of its jobs."""
        options = self.options
        parts = ["tune", *options.parts] if options.tune else options.parts
        jobs = gpu_plan.plan(
            parts, options.families, options.precisions, options.batch, compiles=not options.no_compile
        )
        schedule = Schedule(jobs, 60 * options.minutes, started=self.started)
        print(f"planned: {schedule.describe()}", flush=True)
        for together in schedule.processes():
            if together[0].part == "tune":
                work = functools.partial(gpu_worker.tune, self.device, together, schedule, options.batch)
            else:
                fixed = self.limits(), options.tune
                work = functools.partial(gpu_worker.measure, self.device, together, schedule, *fixed)
            self._forget(together)
            seen: dict[harness.Name, int] = {}  # problems
            uncompiling, compiled, late = set(together), dict.fromkeys(together, 0), set[gpu_plan.Job]()

            def patience(jobs: Sequence[gpu_plan.Job] = together, left: set[gpu_plan.Job] = uncompiling) -> float:
                return schedule.patience(jobs, compiling=not left)

            try:
                for message in self.messages(work, schedule.limit(), patience):
                    if isinstance(message, Row):
                        self.add(message)
                        seen[message.name] = _problems(message)
                    elif isinstance(message, gpu_worker.Took):
                        schedule.took(*message)
                        uncompiling.discard(message.job)
                        compiled[message.job] = message.modes
                    else:
                        late.add(message.job)
                # `tune` has a row for each of its plans instead.
                if sum(seen.values()) < sum(len(job.problems) for job in together if job.part != "tune"):
                    raise StoppedError(_EARLY)
            except StoppedError as why:
                lacks_modes = [job for job in together if compiled[job] < job.modes and job not in late]
                self._stopped(together, str(why), sum(seen.values()), lacks_modes)
            self.note(self._compiled(compiled))

    def _forget(self, jobs: Sequence[gpu_plan.Job]) -> None:
        """What earlier runs left of these jobs."""
        self.record.drop(lambda row: any(gpu_worker.is_of(job, row, self.options.tune) for job in jobs))

    def _stopped(self, jobs: Sequence[gpu_plan.Job], why: str, seen: int, lacks_modes: Sequence[gpu_plan.Job]) -> None:
        """A row for what is missing of each job, of torch.compile too; one in any case."""

        def missing(job: gpu_plan.Job, what: str) -> Row:
            setting = gpu_worker.setting_of(job, self.options.tune)
            return Row(job.family, what, job.part, setting, note=f"{harness.NOT_MEASURED}: {why}")

        rows = []
        for job in jobs:
            done = min(seen, len(job.problems))
            seen -= done
            if done < len(job.problems):
                rows.append(gpu_worker.left_out(job, done, why, self.options.tune))
            elif job in lacks_modes:
                rows.append(missing(job, "with torch.compile"))
        for row in rows or [missing(jobs[-1], "the end of the process")]:
            self.add(row)

    def _compiled(self, modes: Mapping[gpu_plan.Job, int]) -> dict[str, str]:
        """What is said of these jobs, and of others before."""
        found: dict[str, str] = self.record.facts().get(_COMPILED, {})
        tuned = ", tuned" if self.options.tune else ""
        return found | {
            f"{job.name}{tuned}": f"{count} of {job.every_mode}" for job, count in modes.items() if job.every_mode
        }

    def _state(self) -> str:
        """Also of a GPU that answers no more: what was measured before is written."""
        try:
            return str(self.device.state())
        except gpu_device.NoGpuError as error:
            return f"{harness.NOT_MEASURED}: {error}"

    def note(self, compiled: Mapping[str, str] | None = None) -> None:
        facts: dict[str, Any] = {"afterwards": self._state()}
        if compiled:
            facts[_COMPILED] = compiled
        self.record.note(facts)
        self.record.write(f"zfcuda on {self.record.facts()['name']}")


def measure(run: Run, facts: Mapping[str, Any]) -> int:
    """All parts that were asked for; the exit status."""
    parts = run.options.parts
    run.record.begin(facts)
    try:
        if "smoke" in parts:
            run.smoke()
        if parts != ["smoke"]:
            run.ceilings()
            with tempfile.TemporaryDirectory() as cache:  # for the plans of this run alone
                if run.options.tune:
                    os.environ["XDG_CACHE_HOME"] = cache
                run.jobs()
    finally:
        run.note()
    print(f"measured: {len(run.measured)} of {len(run.measured) + run.left} problems that could be")
    print(f"written: {run.record.folder / 'table.md'}")
    return 0 if run.right else 1


def main(arguments: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    options = parse(arguments)
    device: Any = gpu_rehearsal if options.rehearse else gpu_device
    try:
        facts = {**device.describe(), "before": device.state(), **record.environment()}
        with contextlib.suppress(ImportError):
            importlib.import_module("networks")  # and PyTorch, once for all processes
        if options.rehearse:
            gpu_rehearsal.shrink()
            options.families, options.batch, options.no_compile = ["zfnet"], 2, True
        # In a process of its own, as all that touches the GPU: this one never does.
        (name,) = messages(functools.partial(gpu_worker.name, device), 120)
    except (gpu_device.NoGpuError, StoppedError) as error:
        print(f"Nothing was measured: {str(error).removeprefix('NoGpuError: ')}", file=sys.stderr)
        return 3
    if not name.startswith(facts["name"]):  # followed by what of it is used, where it is shared
        facts |= {"name": name, "clocks, temperature and power": f"of {facts['name']}, which nvidia-smi lists first"}
    try:
        with record.alone(options.out):
            return measure(Run(options, device, started), facts)
    except record.BusyError as error:
        print(f"Nothing was measured: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    exit_when_stopped()
    sys.exit(main())
