"""What the CUDA backend's machine code allows: a bound for every convolution kernel and layer, without a GPU.

    python benchmarks/gpu_static.py             the CUDA backend that is installed
    python benchmarks/gpu_static.py FILE ...    modules, object files, cubins

Disassembles a build (with cuobjdump), counts the main loops of the convolution kernels by pipe, and bounds the share of
peak that each allows and the time of every convolution, fully connected layer and block of ZFNet, AlexNet, VGG-16 and
ResNet-50; of kernels that memory should bound, the share of a copy's speed.
Writes gpu-static-ARCHITECTURE.md and .json to benchmarks/results/, the record against which
tests/benchmarks/test_gpu_static.py holds later builds. No figure is a measurement. The disassembly is read in
gpu_sass.py, the bounds of a k-tile stand in gpu_model.py, which kernel serves a layer in gpu_choice.py, the bounds of
a layer in gpu_predict.py, and those of kernels that move data in gpu_memory.py.

Exit status: 0, written; 2, wrong arguments; 3, nothing to disassemble or no tool to do it.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cases
import gpu_choice
import gpu_memory
import gpu_model
import gpu_predict
import gpu_sass
import gpu_tile
import record

RESULTS = Path(__file__).resolve().parent / "results"
FAMILIES = ("zfnet", "alexnet", "vgg16", "resnet50")
NOTICE = "a bound from the machine code, not a measurement"
ARCHITECTURES = tuple(dict.fromkeys(gpu.architecture for gpu in gpu_model.GPUS))
GROWTH = 1.1  # of a main loop, or of a way, which `changes` lets pass
_TERMS = ("tensor", "fma", "alu", "xu", "shared", "issue", "L2")
ASSUMPTIONS = (
    "a cycle of an SM: 4 warp instructions issued; 2 of the integer ALU; half a conversion; FMA and IMAD 4 on sm_90 "
    "(IMAD 2) and sm_86, 2 on sm_80; 128 bytes to or from shared memory and L1",
    "mma.sync reaches 63 % of the tensor cores' peak on sm_90, all of it on sm_80 and sm_86; wgmma all of it, and "
    "reads both operands from shared memory for each warpgroup",
    "an SM gets from L2 28 bytes a cycle on sm_90, 32 on sm_80, 20 (a guess) on sm_86; what is copied 16 bytes at a "
    "time comes from there, the rest from L1",
    f"clocks: {', '.join(f'{gpu.name} {gpu.ghz} GHz' for gpu in gpu_model.GPUS)}; copies: "
    f"{', '.join(f'{gpu.name} {gpu.copy / 1e12:.1f} TB/s' for gpu in gpu_model.GPUS)}, each array once",
    f"blocks go to SMs evenly and whole; {gpu_predict.PROLOGUE} cycles before and after the k-tiles of a block (a "
    "guess), hidden by other blocks on its SM or by copies for its next tile; sums over splits read parts from L2",
    "latencies, bank conflicts, launches and what the tensor memory accelerator does cost nothing",
)


def installed_module() -> Path:
    """The CUDA backend. FileNotFoundError, which says how to get it, where it is not built."""
    spec = importlib.util.find_spec("zfcuda._cuda")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the CUDA backend is not built here: put nvcc on PATH, then pip install -C cmake.define.ZFCUDA_CUDA=ON ."
        )
    return Path(spec.origin)


def installed_build() -> dict[str, str]:
    from zfcuda._build_info import BUILD

    return {"commit": BUILD["commit"]}


def analyse(paths: Sequence[Path], architecture: str) -> tuple[list[gpu_model.Kernel], list[tuple[str, gpu_sass.Code]]]:
    """The products in these files, and every other kernel by its name. Raises what `gpu_sass.read` does."""
    codes = {code.name: code for path in paths for code in gpu_sass.read(path, architecture)}
    names = [gpu_model.plain(name) for name in gpu_sass.demangle(list(codes))]
    found = gpu_model.kernels(list(codes.values()), names)
    products = {kernel.code.name for kernel in found}
    others = [(name, code) for name, code in zip(names, codes.values(), strict=True) if code.name not in products]
    return found, sorted(others, key=lambda other: other[0])


# ---- Records ---------------------------------------------------------------------------------------------------------


def _kernel_record(kernel: gpu_model.Kernel, gpu: gpu_model.Gpu) -> dict[str, Any]:
    code, counts = kernel.code, kernel.counts
    return {
        "name": kernel.name,
        "template": kernel.template,
        "registers": code.registers,
        "stack": code.stack,
        "static_shared": code.shared,
        "dynamic_shared": kernel.dynamic_shared,
        "blocks_per_sm": kernel.resident(gpu),
        "instructions": counts.instructions,
        "pipes": {pipe: count for pipe, count in counts.pipes.items() if count},
        "cycles": {term: round(count) for term, count in kernel.cycles(gpu).items() if count},
        "bound": kernel.bound(gpu)[0],
        "share": round(kernel.share(gpu), 3),
    }


def _other_record(name: str, code: gpu_sass.Code) -> dict[str, Any]:
    resources = {"registers": code.registers, "stack": code.stack, "static_shared": code.shared}
    return {"name": name.partition("(")[0].removeprefix("void "), **resources, "instructions": code.instructions}


def _memory_record(kernel: gpu_memory.Kernel, gpus: Sequence[gpu_model.Gpu]) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "registers": kernel.code.registers,
        "instructions": kernel.counts.instructions,
        "elements": kernel.elements,
        "bytes": kernel.bytes,
        "cycles": {term: round(count) for term, count in kernel.cycles(gpus[0]).items() if count},
        "bound": kernel.bound(gpus[0]),
        "share": {gpu.name: round(kernel.share(gpu), 3) for gpu in gpus},
    }


def changes(
    recorded: Sequence[dict[str, Any]], kernels: Sequence[gpu_model.Kernel] | Sequence[gpu_memory.Kernel]
) -> list[str]:
    """Where a build leaves the record of kernels: those that have grown by more than a tenth, are new or gone."""
    before = {one["name"]: one["instructions"] for one in recorded}
    now = {kernel.name: kernel.counts.instructions for kernel in kernels}
    found = [f"{name} is new" for name in now if name not in before]
    found += [f"{name} is gone" for name in before if name not in now]
    for name in before.keys() & now.keys():
        if now[name] > GROWTH * before[name]:
            more = now[name] / before[name] - 1
            found.append(f"{name}: {before[name]} -> {now[name]} instructions, {more:.0%} more")
    return sorted(found)


def layers(batch: int) -> list[cases.Problem]:
    """What is predicted."""
    kinds = (cases.Conv, cases.Dense, cases.Block)
    chosen = [one.with_batch(batch) for one in cases.CASES if one.family in FAMILIES and isinstance(one, kinds)]
    return cases.problems(chosen)


def _layer_records(
    kernels: Sequence[gpu_model.Kernel], gpus: Sequence[gpu_model.Gpu], batch: int
) -> list[dict[str, Any]]:
    """Those for which there are kernels: those that are chosen without a plan, and those of either main loop of wgmma,
    which a plan names."""
    records = []
    groups: list[tuple[list[gpu_model.Kernel], str]] = [([k for k in kernels if not k.tile.is_wgmma], "")]
    groups += [([k for k in kernels if k.tile.main_loop == loop], f", {loop}") for loop in ("wgmma", "tma")]
    every = itertools.product(layers(batch), groups, gpu_tile.PRECISIONS.values())
    for (case, direction), (chosen, suffix), precision in every:
        try:
            found = {gpu.name: gpu_predict.predict(chosen, case, direction, precision, gpu) for gpu in gpus}
        except gpu_choice.NoKernelError:
            continue
        first = found[gpus[0].name]
        facts: dict[str, Any] = {"layer": f"{case.family} {case.layer}", "direction": direction + suffix}
        facts |= {"precision": precision, "kernels": first.kernels, "splits": first.splits}
        facts |= {"waves": [round(waves, 2) for waves in first.waves]}
        facts |= {"bound": first.bound, "share": round(first.share, 3)}
        records.append(facts | {"ms": {name: float(f"{one.ms:.3g}") for name, one in found.items()}})
    return records


# ---- Results ---------------------------------------------------------------------------------------------------------


def _kernel_table(kernels: Sequence[dict[str, Any]]) -> str:
    head = ["kernel", "registers", "KB", "blocks/SM", *gpu_sass.PIPES, "all"]
    head += [*(f"{term}, cycles" for term in _TERMS), "bound", "at most, % of peak"]
    lines = []
    for one in kernels:
        shared = (one["static_shared"] + one["dynamic_shared"]) / 1024
        counts = [one["pipes"].get(pipe, 0) for pipe in gpu_sass.PIPES]
        cells = [one["name"], one["registers"], f"{shared:.0f}", one["blocks_per_sm"], *counts, one["instructions"]]
        cells += [*(one["cycles"].get(term, 0) for term in _TERMS), one["bound"], f"{100 * one['share']:.0f}"]
        lines.append([str(cell) for cell in cells])
    return record.markdown_table(head, lines)


def _memory_table(records: Sequence[dict[str, Any]], gpus: Sequence[str]) -> str:
    head = ["kernel", "registers", "instructions an element", "bytes an element", "bound"]
    head += [f"at most, % of a copy's speed, {gpu}" for gpu in gpus]
    lines = []
    for one in records:
        each = (f"{one[what] / one['elements']:.1f}" for what in ("instructions", "bytes"))
        lines.append(
            [one["name"], str(one["registers"]), *each, one["bound"], *(f"{100 * one['share'][g]:.0f}" for g in gpus)]
        )
    return record.markdown_table(head, lines)


def _layer_table(records: Sequence[dict[str, Any]], gpus: Sequence[str]) -> str:
    precisions = list(gpu_tile.PRECISIONS.values())
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in records:
        times = " / ".join(f"{one['ms'][gpu]:.3g}" for gpu in gpus)
        cell = f"{times} ({one['bound']}, {100 * one['share']:.0f} %)"
        rows.setdefault((one["layer"], one["direction"]), {})[one["precision"]] = cell
    lines = [[*key, *(cells.get(precision, "no kernel") for precision in precisions)] for key, cells in rows.items()]
    return record.markdown_table(["layer", "direction", *precisions], lines)


def write(path: Path, architecture: str, contents: dict[str, Any]) -> None:
    """PATH.json, a kernel or layer a line, and PATH.md."""
    facts, gpus = contents["facts"], [gpu.name for gpu in gpu_model.GPUS if gpu.architecture == architecture]
    parts = {
        name: ",\n".join(json.dumps(one, separators=(",", ":")) for one in contents[name])
        for name in ("kernels", "memory", "others", "layers")
    }
    head = json.dumps({"what": NOTICE, "facts": facts}, indent=1)[:-2]
    body = ",\n".join(f'"{name}": [\n{lines}\n]' for name, lines in parts.items())
    text = [
        f"# What the machine code for {architecture} allows: {NOTICE}",
        "Counted in the disassembly by `python benchmarks/gpu_static.py`; nothing has run on a GPU. True times are "
        f"longer. {'; '.join(f'{what}: {facts[what]}' for what in ('commit', 'files', 'compiler') if what in facts)}.",
        "Assumed:\n" + "\n".join(f"- {assumption}" for assumption in ASSUMPTIONS),
        "## Kernels\n\nA warp's instructions for a k-tile by pipe; the cycles that the k-tile of one block takes of "
        f"each resource of an SM; the largest of these, and the share of the peak that it leaves ({gpus[0]}). KB: "
        "shared memory. 16/2 B: bytes of one copy of either operand. taps: of dilated or grouped filters.",
        _kernel_table(contents["kernels"]),
        "## Memory-bound kernels\n\nOf the way of a thread through a kernel that serves whole vectors and the paper's "
        "parameters (pools: 3 x 3 windows at stride 2). Elements are those of the larger array; bytes are what a pass "
        f"over each array once moves. Bound: what takes most of an SM's cycles ({gpus[0]}).",
        _memory_table(contents["memory"], gpus),
        f"## Layers, batch {facts['batch']}\n\nPredicted ms on {' / '.join(gpus)} (what takes them, share of the "
        f"peak on {gpus[0]}), with the untuned plan; its kernels, splits and waves are in the JSON file.",
        _layer_table(contents["layers"], gpus),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    record.write_whole(path.with_name(f"{path.name}.json"), f"{head},\n{body}\n}}\n")
    record.write_whole(path.with_name(f"{path.name}.md"), "\n\n".join(text))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="gpu_static.py",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="modules, object files or cubins")
    parser.add_argument(
        "--architecture", choices=ARCHITECTURES, help="alone; every one that the files have if not given"
    )
    parser.add_argument("--batch", type=int, default=128, help="images (default 128)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results go")
    options = parser.parse_args(arguments)
    if options.batch < 1:
        parser.error(f"--batch must be at least 1, got {options.batch}")
    record.refuse_unwritable(parser, options.out)
    return options


def write_record(files: Sequence[Path], architecture: str, facts: dict[str, Any], out: Path) -> None:
    """Analyses, writes and prints what it wrote. Raises what `gpu_sass.read` does."""
    gpus = [gpu for gpu in gpu_model.GPUS if gpu.architecture == architecture]
    kernels, others = analyse(files, architecture)
    contents = {
        "facts": {"compiler": gpu_sass.compiler(files[0]), **facts},
        "kernels": [_kernel_record(kernel, gpus[0]) for kernel in kernels],
        "memory": [_memory_record(kernel, gpus) for kernel in gpu_memory.kernels(others)],
        "others": [_other_record(*other) for other in others],
        "layers": _layer_records(kernels, gpus, facts["batch"]),
    }
    path = out / f"gpu-static-{architecture}"
    write(path, architecture, contents)
    print(f"{len(kernels)} products, {len(others)} other kernels; {NOTICE}\nwritten: {path}.md and .json")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        source = {"files": ", ".join(path.name for path in options.files)} if options.files else installed_build()
        files = options.files or [installed_module()]
        has = {architecture for path in files for architecture in gpu_sass.architectures(path)}
        chosen = [options.architecture] if options.architecture else [one for one in ARCHITECTURES if one in has]
        for architecture in chosen or ARCHITECTURES[:1]:
            write_record(files, architecture, source | {"batch": options.batch}, options.out)
    except (OSError, ValueError, gpu_sass.NoToolError) as error:
        print(f"Nothing was analysed: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
