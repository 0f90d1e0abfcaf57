"""From a bare machine with a GPU to results, in less than eight minutes and without a network.

    python benchmarks/gpu_session.py --wheels WHEELS --out RESULTS              first
    python benchmarks/gpu_session.py --wheels WHEELS --out RESULTS --second     what then is left

WHEELS: a folder with the wheel of zfcuda, built for that machine's Python and GPU (`ZFCUDA_CUDA=ON pip wheel .
--no-deps -C cmake.define.ZFCUDA_EMULATED=OFF -C cmake.define.ZFCUDA_CUDA_ARCHITECTURES=90a-real`), and of what that
Python lacks (captum, pytest-xdist); without it, what is installed is measured. PyTorch and CuPy must be there.

Tests and benchmarks run from a copy of theirs, on the installed package: the sources beside this script play no part.
A stage that crashes or takes too long is written down and the next one begins; each has its share of the time that
those before it leave.
RESULTS then has rows.jsonl, facts.json and table.md (gpu.py), session.log (all that was printed), tests.log, and
counters.csv or the sanitizer's reports.

First: every operation once in every precision, the tests, the GPU's ceilings, ZFNet's layers, blocks and kernels that
are bound by memory, step and forward pass, tuned plans, hardware counters of six kernels. Second: memory checks and
races by compute-sanitizer, analyses, AlexNet.

With --rehearse the same is done on a machine without a GPU, with the emulated kernels on small shapes.

Exit status: 0, all stages came to their end and everything was right; 1, something was not right; 2, wrong arguments;
3, no package to measure; 4, what was measured is right, but not all was: there was no time for it, or no tool.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from processes import OUT_OF_TIME, exit_when_stopped
from record import Record, refuse_unwritable

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("benchmarks", "tests", "pyproject.toml")
_GRACE = 5.0  # seconds, for what keeps to a time by itself
_SHOWN = 15  # lines of what a stage printed
_TOOLS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/cuda/compute-sanitizer")
_PYTEST = ("-v", "--tb=short", "--dist=worksteal", "--continue-on-collection-errors")
# What gpu.py and gpu_smoke.py print of a result that is not right, and a finding in a report of compute-sanitizer.
_WRONG = re.compile(r"^wrong: |, wrong$|^={9} (?!COMPUTE-SANITIZER|\w+ SUMMARY: 0 )\S", re.M)
_SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "LaunchStats", "Occupancy")


@dataclass(frozen=True)
class Stage:
    """A command with its share of the time. `tool`: the program without which it is not measured; `report`: the file
    that it writes, in the folder of the results, and `says`, what stands in one that is whole."""

    name: str
    seconds: float
    command: tuple[str, ...]
    tool: str = ""
    report: str = ""
    says: str = ""


def python(script: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, f"benchmarks/{script}", *arguments)


def stages(options: argparse.Namespace) -> list[Stage]:
    rehearsed = ("--rehearse",) if options.rehearse else ()

    def measured(*arguments: str) -> tuple[str, ...]:
        return python("gpu.py", *arguments, "--out", str(options.out), *rehearsed)

    def with_tool(
        name: str, seconds: float, tool: Sequence[str], command: Sequence[str], report: str, says: str
    ) -> Stage:
        """Without the tool in a rehearsal, where it has nothing to look at."""
        if options.rehearse:
            return Stage(name, seconds, tuple(command))
        return Stage(name, seconds, (*tool, "--log-file", str(options.out / report), *command), tool[0], report, says)

    zfnet, alexnet = ("--families", "zfnet"), ("--families", "alexnet")
    if options.second:
        found = []
        for check in ("memcheck", "racecheck"):
            tool = ("compute-sanitizer", "--tool", check, "--error-exitcode", "9")
            report = f"{check}.log", "SUMMARY: 0 "
            found.append(with_tool(check, 60, tool, python("gpu_smoke.py", *rehearsed), *report))
        return [
            *found,
            Stage("analyses", 105, measured("projection", "occlusion", "curves", *zfnet)),
            Stage("AlexNet", 200, measured("conv", "block", "pool", "norm", "step", "forward", *alexnet)),
        ]
    counters: tuple[str, ...] = ("ncu", "--profile-from-start", "off", "--clock-control", "none")
    counters += ("--csv", "--page", "details")
    counters += tuple(part for section in _SECTIONS for part in ("--section", section))
    profiled = python("gpu_counters.py", *rehearsed)
    tuned = ("bf16",) if options.rehearse else ("bf16", "tf32", "fp32")
    return [
        Stage("smoke", 45, measured("smoke")),
        Stage("tests", 85, tests(options.rehearse)),
        Stage("layers", 55, measured("conv", *zfnet)),
        Stage("blocks and memory", 60, measured("block", "pool", "norm", "optimizer", *zfnet)),
        Stage("step and forward", 140, measured("step", "forward", *zfnet)),
        Stage("tuned plans", 45, measured("conv", "--tune", *zfnet, "--precisions", *tuned)),
        with_tool("counters", 40, counters, profiled, "counters.csv", '"Kernel Name"'),
    ]


def tests(rehearse: bool) -> tuple[str, ...]:
    """In parallel, a line for each. A rehearsal runs a few on the emulator."""
    chosen = ("tests/kernels/test_pool.py", "-k", "emulated-0") if rehearse else ("-m", "gpu")
    processes = 1 if rehearse else max(1, (os.cpu_count() or 1) - 2)
    return (sys.executable, "-m", "pytest", *_PYTEST, "-n", str(processes), *chosen)


def tests_outcome(log: str, status: int | None) -> tuple[bool, str]:
    """Whether the tests passed, and what is to be said, from what pytest printed and its exit status, None if it did
    not come to its end. Tests of which none ran have not passed."""
    words = re.findall(r"^\[gw\d+\] \[ *\d+%\] ([A-Z]+) ", log, re.M)
    counts = ", ".join(f"{words.count(word)} {word.lower()}" for word in dict.fromkeys(words)) or "none ran"
    if status is None:
        bad = "FAILED" in words or "ERROR" in words
        return not bad, f"{harness.NOT_MEASURED}: {OUT_OF_TIME}; by then {counts}"
    if status:
        return False, f"{counts}; pytest ended with {status}"
    return "PASSED" in words, counts if "PASSED" in words else f"{counts}: none passed"


class Session:
    """The stages of one call, on a copy of tests and benchmarks in `folder`."""

    def __init__(self, out: Path, folder: Path, environment: Mapping[str, str], seconds: float):
        self.record, self.folder, self.environment = Record(out), folder, environment
        self._end = time.monotonic() + seconds
        self.whole = True  # whether all stages came to their end

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)
        with (self.record.folder / "session.log").open("a") as log:
            log.write(f"{text}\n")

    def run(self, planned: Sequence[Stage]) -> bool:
        """Whether all was right."""
        right = True
        # What is said of them by an earlier session counts no more, also where this one is stopped.
        outcomes = {f"stage {stage.name}": f"{harness.NOT_MEASURED}: the session was stopped" for stage in planned}
        self.record.note(outcomes)
        try:
            for number, stage in enumerate(planned):
                seconds = self.left * stage.seconds / sum(one.seconds for one in planned[number:])
                self.say(f"== {stage.name}, at most {max(0, seconds):.0f} s")
                passed, outcome = self._stage(stage, seconds)
                right = right and passed
                self.whole = self.whole and harness.NOT_MEASURED not in outcome
                self.say(f"== {stage.name}: {outcome}")
                outcomes[f"stage {stage.name}"] = outcome
                self.record.note(outcomes)  # all: those of another GPU or commit are set aside with its facts
        finally:
            self.record.write(f"zfcuda on {self.record.facts().get('name', 'a GPU')}")
        return right

    def _stage(self, stage: Stage, seconds: float) -> tuple[bool, str]:
        report = self.record.folder / stage.report if stage.report else None
        if report:  # of an earlier session
            report.unlink(missing_ok=True)
        if seconds < _GRACE:
            return True, f"{harness.NOT_MEASURED}: {OUT_OF_TIME}"
        if stage.tool and not shutil.which(stage.tool, path=self.environment["PATH"]):
            return True, f"{harness.NOT_MEASURED}: {stage.tool} is not there"
        command = list(stage.command)
        if "benchmarks/gpu.py" in command:
            command += ["--minutes", f"{(seconds - _GRACE) / 60:.2f}"]
        begun = time.monotonic()
        path = self.record.folder / ("tests.log" if stage.name == "tests" else "session.log")
        output, status = self._output(command, seconds, path)
        took = f"{time.monotonic() - begun:.0f} s"
        if stage.name == "tests":
            passed, outcome = tests_outcome(output, status)
            return passed, f"{outcome}, in {took}"
        written = report.read_text(errors="replace") if report and report.exists() else ""
        if status is None:
            outcome = f"{harness.NOT_MEASURED} in full: {OUT_OF_TIME}, after {took}"
            is_wrong = bool(_WRONG.search(f"{output}\n{written}"))
            return not is_wrong, f"not right, and {outcome}" if is_wrong else outcome
        found = re.findall(r"^measured: (\d+) of (\d+) problems", output, re.M)
        said = f": {found[-1][0]} of {found[-1][1]} problems" if found else ""
        if status:
            return False, f"not right: it ended with {status}, after {took}{said}"
        if stage.says not in written:
            return True, f"{harness.NOT_MEASURED}: {stage.report} does not say {stage.says}"
        if found and found[-1][0] != found[-1][1]:
            return True, f"{harness.NOT_MEASURED} in full, in {took}{said}"
        return True, f"done in {took}{said}"

    def _output(self, command: Sequence[str], seconds: float, path: Path) -> tuple[str, int | None]:
        """What the command printed, which is appended to the file as it comes, and its exit status: None where it was
        killed because the time was over. Nothing of its tree outlives it, or this session where that is stopped."""
        with path.open("a") as file:
            before = file.tell()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment, "OMP_NUM_THREADS": "1"} if "pytest" in command else self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        with path.open() as file:
            file.seek(before)
            output = file.read()
        print("\n".join(line[:200] for line in output.splitlines()[-_SHOWN:]), flush=True)
        return output, status


def installed(wheels: Path | None, folder: Path) -> dict[str, str]:
    """The environment of all commands: with the wheels, and not with this checkout."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    tools = [path for pattern in _TOOLS for path in glob.glob(pattern)]
    environment["PATH"] = os.pathsep.join([environment.get("PATH", ""), *tools])
    if wheels:
        site = folder / "site"
        pip = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
        subprocess.run([sys.executable, *pip, *map(str, sorted(wheels.glob("*.whl")))], check=True)
        environment["PYTHONPATH"] = str(site)
    return environment


