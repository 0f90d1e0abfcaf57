"""zfcuda on the CPU against PyTorch and Captum: every case of cases.py.

    python benchmarks/cpu.py                                all of it, into benchmarks/results/: two hours and a half
    python benchmarks/cpu.py --only zfnet                   one family
    python benchmarks/cpu.py --only fprop                   one direction
    python benchmarks/cpu.py --only vgg16 wgrad --only zfnet conv1 fprop 16
    python benchmarks/cpu.py --list                         the names of all problems, whose words --only takes

Every result is compared before it is timed, the best of the peer's memory formats counts, and everything runs twice: as
the C library's allocator comes, and told to keep its memory (`cpu_device.TUNED_ALLOCATOR`). The share of the ceiling
counts the operations of the plain algorithm; where a faster one is used it exceeds 100 %.

Each problem has a process of its own, in which both libraries solve it, so that nothing depends on what was measured
before: glibc serves even its largest blocks from a hole that dead arrays left in the heap, if there is one, and then
writing to them costs no page faults. (After the convolutions of this benchmark, block 1 took PyTorch half its time.) A
program that has run for long lies between the two settings.

Other settings come from the environment: OMP_NUM_THREADS=1 for one thread of both libraries; ZFCUDA_ISA=avx2
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 for AVX2 in both.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cases
import cpu_device
import harness
import record


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = "problems with all of these words in their names; several times: of each"
    parser.add_argument("--only", nargs="+", action="append", default=[], metavar="WORD", help=only)
    parser.add_argument("--list", action="store_true", help="names the problems and measures nothing")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller batches: to see that all works")
    seconds = "about so long for a problem, beside what three rounds take (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help=seconds)
    parser.add_argument("--allocator", choices=cpu_device.ALLOCATORS, help="this setting alone")
    out = "writes PATH.json and PATH.md, row by row; where all is measured, into benchmarks/results/ without it"
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    options = parser.parse_args(arguments)
    chosen = [case.quick() for case in cases.CASES] if options.quick else cases.CASES
    options.problems = cases.select(cases.problems(chosen), options.only)
    if not options.problems:
        parser.error("no problem has these words in its name; --list has the names")
    record.refuse_unwritable(parser, options.out and options.out.parent)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        print(*options.problems, sep="\n")
        return 0
    ceilings = cpu_device.ceilings()
    facts: dict[str, Any] = {**record.environment(), **cpu_device.describe()}
    if ceilings:
        facts |= {"ceiling, GFLOP/s": round(ceilings.gflops), "ceiling of a copy, GB/s": round(ceilings.gbytes, 1)}
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()), "\n", flush=True)
    work: dict[str, Any] = {"problems": options.problems, "ceilings": ceilings, "seconds": options.seconds}
    work["rounds"] = (3, 3) if options.quick else (3, 15)
    out = options.out if options.out or options.only or options.quick else default_path(facts)
    rows: list[harness.Row] = []
    for allocator in [options.allocator] if options.allocator else cpu_device.ALLOCATORS:
        for row in measure({**work, "allocator": allocator}):
            print("\n".join(record.table([row]).splitlines()[2 if rows else 0 :]), flush=True)
            rows.append(row)
            if out:
                record.write_results(out, "zfcuda on the CPU", facts, rows)
    print(f"\n{record.summary(rows)}")
    return 0 if all(row.ours_ms is not None for row in rows) else 1


def measure(work: dict[str, Any]) -> Iterator[harness.Row]:
    """A row for each problem, as they come from a process in this allocator's environment. `work`: the fields of
    cpu_worker.Work."""
    command = [sys.executable, Path(__file__).with_name("cpu_worker.py")]
    environment = cpu_device.environment_for(work["allocator"])
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(work, process.stdin)
        process.stdin.close()
        done = 0
        for line in process.stdout:
            yield harness.Row(**json.loads(line))
            done += 1
    for problem in work["problems"][done:]:
        name = problem.case.family, problem.case.label, problem.direction, work["allocator"]
        note = f"{harness.NOT_MEASURED}: the process that measures ended with {process.returncode}"
        yield harness.Row(*name, note=note)


def default_path(facts: dict[str, Any]) -> Path:
    instruction_set = facts["cpu backend"].split(",")[0]
    name = f"cpu {facts['processor']} {instruction_set} {facts['torch threads']} cores"
    return Path(__file__).with_name("results") / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
