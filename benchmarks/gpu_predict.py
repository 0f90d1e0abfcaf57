"""The least time of a layer, from the bounds of its kernel (`gpu_model`).

A layer takes at least the time of the SM that is given the most blocks, or that of its arrays on the way to memory.
Plans are those of `gpu_choice`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from case_kinds import Block, Case, Conv, Dense
from gpu_choice import Plan, Product, array_sizes, block_plan, conv_plan, phases, product, unpool_wgrad_plan
from gpu_model import Gpu, Kernel, PatchKernel

PROLOGUE = 2500  # cycles of a block before and after its k-tiles, which other blocks of its SM hide: a guess


@dataclass(frozen=True)
class Step:
    """A product, or a pass over arrays."""

    seconds: float
    bound: str  # what takes it: a pipe, L2, or "memory"
    plan: Plan | None = None
    blocks: int = 0


@dataclass(frozen=True)
class Prediction:
    """The least time of a layer."""

    ms: float
    share: float  # of the peak
    bound: str  # of the longest step
    kernels: tuple[str, ...]
    splits: tuple[int, ...]  # of each
    waves: tuple[float, ...]  # of blocks, one an SM


def predict(every: Sequence[Kernel], case: Case, direction: str, precision: str, gpu: Gpu) -> Prediction:
    """Of a convolution, a fully connected layer or a block, in one of its directions. NoKernelError."""
    if isinstance(case, Block):
        conv = case.conv
        steps = (_block if direction == "block" else _block_grad)(every, case, precision, gpu)
    else:
        assert isinstance(case, Conv | Dense)
        conv = case.as_conv()
        operation = direction.split()[-1]
        steps = [_run(conv_plan(every, conv, operation, precision, gpu), conv, operation, gpu)]
    seconds = sum(step.seconds for step in steps)
    flops = conv.flops * (2 if direction == "block grad" else 1)
    products = [(step.plan, step.blocks) for step in steps if step.plan]
    return Prediction(
        ms=1e3 * seconds,
        share=flops / 2 / (gpu.peaks[precision] * gpu.sms * gpu.hertz) / seconds,
        bound=max(steps, key=lambda step: step.seconds).bound,
        kernels=tuple(plan.kernel.name for plan, _ in products),
        splits=tuple(plan.splits for plan, _ in products),
        waves=tuple(blocks / gpu.sms for _, blocks in products),
    )


def _pass(moved: float, gpu: Gpu) -> Step:
    return Step(moved / gpu.copy, "memory")


def _run(plan: Plan, conv: Conv, operation: str, gpu: Gpu, y_bytes: int | None = None) -> Step:
    """A product, the sum over its splits, and what turns filters for it. `y_bytes`: of what stands for the map y, where
    that is not there."""
    tile = plan.kernel.tile
    x, y, w = array_sizes(conv)
    w_bytes = w * (4 if operation.endswith("wgrad") else tile.element)
    moved = (x * tile.element + (y * tile.element if y_bytes is None else y_bytes) + w_bytes) / gpu.copy
    filled = _filled(plan, product(conv, operation, tile.precision))
    work = _work(plan, conv, operation, gpu)
    waves = [math.ceil(blocks / gpu.sms) for blocks, _ in work]
    k_tiles = sum(count * each for count, (_, each) in zip(waves, work, strict=True)) / sum(waves)
    prologue = PROLOGUE / min(sum(waves), plan.kernel.resident(gpu))
    computed = plan.kernel.work(gpu, sum(waves), k_tiles, prologue, filled) / gpu.hertz
    size = {"dgrad": x, "wgrad": w}.get(operation.split()[-1], y)
    summed = 4 * (plan.splits + 1) * size * plan.share / (gpu.l2 * gpu.sms * gpu.hertz)
    turned = _pass(2 * w_bytes * plan.kernel.turns_filters, gpu).seconds
    bound = plan.kernel.bound(gpu, *filled)[0] if computed >= moved else "memory"
    return Step(max(computed, moved) + summed + turned, bound, plan, sum(blocks for blocks, _ in work))


def _filled(plan: Plan, wanted: Product) -> tuple[float, float]:
    """Rows and columns of a tile that exist, on average."""
    kernel = plan.kernel
    across = kernel.tiles_across(wanted.cols, wanted.channels)
    return plan.rows or wanted.rows / math.ceil(wanted.rows / kernel.tile.rows), wanted.cols / across


def _work(plan: Plan, conv: Conv, operation: str, gpu: Gpu) -> list[tuple[int, float]]:
    """Blocks that have work, and how many k-tiles each has on average: of whole tiles, and of splits."""
    every = phases(conv)
    if operation != "dgrad" or isinstance(plan.kernel, PatchKernel) or (plan.kernel.tile.is_tma and len(every) == 1):
        return list(zip(plan.blocks, plan.k_tiles, strict=True))
    if plan.kernel.tile.is_tma:
        return [_parts_of_phases(plan, conv, gpu)]
    tile, found = plan.kernel.tile, [(0, 0.0), (0, 0.0)]
    for number, (pixels, taps) in enumerate(every):  # the fastest index of tiles
        tiles = math.ceil(conv.n * pixels / tile.rows) * math.ceil(conv.channels / tile.cols)
        whole = min(tiles, math.ceil((plan.whole - number) / len(every)))
        blocks = whole, (tiles - whole) * plan.splits
        k_tiles = math.ceil(taps * conv.maps / tile.depth)
        of_blocks = k_tiles, k_tiles / plan.splits
        found = [
            (n + more, turns + more * each) for (n, turns), more, each in zip(found, blocks, of_blocks, strict=True)
        ]
    return [(blocks, turns / max(1, blocks)) for blocks, turns in found]


def _parts_of_phases(plan: Plan, conv: Conv, gpu: Gpu) -> tuple[int, float]:
    """Parts of a transposed convolution whose k-tiles the tensor memory accelerator copies, and k-tiles of each on the
    SM that has the most: SMs take parts in turns to and fro, the deepest phases first (tma_phases.cuh)."""
    depths = sorted((plan.kernel.k_tiles(taps * conv.maps, conv.maps) for _, taps in phases(conv)), reverse=True)
    tiles = [depth for depth in depths for _ in range(plan.tiles // len(depths))]
    most = int(plan.k_tiles[1])  # of a split
    starts = range(0, plan.splits * most, most) if plan.whole < plan.tiles else ()
    parts = tiles[: plan.whole]
    parts += [min(most, max(0, depth - start)) for start in starts for depth in tiles[plan.whole :]]
    loads = [0] * gpu.sms
    for turn, first in enumerate(range(0, len(parts), gpu.sms)):
        for place, depth in enumerate(parts[first : first + gpu.sms]):
            loads[-1 - place if turn % 2 else place] += depth
    return len(parts), max(loads) / math.ceil(len(parts) / gpu.sms)


def _block(every: Sequence[Kernel], block: Block, precision: str, gpu: Gpu) -> list[Step]:
    """Fused, or a convolution and a pool."""
    conv, element = block.conv, 2 if precision == "bf16" else 4
    _, y, _ = array_sizes(conv)
    pooled = block.n * math.prod(block.pool.output) * conv.maps * (element + 1)  # bytes, with the switches
    if plan := block_plan(every, block, precision, gpu):
        return [_run(plan, conv, "block", gpu, pooled)]
    plan = conv_plan(every, conv, "fprop", precision, gpu)
    return [_run(plan, conv, "fprop", gpu), _pass(y * element + pooled, gpu)]


def _block_grad(every: Sequence[Kernel], block: Block, precision: str, gpu: Gpu) -> list[Step]:
    """Of filters and input: unpooled into a map for each, or for the filters while it is read; and of the rectifier and
    the bias."""
    conv, element = block.conv, 2 if precision == "bf16" else 4
    _, y, _ = array_sizes(conv)
    pooled = block.n * math.prod(block.pool.output) * conv.maps
    unpool = _pass(y * element + pooled * (element + 1), gpu)
    steps = [_pass(4 * pooled * element, gpu)]
    if through_switches := unpool_wgrad_plan(every, block, precision, gpu):
        steps.append(_run(through_switches, conv, "unpool wgrad", gpu, pooled * (element + 1)))
    else:
        steps += [unpool, _run(conv_plan(every, conv, "wgrad", precision, gpu), conv, "wgrad", gpu)]
    return [*steps, unpool, _run(conv_plan(every, conv, "dgrad", precision, gpu), conv, "dgrad", gpu)]