def whereabouts(folder: Path, environment: Mapping[str, str]) -> str:
    """Where the commands find zfcuda; "" if nowhere."""
    return _answer("import zfcuda; print(zfcuda.__file__)", folder, environment)


def commit_of(folder: Path, environment: Mapping[str, str]) -> str:
    """Of what they find there."""
    return _answer("from zfcuda._build_info import BUILD; print(BUILD['commit'])", folder, environment)


def _answer(code: str, folder: Path, environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout.strip()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder where results go")
    parser.add_argument("--wheels", type=Path, help="the folder of wheels to install")
    parser.add_argument("--second", action="store_true", help="what the first call leaves")
    parser.add_argument("--rehearse", action="store_true", help="on a machine without a GPU")
    parser.add_argument("--seconds", type=float, default=465.0, help="for everything together (default 465)")
    options = parser.parse_args(arguments)
    if options.wheels and (count := len(list(options.wheels.glob("zfcuda-*.whl")))) != 1:
        parser.error(f"--wheels must have the wheel of zfcuda in it, of which {options.wheels} has {count}")
    if not options.seconds > 0:
        parser.error(f"--seconds must be positive, got {options.seconds}")
    options.out = options.out.resolve()
    refuse_unwritable(parser, options.out)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in COPIED:
            copy = shutil.copytree if (REPOSITORY / one).is_dir() else shutil.copy
            copy(REPOSITORY / one, folder / one)
        environment = installed(options.wheels, folder)
        found = whereabouts(folder, environment)
        if not found or (not options.rehearse and Path(found).is_relative_to(REPOSITORY)):
            print(f"There is no installed zfcuda to measure: {found or 'no module of that name'}", file=sys.stderr)
            return 3
        session = Session(options.out, folder, environment, options.seconds - (time.monotonic() - began))
        # Also where no stage comes to measure anything, what is said of them is not of another build.
        session.record.begin({"commit": commit_of(folder, environment)})
        session.say(f"zfcuda: {found}; set up in {time.monotonic() - began:.0f} s")
        if not session.run(stages(options)):
            return 1
        return 0 if session.whole else 4


if __name__ == "__main__":
    exit_when_stopped()
    sys.exit(main())
