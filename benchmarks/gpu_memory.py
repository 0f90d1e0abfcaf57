"""The kernels that memory should bound, and how near to a copy's speed their machine code lets them come.

A thread moves the bytes that are its own, each array once, and takes its share of an SM's cycles for the instructions
on its way through the kernel (gpu_sass.py). What several threads read comes from the caches and does not count, nor do
latencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import gpu_sass
from gpu_model import Gpu, busy_cycles

_PRECISIONS = {"float": "fp32", "__nv_bfloat16": "bf16"}


@dataclass(frozen=True)
class Kernel:
    """As it serves whole vectors of 16 bytes and the paper's parameters."""

    code: gpu_sass.Code
    name: str
    elements: int  # of a thread: those of the larger array
    bytes: int  # of a thread

    @property
    def counts(self) -> gpu_sass.Counts:
        """A warp's instructions."""
        return self.code.way

    def cycles(self, gpu: Gpu) -> dict[str, float]:
        """Of an SM for a warp, by what may bound it."""
        return busy_cycles(self.counts, gpu) | {"memory": 32 * self.bytes / (gpu.copy / gpu.sms / gpu.hertz)}

    def bound(self, gpu: Gpu) -> str:
        cycles = self.cycles(gpu)
        return max(cycles, key=lambda term: cycles[term])

    def share(self, gpu: Gpu) -> float:
        """Of the speed of a copy, at most."""
        cycles = self.cycles(gpu)
        return cycles["memory"] / max(cycles.values())


def _known() -> dict[str, tuple[str, int, int]]:
    """Name, elements and bytes of a thread, by the plain name of a kernel without its arguments."""
    known = {
        "crop_images_kernel<4>": ("crop", 4, 4 + 16),
        "sgd_step_kernel<true>": ("sgd step", 4, 5 * 16),
        "cast_kernel<float, __nv_bfloat16, true>": ("cast to bf16", 4, 16 + 8),
        "cast_kernel<__nv_bfloat16, float, true>": ("cast to fp32", 4, 8 + 16),
    }
    for element, precision in _PRECISIONS.items():
        width = 4 if element == "float" else 8
        arrays = {
            "add_kernel<{}, true, true>": ("add, relu", 3),
            "relu_kernel<{}, true>": ("relu", 2),
            "relu_grad_kernel<{}, true>": ("relu grad", 3),
            "dropout_kernel<{}, true>": ("dropout", 2),
            "norm_of_five_kernel<{}, true>": ("norm", 2),
            "norm_of_five_grad_kernel<{}, true>": ("norm grad", 3),
        }
        for template, (name, count) in arrays.items():
            known[template.format(element)] = (f"{name} {precision}", width, 16 * count)
        known[f"depthwise_strip_kernel<{element}, {width}, 1>"] = (f"depthwise 3x3 {precision}", 4 * width, 2 * 4 * 16)
        pool = (4 * width, (4 + 1) * 16 + width)  # four pixels, one window and its switches
        known[f"max_pool2d_kernel<{element}, {width}, 3>"] = (f"max pool {precision}", *pool)
        for rectify, name in (("false", "max unpool"), ("true", "max unpool, relu")):
            known[f"max_unpool2d_paper_kernel<{element}, {width}, {rectify}>"] = (f"{name} {precision}", *pool)
    return known


def kernels(codes: Iterable[tuple[str, gpu_sass.Code]]) -> list[Kernel]:
    """Those among kernels and their plain names."""
    known = _known()
    found = [(known.get(name.partition("(")[0].removeprefix("void ")), code) for name, code in codes]
    return sorted((Kernel(code, *one) for one, code in found if one), key=lambda kernel: kernel.name)
