"""zfcuda's kernels against PyTorch on this machine's GPU: one command that turns a GPU into evidence.

    python benchmarks/gpu.py                    everything
    python benchmarks/gpu.py conv block         only these parts

Describes the GPU, measures its ceilings, runs the GPU tests, then verifies and times each part against PyTorch (cuDNN
in benchmark mode, channels_last, the same precision, eager and compiled) or Captum. Convolutions, blocks, forward pass
and training step run in every precision of `--precisions`, the other parts in exact float32. Writes a table (Markdown)
and all numbers (JSON) after every part, into benchmarks/results/. Without a usable GPU it says why and measures
nothing.

Exit status: 0, all results right and all tests passed; 1, not; 2, wrong arguments; 3, no usable GPU.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu_device
import harness

REPOSITORY = Path(__file__).resolve().parent.parent
KERNELS = ("conv", "pool", "norm", "optimizer", "block")
NETWORKS = ("forward", "step", "projection", "occlusion")
PARTS = ("tests", *KERNELS, *NETWORKS)
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
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results", help="where results go")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    if options.batch < 1:
        parser.error(f"--batch must be at least 1, got {options.batch}")
    options.parts = options.parts or list(PARTS)
    return options


def run_tests() -> tuple[bool, str]:
    """The tests on the CUDA backend: whether all passed, and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "tests", "-k", "cuda"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    lines = (result.stdout + result.stderr).strip().splitlines()
    return result.returncode == 0, lines[-1].strip("= ") if lines else "pytest said nothing"


def cases(part: str, setting: Any) -> Iterator[harness.Case]:
    import gpu_kernels
    import gpu_networks

    source = gpu_kernels if part in KERNELS else gpu_networks
    generate: Callable[[Any], Iterator[harness.Case]] = getattr(source, part)
    return generate(setting)


def measure_part(part: str, setting: Any, limits: dict[str, harness.Ceilings]) -> Iterator[harness.Row]:
    """The rows of a part. One that cannot even be made ends with a row that says so, and the other parts go on."""
    try:
        for case in cases(part, setting):
            yield harness.measure(case, gpu_device.time_alternating, limits[case.precision])
            gpu_device.clear()
    except Exception as failure:
        yield harness.Row(part, "cannot be made", 0.0, 0.0, note=harness.first_line(failure))


def measure_parts(options: argparse.Namespace, facts: dict[str, Any]) -> bool:
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
    rows: list[harness.Row] = []
    name = "gpu-" + re.sub(r"[^a-z0-9]+", "-", facts["name"].lower()).strip("-")
    for part in options.parts:
        if part == "tests":
            passed, facts["GPU tests"] = run_tests()
            right = right and passed
            print(f"tests: {facts['GPU tests']}", flush=True)
        else:
            for row in measure_part(part, setting, limits):
                rows.append(row)
                right = right and row.ours_ms is not None
                print(harness.table([row]).splitlines()[-1], flush=True)
        facts["afterwards"] = gpu_device.state()
        title = f"zfcuda on {facts['name']}"
        paths = harness.write_results(options.out, name, title, facts, rows)
    print(f"written: {paths[1]} and {paths[0].name}")
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        facts: dict[str, Any] = {**gpu_device.describe(), "before": gpu_device.state(), **harness.environment()}
        gpu_device.require()
    except gpu_device.NoGpuError as error:
        print(f"Nothing was measured: {error}", file=sys.stderr)
        return 3
    return 0 if measure_parts(options, facts) else 1


if __name__ == "__main__":
    sys.exit(main())
