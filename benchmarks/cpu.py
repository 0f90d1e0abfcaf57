"""ZFNet on the CPU against PyTorch and Captum.

    python benchmarks/cpu.py [conv pool norm block net projection occlusion memory] [--quick] [--json FILE]

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
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cpu_device
import cpu_parts
import harness

PARTS = ("conv", "pool", "norm", "block", "net", "projection", "occlusion", "memory")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller batches: to see that all works")
    parser.add_argument("--allocator", choices=cpu_device.ALLOCATORS, help="this setting alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    parts = [part for part in PARTS if part in (arguments.parts or PARTS)]
    settings = [arguments.allocator] if arguments.allocator else list(cpu_device.ALLOCATORS)

    ceilings = cpu_device.ceilings()
    facts: dict[str, Any] = {**harness.environment(), **cpu_device.describe()}
    if ceilings:
        facts |= {"ceiling, GFLOP/s": round(ceilings.gflops), "ceiling of a copy, GB/s": round(ceilings.gbytes, 1)}
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()), flush=True)
    results = {}
    for setting in settings:
        print(f"\n# {setting.capitalize()}", flush=True)
        rows = []
        for part in parts:
            found = _measure_part(setting, part, arguments.quick, ceilings)
            print(f"\n## {part}\n\n{harness.table(found)}", flush=True)
            rows += [{**asdict(row), "ratio": row.ratio, "share": row.share} for row in found]
        results[setting] = {"environment": facts, "rows": rows}
    print("\n## Geometric means, times as fast as the best peer\n")
    print(_summary(results))
    if arguments.json:
        temporary = arguments.json.with_name(f".{arguments.json.name}.tmp")
        temporary.write_text(json.dumps(results, indent=1) + "\n")
        os.replace(temporary, arguments.json)
    failed = [row for result in results.values() for row in result["rows"] if row["ours_ms"] is None and row["note"]]
    return 1 if failed else 0


def _measure_part(setting: str, part: str, quick: bool, ceilings: harness.Ceilings | None) -> list[harness.Row]:
    """Every problem of the part in a process with this allocator."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "rows.json"
        for number in range(len(cpu_parts.problems(part, quick))):
            command = [sys.executable, cpu_parts.__file__, str(output), part, str(number)]
            command += ["--quick"] if quick else []
            command += ["--ceilings", str(ceilings.gflops), str(ceilings.gbytes)] if ceilings else []
            subprocess.run(command, env=cpu_device.environment_for(setting), check=True)
            rows += [harness.Row(**row) for row in json.loads(output.read_text())]
    return rows


def _summary(results: dict[str, dict]) -> str:
    lines = [f"| part | {' | '.join(results)} |", "| --- |" + " --- |" * len(results)]
    parts = dict.fromkeys(row["part"] for result in results.values() for row in result["rows"])
    for part in parts:
        cells = []
        for result in results.values():
            ratios = [row["ratio"] for row in result["rows"] if row["part"] == part and row["ratio"]]
            cells.append(f"{harness.geometric_mean(ratios):.2f}" if ratios else harness.NOT_MEASURED)
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
