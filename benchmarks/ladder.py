"""A convolution from one thread an output to tensor cores, in kernels of one idea more each (ladder/ladder.cu): every
step is verified against float64, then measured.

    python benchmarks/ladder.py                     on a GPU: time, beside the library's and PyTorch's
    python benchmarks/ladder.py --emulated          anywhere: what the threads of each kernel ask of memory
    python benchmarks/ladder.py --only vgg16 conv3_3    another convolution of cases.py

The kernels are in builds with ZFCUDA_CHECKED=ON: `pip install . -C cmake.define.ZFCUDA_CHECKED=ON`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import statistics
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import cases
import gpu_device
import torch
from harness import relative_error
from record import markdown_table
from setting import Setting, host
from torch.nn import functional

TF32_STEPS = ("tensor cores",)

# Small enough for the emulator, which examines every access, and of whole tiles.
EMULATED = cases.Conv(layer="conv", size=16, channels=32, maps=128, kernel=3, stride=1, padding=1)


class Ladder:
    """The steps on one convolution, on the emulator or on a GPU."""

    def __init__(self, module: ModuleType, device: str, conv: cases.Conv):
        self.module, self.conv, self.setting = module, conv, Setting(device)
        (h, w), (r, s), (p, q) = cases.pair(conv.size), cases.pair(conv.kernel), conv.output
        n, c, k = conv.n, conv.channels, conv.maps
        self.shape = (n, h, w, c, k, r, s, *cases.pair(conv.stride), *cases.pair(conv.padding))
        self.x, self.y = self.setting.normal(n, c, h, w), self.setting.normal(n, k, p, q)
        self.w = self.setting.normal(k, c, r, s, scale=(r * s * c) ** -0.5)

    def call(self, step: str) -> Callable[[], None]:
        run, arrays = self.module.steps[step], [array.data_ptr() for array in (self.x, self.w, self.y)]
        return lambda: run(self.shape, *arrays)

    def verify(self, step: str) -> float:
        """The relative error; AssertionError where it is too large."""
        self.y.fill_(torch.nan)
        self.call(step)()
        x, w = self.x.double(), self.w.double()
        expected = functional.conv2d(x, w, None, cases.pair(self.conv.stride), cases.pair(self.conv.padding))
        error = relative_error(host(self.y), host(expected))
        assert error <= (2e-3 if step in TF32_STEPS else 1e-5), f"{step} is wrong: error {error:.1e}"
        return error


def counted(ladder: Ladder) -> str:
    """A table of what a multiply-add costs in accesses and bytes, from the emulator's count."""
    lines = []
    for step in ladder.module.steps:
        before = totals(ladder.module)
        error = ladder.verify(step)
        multiply_adds = ladder.conv.flops / 2
        each = {what: (count - before[what]) / multiply_adds for what, count in totals(ladder.module).items()}
        lines.append([step, f"{error:.0e}", *(f"{each[what]:.3f}" for what in before)])
    head = [f"{what} an FMA" for what in totals(ladder.module)]
    return markdown_table(["step", "error", *head], lines)


def totals(module: ModuleType) -> dict[str, int]:
    """Of all kernels, since the module was loaded."""
    kernels = module.debug.traffic().values()
    return {
        what: sum(kernel[what] for kernel in kernels)
        for what in ("global accesses", "global bytes", "shared accesses", "shared bytes")
    }


def timed(ladder: Ladder) -> str:
    """A table of times, and of how many times as fast as the line above each is."""
    import layers

    errors = {step: ladder.verify(step) for step in ladder.module.steps}
    calls = {step: ladder.call(step) for step in errors}
    for precision in ("fp32", "tf32"):
        library = layers.fprop(dataclasses.replace(ladder.setting, precision=precision), ladder.conv)
        calls |= {f"zfcuda {precision}": library.ours, f"PyTorch {precision}": library.peers["channels_last"]}
        errors[f"zfcuda {precision}"] = library.error(library.ours())
    lines, last = [], None
    for name, samples in gpu_device.time_alternating(calls).items():
        ms = statistics.median(samples)
        error = f"{errors[name]:.0e}" if name in errors else ""
        faster = f"{last / ms:.2f}" if last and name in ladder.module.steps else ""
        lines.append([name, error, f"{ms:.4g}", f"{ladder.conv.flops / ms / 1e9:.2f}", faster])
        last = ms
    return markdown_table(["step", "error", "ms", "TFLOP/s", "times the step before"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulated", action="store_true", help="count on the emulator, in place of timing on a GPU")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="the words of a convolution's name, as of cpu.py")
    parser.add_argument("--batch", type=int, help="images, in place of the case's")
    options = parser.parse_args(arguments)
    words = options.only or ["zfnet", "conv2"]
    chosen = [problem.case for problem in cases.select(cases.problems(cases.CASES), [[*words, "fprop"]])]
    if not chosen:
        parser.error(f"no convolution has the words {' '.join(words)}")
    conv = EMULATED if options.emulated and not options.only else chosen[0]
    conv = conv.with_batch(options.batch) if options.batch else conv
    try:
        if not options.emulated:
            gpu_device.require(tuned=False)
        module = importlib.import_module("zfcuda._ladder" if options.emulated else "zfcuda._ladder_cuda")
    except (gpu_device.NoGpuError, ImportError) as error:
        print(f"Nothing was measured: {error}", file=sys.stderr)
        return 3
    ladder = Ladder(module, "cpu" if options.emulated else "cuda", conv)
    n, h, w, c, k, r, s, *geometry = ladder.shape
    print(f"images {n}x{h}x{w}x{c}, filters {k}x{r}x{s}x{c}, strides and padding {geometry}\n")
    print(counted(ladder) if options.emulated else timed(ladder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
