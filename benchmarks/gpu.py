"""zfcuda's kernels against PyTorch on this machine's GPU: one command that turns a GPU into evidence.

    python benchmarks/gpu.py                    everything
    python benchmarks/gpu.py conv block         only these parts

Describes the GPU, measures its ceilings, runs the GPU tests, then verifies and times each part against PyTorch (cuDNN
in benchmark mode, channels_last, the same precision, eager and compiled) or Captum. Convolutions, fully connected
layers, blocks, forward pass and training step run in every precision of `--precisions`, the other parts in exact
float32. Writes a table (Markdown) and all numbers (JSON) after every part, into benchmarks/results/. Without a usable
GPU it says why and measures nothing.

It keeps to --minutes by itself: the most important parts come first, one family of cases.py after the other; when it is
late it times fewer rounds and leaves out torch.compile, and what it does not reach is written down as not measured.
Plans of `zfcuda tune` are not used; with --tune it tunes the convolutions first and goes by the plans that it found,
whose times tuned and untuned are a part of their own.

Exit status: 0, all results right and all tests passed, of those that there was time for; 1, not; 2, wrong arguments;
3, no usable GPU.
"""

from __future__ import annotations

import argparse
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cases
import gpu_device
import harness
from gpu_plan import PARTS, Job, Schedule, plan

REPOSITORY = Path(__file__).resolve().parent.parent
OUT_OF_TIME = "out of time"
PRECISIONS = ("fp32", "tf32", "bf16")
_RATES = {"fp32": "float32, TFLOP/s", "tf32": "TF32, TFLOP/s", "bf16": "bfloat16, TFLOP/s"}


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
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results", help="where results go")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    if options.batch < 1:
        parser.error(f"--batch must be at least 1, got {options.batch}")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    options.parts = options.parts or list(PARTS)
    return options


def run_tests(seconds: float) -> tuple[bool, str]:
    """The tests on the CUDA backend: whether none failed in this time, and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "tests", "-m", "gpu"]
    try:
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return True, f"{harness.NOT_MEASURED}: {OUT_OF_TIME}, not finished in {seconds:.0f} s"
    lines = (result.stdout + result.stderr).strip().splitlines()
    return result.returncode == 0, lines[-1].strip("= ") if lines else "pytest said nothing"


def make(problem: cases.Problem, setting: Any) -> harness.Calls:
    import graph_layers
    import layers
    import networks
    import torch

    torch.manual_seed(0)
    makers: dict[str, Callable[..., harness.Calls]] = layers.MAKERS | graph_layers.MAKERS | networks.MAKERS
    return makers[problem.direction](setting, problem.case)


def measure_job(job: Job, schedule: Schedule, limits: dict[str, harness.Ceilings]) -> Iterator[harness.Row]:
    """The rows of a job, as many as there is time for; the rest is one row that says so. What cannot even be made gets
    a row that says that, and the others go on."""
    from setting import Setting

    setting = Setting(compiled=schedule.decides_to_compile(job), precision=job.precision)
    done, started = 0, schedule.used
    for problem in job.problems:
        if not schedule.has_time_for(job):
            break
        name = harness.Name(job.family, problem.case.label, problem.direction, job.precision)
        timer = functools.partial(gpu_device.time_alternating, seconds=schedule.sampling(job, done))
        try:
            yield harness.measure(name, make(problem, setting), timer, limits[job.precision])
        except Exception as failure:
            yield harness.Row(*name, note=f"cannot be made: {harness.first_line(failure)}")
        gpu_device.clear()
        done += 1
    schedule.took(job, schedule.used - started, done, setting.compiled)
    if done < job.count:
        yield _left_out(job, done, job.count)


def _left_out(job: Job, done: int, count: int) -> harness.Row:
    what = f"{count - done} of {count} problems"
    return harness.Row(job.family, what, job.part, job.precision, note=f"{harness.NOT_MEASURED}: {OUT_OF_TIME}")


def tune_job(job: Job, schedule: Schedule, batch: int) -> Iterator[harness.Row]:
    """Tunes the convolutions of a network, and goes by what it finds: a row for each, the untuned plan as its peer."""
    import networks
    from setting import CPU

    from zfcuda import tuning

    done, started = 0, schedule.used
    network = networks.build(CPU, job.family)  # only its shapes count
    network.precision = job.precision
    problems = tuning.problems(network, batch)
    for problem in problems:
        if not schedule.has_time_for(job):
            break
        (found,) = tuning.tune([problem])
        name = harness.Name(job.family, str(problem), job.part, job.precision)
        peers, note = {"untuned": found.untuned_ms}, f"{found.kernel}, {found.splits} splits"
        yield harness.Row(*name, ours_ms=found.ms, peers_ms=peers, note=note)
        done += 1
    schedule.took(job, schedule.used - started, done, False)
    if done < len(problems):
        yield _left_out(job, done, len(problems))


def measure_parts(options: argparse.Namespace, facts: dict[str, Any], started: float) -> bool:
    """Measures, writes and prints; whether everything was right. `facts` go into the results, and grow."""
    right = True
    ceilings = gpu_device.ceilings()
    facts |= {name: f"{value:.1f}" for name, value in ceilings.items()}
    limits = {
        precision: harness.Ceilings(gflops=1e3 * ceilings[rate], gbytes=ceilings["copy, GB/s"])
        for precision, rate in _RATES.items()
    }
    facts["plans of the convolutions"] = "tuned in this run" if options.tune else "untuned"
    parts = ["tune", *options.parts] if options.tune else options.parts
    jobs = plan(parts, options.families, options.precisions, options.batch, compiles=not options.no_compile)
    schedule = Schedule(jobs, 60 * options.minutes, started=started)
    facts["planned"] = schedule.describe()
    print(f"planned: {schedule.describe()}", flush=True)
    rows: list[harness.Row] = []
    path = options.out / ("gpu-" + re.sub(r"[^a-z0-9]+", "-", facts["name"].lower()).strip("-"))
    for job in schedule.jobs:
        if job.part == "tests":
            passed, facts["GPU tests"] = run_tests(schedule.tests_seconds())
            right = right and passed
            print(f"tests: {facts['GPU tests']}", flush=True)
        else:
            tunes = job.part == "tune"
            for row in tune_job(job, schedule, options.batch) if tunes else measure_job(job, schedule, limits):
                rows.append(row)
                right = right and (row.ours_ms is not None or OUT_OF_TIME in row.note)
                print(harness.table([row]).splitlines()[-1], flush=True)
        facts["afterwards"] = gpu_device.state()
        facts["time"] = f"{schedule.used:.0f} s"
        facts["no time for torch.compile in"] = ", ".join(dict.fromkeys(schedule.uncompiled)) or "nothing"
        harness.write_results(path, f"zfcuda on {facts['name']}", facts, rows)
    print(f"written: {path}.md and .json")
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    options = parse(arguments)
    try:
        facts: dict[str, Any] = {**gpu_device.describe(), "before": gpu_device.state(), **harness.environment()}
        gpu_device.require()
    except gpu_device.NoGpuError as error:
        print(f"Nothing was measured: {error}", file=sys.stderr)
        return 3
    return 0 if measure_parts(options, facts, started) else 1


if __name__ == "__main__":
    sys.exit(main())
