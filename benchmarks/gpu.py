"""zfcuda's kernels against PyTorch on this machine's GPU: one command that turns a GPU into evidence.

    python benchmarks/gpu.py                    everything
    python benchmarks/gpu.py conv block         only these parts

Describes the GPU, measures its ceilings, runs the GPU tests, then verifies and times each part against PyTorch (cuDNN
in benchmark mode, channels_last, the same precision, eager and compiled) or Captum. Convolutions, blocks, forward pass
and training step run in every precision of `--precisions`, the other parts in exact float32. Writes a table (Markdown)
and all numbers (JSON) after every part, into benchmarks/results/. Without a usable GPU it says why and measures
nothing.

It keeps to --minutes by itself: the most important parts come first, one network after the other; when it is late it
times fewer rounds and leaves out torch.compile, and what it does not reach is written down as not measured. Plans of
`zfcuda tune` are not used; with --tune it tunes the convolutions first and goes by the plans that it found, whose times
tuned and untuned are a part of their own.

Exit status: 0, all results right and all tests passed, of those that there was time for; 1, not; 2, wrong arguments;
3, no usable GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu_device
import harness
from gpu_plan import PARTS, Job, Schedule, plan

REPOSITORY = Path(__file__).resolve().parent.parent
KERNELS = ("conv", "pool", "norm", "optimizer", "block")
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
    parser.add_argument("--networks", nargs="+", choices=("zfnet", "alexnet"), default=["zfnet", "alexnet"])
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
    command = [sys.executable, "-m", "pytest", "-q", "tests", "-k", "cuda"]
    try:
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return True, f"{harness.NOT_MEASURED}: {OUT_OF_TIME}, not finished in {seconds:.0f} s"
    lines = (result.stdout + result.stderr).strip().splitlines()
    return result.returncode == 0, lines[-1].strip("= ") if lines else "pytest said nothing"


def cases(part: str, setting: Any) -> Iterator[harness.Case]:
    import gpu_kernels
    import gpu_networks

    source = gpu_kernels if part in KERNELS else gpu_networks
    generate: Callable[[Any], Iterator[harness.Case]] = getattr(source, part)
    return generate(setting)


def measure_job(job: Job, schedule: Schedule, limits: dict[str, harness.Ceilings]) -> Iterator[harness.Row]:
    """The rows of a job, as many as there is time for; the rest is one row that says so. A job that cannot even be made
    ends with a row that says that, and the other jobs go on."""
    compiled = schedule.decides_to_compile(job)
    setting = dataclasses.replace(job.setting, compiled=compiled)
    done, started = 0, schedule.used
    try:
        for case in cases(job.part, setting) if schedule.has_time_for(job) else ():
            timer = functools.partial(gpu_device.time_alternating, seconds=schedule.sampling(job, done))
            yield harness.measure(case, timer, limits[case.precision])
            gpu_device.clear()
            done += 1
            if not schedule.has_time_for(job):
                break
    except Exception as failure:
        yield harness.Row(job.name, "cannot be made", 0.0, 0.0, note=harness.first_line(failure))
        return
    schedule.took(job, schedule.used - started, done, compiled)
    if done < job.problems:
        yield _left_out(job, done)


def _left_out(job: Job, done: int) -> harness.Row:
    what = f"{job.setting.networks[0]}, {job.problems - done} of {job.problems} problems"
    return harness.Row(job.name, what, 0.0, 0.0, note=f"{harness.NOT_MEASURED}: {OUT_OF_TIME}")


def tune_job(job: Job, schedule: Schedule) -> Iterator[harness.Row]:
    """Tunes the convolutions of a network, and goes by what it finds: a row for each, the untuned plan as its peer."""
    from gpu_setting import ARCHITECTURES

    from zfcuda import tuning
    from zfcuda.nn import Network

    (name,), (precision,) = job.setting.networks, job.setting.precisions
    network = Network(ARCHITECTURES[name](1000, job.setting.image_size))
    network.precision = precision
    done, started = 0, schedule.used
    problems = tuning.problems(network, job.setting.batch)
    for problem in problems:
        if not schedule.has_time_for(job):
            break
        (found,) = tuning.tune([problem])
        note = f"{found.tile}, {found.splits} splits"
        peers = {"untuned": found.untuned_ms}
        yield harness.Row(job.name, str(problem), 0.0, 0.0, ours_ms=found.ms, peers_ms=peers, note=note)
        done += 1
    schedule.took(job, schedule.used - started, done, False)
    if done < len(problems):
        yield _left_out(job, done)


def measure_parts(options: argparse.Namespace, facts: dict[str, Any], started: float) -> bool:
    """Measures, writes and prints; whether everything was right. `facts` go into the results, and grow."""
    from gpu_setting import Setting

    right = True
    ceilings = gpu_device.ceilings()
    facts |= {name: f"{value:.1f}" for name, value in ceilings.items()}
    limits = {
        precision: harness.Ceilings(gflops=1e3 * ceilings[rate], gbytes=ceilings["copy, GB/s"])
        for precision, rate in _RATES.items()
    }
    setting = Setting(
        batch=options.batch,
        networks=tuple(options.networks),
        precisions=tuple(options.precisions),
        compiled=not options.no_compile,
    )
    facts |= {"precision": "float32, no TF32, where a row does not say another", "batch": options.batch}
    facts["plans of the convolutions"] = "tuned in this run" if options.tune else "untuned"
    parts = ["tune", *options.parts] if options.tune else options.parts
    schedule = Schedule(plan(parts, setting), 60 * options.minutes, started=started)
    facts["planned"] = schedule.describe()
    print(f"planned: {schedule.describe()}", flush=True)
    rows: list[harness.Row] = []
    name = "gpu-" + re.sub(r"[^a-z0-9]+", "-", facts["name"].lower()).strip("-")
    for job in schedule.jobs:
        if job.part == "tests":
            passed, facts["GPU tests"] = run_tests(schedule.tests_seconds())
            right = right and passed
            print(f"tests: {facts['GPU tests']}", flush=True)
        else:
            for row in tune_job(job, schedule) if job.part == "tune" else measure_job(job, schedule, limits):
                rows.append(row)
                right = right and (row.ours_ms is not None or OUT_OF_TIME in row.note)
                print(harness.table([row]).splitlines()[-1], flush=True)
        facts["afterwards"] = gpu_device.state()
        facts["time"] = f"{schedule.used:.0f} s"
        facts["no time for torch.compile in"] = ", ".join(dict.fromkeys(schedule.uncompiled)) or "nothing"
        title = f"zfcuda on {facts['name']}"
        paths = harness.write_results(options.out, name, title, facts, rows)
    print(f"written: {paths[1]} and {paths[0].name}")
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
