"""ZFNet on the CPU against PyTorch and Captum.

    python benchmarks/cpu.py [conv pool norm block net projection occlusion memory] [--quick] [--json FILE]

Every result is compared before it is timed, the best of the peer's memory formats counts, and everything runs twice: as
the C library's allocator comes, and told to keep its memory (`cpu_device.TUNED_ALLOCATOR`), in a process each. The
share of the ceiling counts the operations of the plain algorithm; where a faster one is used it exceeds 100 %.

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
from pathlib import Path

import cpu_device
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

    results = {setting: _run_in_child(setting, parts, arguments.quick) for setting in settings}
    print("\n## Geometric means, times as fast as the best peer\n")
    print(_summary(results))
    if arguments.json:
        temporary = arguments.json.with_name(f".{arguments.json.name}.tmp")
        temporary.write_text(json.dumps(results, indent=1) + "\n")
        os.replace(temporary, arguments.json)
    failed = [row for result in results.values() for row in result["rows"] if row["ours_ms"] is None and row["note"]]
    return 1 if failed else 0


def _run_in_child(setting: str, parts: list[str], quick: bool) -> dict:
    """All parts in a process with this allocator; its tables go to the terminal as they come."""
    print(f"\n# {setting.capitalize()}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "rows.json"
        script = Path(__file__).with_name("cpu_parts.py")
        command = [sys.executable, str(script), str(output), *parts, *(["--quick"] if quick else [])]
        subprocess.run(command, env=cpu_device.environment_for(setting), check=True)
        return json.loads(output.read_text())


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
