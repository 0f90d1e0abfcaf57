"""Which kernel serves a layer, and how: the choice of csrc/kernels/conv/ (plan.h, tiles.cuh, block_*.cuh, *_patch.cuh)
once more, which a test compares."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import gpu_sass
from case_kinds import Block, Conv, Pool, pair
from gpu_model import Gpu, ImageKernel, Kernel, PatchKernel
from gpu_tile import Tile

_MAX_GATHERS = 7  # kMaxGathers (block_grad.cuh)
_MAX_PATCH_CHANNELS, _MAX_PATCH_COLUMNS = 4, 64  # kMaxPatchChannels, kMaxPatchColumns (dgrad_patch.cuh)
_MAX_IMAGE_CHANNELS = 4  # kMaxImageChannels (image_patch.cuh)
_ELEMENT_COPY_COST = {"fp32": 1.2, "tf32": 2.3, "bf16": 3.5}  # kElementCopyCost
_ALONE_COST = 1.5  # kAloneCost (wgrad_patch.cuh) in float32
_FMAS_PER_BYTE = {"fp32": 7, "tf32": 35, "bf16": 70}  # fmas_per_byte (plan.h), and what follows
_MIN_K_TILES_PER_SPLIT, _BLOCK_K_TILES, _MOST_WAVES = 8, 4, 8
_MAX_BOX = 256  # kMaxBox (block_tma.h)
# Those of blocks, as tiles.cuh has them: of plans that cost the same the first is taken.
_TMA_TILES = ("tma 192x256", "tma 256x192", "tma 128x256", "tma 256x128", "tma 128x128", "tma 384x64")


class NoKernelError(ValueError):
    """A build has no kernel for a product."""


@dataclass(frozen=True)
class Product:
    """`batches` products of rows x cols x depth, of whose operands some can be copied 16 bytes at a time."""

    operation: str
    precision: str
    batches: int
    rows: int
    cols: int
    depth: int
    channels: int  # of a tap
    size: int  # of the result
    vector_a: bool
    vector_b: bool

    @property
    def window(self) -> int:
        """Elements of one."""
        return self.cols if self.operation.endswith("wgrad") else self.depth


@dataclass(frozen=True)
class Plan:
    kernel: Kernel
    tiles: int
    whole: int  # of these, not split
    splits: int  # of each of the others
    k_tiles: tuple[float, float]  # of a whole tile, of a split: on average
    cost: float
    rows: int | None = None  # of a tile that are copied, where a cut of the map says how many

    @property
    def share(self) -> float:
        """Of the tiles that are split."""
        return (self.tiles - self.whole) / self.tiles

    @property
    def blocks(self) -> tuple[int, int]:
        """Of whole tiles, of splits."""
        return self.whole, (self.tiles - self.whole) * self.splits


def phases(conv: Conv) -> list[tuple[int, int]]:
    """Pixels of an image and taps of each phase of the transposed convolution (conv_phases.h), in its order."""

    def axis(size: int, window: int, stride: int, pad: int) -> list[tuple[int, int]]:
        found = []
        for phase in range(min(stride, size)):
            first = (phase + pad) % stride
            found.append(((size - phase - 1) // stride + 1, max(0, (window - first - 1) // stride + 1)))
        return found

    down, across = (axis(*sizes) for sizes in zip(*map(pair, _geometry(conv)), strict=True))
    return [(h * w, taps_h * taps_w) for (h, taps_h), (w, taps_w) in itertools.product(down, across)]


def _geometry(conv: Conv) -> tuple[int | tuple[int, int], ...]:
    return conv.size, conv.kernel, conv.stride, conv.padding


def array_sizes(conv: Conv) -> tuple[int, int, int]:
    """Elements of x, y and w."""
    x = conv.n * math.prod(pair(conv.size)) * conv.channels
    return x, conv.n * math.prod(conv.output) * conv.maps, conv.maps * math.prod(pair(conv.kernel)) * conv.channels


def product(conv: Conv, operation: str, precision: str) -> Product:
    vector = 8 if precision == "bf16" else 4
    vector_c, vector_k = conv.channels % vector == 0, conv.maps % vector == 0
    pixels, (x, y, w) = conv.n * math.prod(conv.output), array_sizes(conv)
    window = math.prod(pair(conv.kernel)) * conv.channels
    if operation in ("fprop", "block"):
        return Product(operation, precision, 1, pixels, conv.maps, window, conv.channels, y, vector_c, vector_c)
    if operation == "dgrad":
        every = phases(conv)
        most, taps = (max(column) for column in zip(*every, strict=True))
        sizes = conv.n * most, conv.channels, taps * conv.maps, conv.maps, x
        return Product(operation, precision, len(every), *sizes, vector_k, vector_c)
    return Product(operation, precision, 1, conv.maps, window, pixels, conv.channels, w, vector_k, vector_c)


def candidates(every: Iterable[Kernel], wanted: Product) -> list[Kernel]:
    """The kernels of the first list that the operands allow, in the order of tiles.cuh."""
    of_operation = [
        k for k in every if (k.operation, k.tile.precision) == (wanted.operation, wanted.precision) and k.dense
    ]
    vector = 8 if wanted.precision == "bf16" else 4
    a = vector if wanted.vector_a else 1
    b = vector if wanted.vector_a and wanted.vector_b else 1
    found = [k for k in of_operation if (k.width_a, k.width_b) == (a, b) and k.serves(wanted.window, wanted.channels)]
    return sorted(found, key=lambda k: (-k.tile.rows * k.tile.cols, -k.tile.rows))


def _cost(tile: Tile, blocks: int, k_tiles: int, gpu: Gpu) -> float:
    return math.ceil(blocks / gpu.sms) * tile.multiply_adds * k_tiles / tile.efficiency


def _on_sm(kernel: Kernel, gpu: Gpu) -> int:
    """Blocks at once (blocks_on_sm)."""
    return max(1, min(kernel.tile.min_blocks, gpu.shared // (kernel.dynamic_shared + gpu_sass.RESERVED)))


def _begin_cost(tile: Tile, blocks: int, on_sm: int, gpu: Gpu) -> float:
    waves = math.ceil(blocks / gpu.sms)
    return waves / min(max(waves, 1), on_sm) * _BLOCK_K_TILES * tile.multiply_adds / tile.efficiency


def _exposed_cost(kernel: Kernel, blocks: int, gpu: Gpu) -> float:
    tile = kernel.tile
    return _begin_cost(tile, blocks, _on_sm(kernel, gpu), gpu) - _begin_cost(tile, blocks, tile.min_blocks, gpu)


def _split_cost(wanted: Product, plan: Plan, gpu: Gpu) -> float:
    whole, pieces = plan.blocks
    moved = 4.0 * (plan.splits + 1) * wanted.size * plan.share
    begun = _begin_cost(plan.kernel.tile, pieces, _on_sm(plan.kernel, gpu), gpu)
    return _exposed_cost(plan.kernel, whole, gpu) + begun + moved * _FMAS_PER_BYTE[wanted.precision] / gpu.sms


def _tiles(kernel: Kernel, wanted: Product) -> int:
    across = kernel.tiles_across(wanted.cols, wanted.channels)
    return wanted.batches * math.ceil(wanted.rows / kernel.tile.rows) * across


def plan_splits(kernel: Kernel, wanted: Product, splits: int, gpu: Gpu) -> Plan:
    """Of the tiles beyond full waves."""
    tile, tiles = kernel.tile, _tiles(kernel, wanted)
    whole = tiles - tiles % gpu.sms
    k_tiles = kernel.k_tiles(wanted.depth, wanted.channels)
    most = min(splits, k_tiles) if whole < tiles else 1
    per_split = math.ceil(k_tiles / max(1, most))
    splits = max(1, math.ceil(k_tiles / max(1, per_split)))
    plan = Plan(kernel, tiles, whole if splits > 1 else tiles, splits, (k_tiles, per_split), 0)
    whole, pieces = plan.blocks
    cost = _cost(tile, whole, k_tiles, gpu) + _cost(tile, pieces, per_split, gpu) + _split_cost(wanted, plan, gpu)
    return dataclasses.replace(plan, cost=cost)


def plan_tile(kernel: Kernel, wanted: Product, gpu: Gpu) -> Plan:
    tiles = _tiles(kernel, wanted)
    rest = tiles % gpu.sms
    if not rest or (kernel.tile.is_tma and wanted.batches > 1 and rest < tiles):
        return plan_splits(kernel, wanted, 1, gpu)
    most = kernel.k_tiles(wanted.depth, wanted.channels) // _MIN_K_TILES_PER_SPLIT
    least = 1 if rest < tiles else min(_on_sm(kernel, gpu) * gpu.sms // rest, most)
    best = plan_splits(kernel, wanted, least, gpu)
    for waves in range(1, _MOST_WAVES + 1):
        splits = min(waves * gpu.sms // rest, most)
        if splits > best.splits:
            best = min(best, plan_splits(kernel, wanted, splits, gpu), key=lambda plan: plan.cost)
    return best


def _whole(kernel: Kernel, tiles: int, k_tiles: int, gpu: Gpu) -> Plan:
    """Without splits."""
    cost = _cost(kernel.tile, tiles, k_tiles, gpu) + _exposed_cost(kernel, tiles, gpu)
    return Plan(kernel, tiles, tiles, 1, (k_tiles, k_tiles), cost)


def cheapest_plan(every: Iterable[Kernel], wanted: Product, gpu: Gpu) -> Plan:
    """NoKernelError where none does this."""
    plans = [plan_tile(kernel, wanted, gpu) for kernel in candidates(every, wanted)]
    if not plans:
        raise NoKernelError(f"no kernel for {wanted}")
    return min(plans, key=lambda plan: plan.cost)


def cells(size: int, window: int, stride: int, pad: int) -> tuple[int, int]:
    """Of an axis of x, and the positions of y that each sees (PatchAxis, dgrad_patch.cuh)."""
    found = []
    for shift in (0, pad % stride):
        first = math.ceil((pad - shift - (window - 1)) / stride)
        found.append(((size - 1 + shift) // stride + 1, (pad - shift + stride - 1) // stride - first + 1))
    return min(found, key=math.prod)


def patch_plans(every: Iterable[Kernel], conv: Conv, precision: str, gpu: Gpu) -> list[Plan]:
    """Of the transposed convolution to few channels: one for each of its kernels that may run."""
    (down, taps_down), (across, taps_across) = itertools.starmap(cells, zip(*map(pair, _geometry(conv)), strict=True))
    columns = math.prod(pair(conv.stride)) * conv.channels
    aligned = conv.maps % (8 if precision == "bf16" else 4) == 0
    if conv.channels > _MAX_PATCH_CHANNELS or columns > _MAX_PATCH_COLUMNS or taps_across > 9 or not aligned:
        return []
    tap_rows = min((4, 3, 2), key=lambda rows: -(-taps_down // rows) * rows)
    plans = []
    for one in every:
        if not isinstance(one, PatchKernel) or (one.tile.precision, one.tile.tap_rows) != (precision, tap_rows):
            continue
        kernel, tile = one.with_taps(taps_down, taps_across), one.tile
        if kernel.dynamic_shared > gpu.shared - gpu_sass.RESERVED:
            continue
        strip = conv.n * math.ceil(down / 8) * (across + taps_across - 1) - (taps_across - 1)
        tiles = math.ceil(strip / 64) * math.ceil(columns / tile.cols)
        k_tiles, slots = math.ceil(conv.maps / tile.depth), gpu.sms * _on_sm(kernel, gpu)
        per_split = math.ceil(k_tiles / min(slots // tiles, k_tiles)) if tiles * 2 <= slots else k_tiles
        splits = math.ceil(k_tiles / per_split)
        plan = Plan(kernel, tiles, 0 if splits > 1 else tiles, splits, (k_tiles, per_split), 0)
        cost = _cost(tile, tiles * splits, per_split, gpu) * kernel.taps_computed
        cost += _split_cost(product(conv, "dgrad", precision), plan, gpu)
        plans.append(dataclasses.replace(plan, cost=cost))
    return sorted(plans, key=lambda plan: -plan.kernel.tile.cols)


@dataclass(frozen=True)
class Tiling:
    """How a pooled map is cut (pooled_regions.cuh)."""

    tiles: int  # of an image
    height: int  # of the region of each
    width: int


def tiling(conv: Conv, pool: Pool | None, rows: int, filled: int = 1) -> Tiling | None:
    """The one with the fewest tiles, or of a map without a pool; None if no window fits."""
    p, q = pool.output if pool else conv.output
    window, stride = (pair(pool.window), pair(pool.stride)) if pool else ((1, 1), (1, 1))
    best = None
    for down in range(1, p + 1):
        height = (down - 1) * stride[0] + window[0]
        most = rows // height // filled * filled
        if most < window[1]:
            break
        across = min(q, (most - window[1]) // stride[1] + 1)
        tiles = math.ceil(p / down) * math.ceil(q / across)
        if best is None or tiles < best.tiles:
            best = Tiling(tiles, height, (across - 1) * stride[1] + window[1])
    return best


def _rows_cost(tile: Tile, rows: int) -> float:
    """rows_cost (block_tma.h)."""
    return max(64 * (rows + tile.cols), tile.rows * tile.cols * 7 / 16) * tile.depth


@dataclass(frozen=True)
class MapCut:
    """How a map is cut into tiles whose rows the tensor memory accelerator copies (block_tma.h)."""

    tiles: int  # of all images
    rows: int  # of each, that are copied


def _cut_into_windows(block: Block, tile: Tile) -> MapCut | None:
    conv, pool = block.conv, block.pool
    (p, q), (down, across), window = pool.output, conv.output, pair(pool.window)
    line = tile.rows // window[0] // 8 * 8
    side_by_side = pair(pool.stride) == window and pair(pool.padding) == (0, 0)
    if not side_by_side or p * window[0] > down or q * window[1] > across or line < window[1]:
        return None
    (stride_h, stride_w), (r, s) = pair(conv.stride), pair(conv.kernel)
    if max(window[0] * stride_h, stride_w) > 8 or r + (window[0] - 1) * stride_h > 255 or s > 255:
        return None
    axes = zip(pair(conv.size), pair(conv.padding), (p, q * window[1]), (window[0] * stride_h, stride_w), strict=True)
    corners = [corner for size, pad, n, step in axes for corner in (-pad, (n - 1) * step - pad - (size - 1))]
    if min(corners) < -128 or max(corners) > 127:
        return None
    return MapCut(math.ceil(block.n * p * q / (line // window[1])), window[0] * line)


def _cut_into_regions(block: Block, tile: Tile) -> MapCut | None:
    (p, q), window, stride = block.pool.output, pair(block.pool.window), pair(block.pool.stride)
    step_h, step_w = pair(block.conv.stride)
    best, least = None, math.inf
    for down in range(1, p + 1):
        height = (down - 1) * stride[0] + window[0]
        most = min(tile.rows // height, (_MAX_BOX - 1) // step_w + 1)
        if most < window[1] or (height - 1) * step_h + 1 > _MAX_BOX:
            break
        across = math.ceil(q / ((most - window[1]) // stride[1] + 1))
        cut = MapCut(math.ceil(p / down) * across, height * ((math.ceil(q / across) - 1) * stride[1] + window[1]))
        if cut.tiles * _rows_cost(tile, cut.rows) < least:
            best, least = cut, cut.tiles * _rows_cost(tile, cut.rows)
    return best and dataclasses.replace(best, tiles=block.n * best.tiles)


def _tma_block_plans(fitting: Sequence[Kernel], block: Block, wanted: Product, gpu: Gpu) -> list[Plan]:
    """One for each kernel of block_tma.cuh that may run."""
    plans = []
    for kernel in (one for one in fitting if one.tile.is_tma):
        if cut := _cut_into_windows(block, kernel.tile) or _cut_into_regions(block, kernel.tile):
            tiles = cut.tiles * math.ceil(block.conv.maps / kernel.tile.cols)
            k_tiles = kernel.k_tiles(wanted.depth, wanted.channels)
            cost = math.ceil(tiles / gpu.sms) * _rows_cost(kernel.tile, cut.rows) * k_tiles
            plans.append(Plan(kernel, tiles, tiles, 1, (k_tiles, k_tiles), cost, cut.rows))
    return sorted(plans, key=lambda plan: _TMA_TILES.index(plan.kernel.tile.name))


def image_plans(
    every: Iterable[Kernel], conv: Conv, pool: Pool | None, operation: str, precision: str, gpu: Gpu
) -> list[Plan]:
    """Of few channels: one for each kernel of an operation ("fprop", "block", "wgrad") that reads patches of the image
    and may run (image_patch.cuh, wgrad_patch.cuh)."""
    vector = 8 if precision == "bf16" else 4
    is_wgrad = operation == "wgrad"
    if conv.channels > _MAX_IMAGE_CHANNELS or (is_wgrad and conv.maps % vector):
        return []
    pixels = vector // (4 if conv.channels > 2 else conv.channels)
    (r, s), (stride_h, stride_w) = pair(conv.kernel), pair(conv.stride)
    shifts, step, taps = pixels // math.gcd(stride_w, pixels), stride_w // math.gcd(stride_w, pixels), -(-s // pixels)
    plans = []
    for one in every:
        tile = one.tile
        if not isinstance(one, ImageKernel) or (one.operation, tile.precision) != (f"patch {operation}", precision):
            continue
        has_chunk = precision != "fp32" or tile.chunk == (3 if conv.channels == 3 else 4)
        filled = shifts * tile.group
        if not has_chunk or not (cut := tiling(conv, pool, tile.region or tile.rows, filled)):
            continue
        if tile.group > 1 and cut.width < filled:
            continue
        across = -(-cut.width // filled) * tile.group
        pitch = across + -(-((taps - 1) // step) // 8) * 8
        lines = cut.height + (r - 1) // stride_h
        kernel = one.with_patch(min(step, taps) * min(r, stride_h) * lines * shifts * pitch, r * taps)
        if kernel.dynamic_shared > gpu.shared - gpu_sass.RESERVED:
            continue
        regions = conv.n * cut.tiles
        if is_wgrad:
            of_chunk = tile.chunk if precision == "fp32" else vector
            tiles = math.ceil(conv.maps / tile.rows) * math.ceil(kernel.chunks * of_chunk / tile.cols)
            slots = gpu.sms * _on_sm(kernel, gpu)
            per_split = math.ceil(regions / min(slots // tiles, regions)) if tiles * 2 <= slots else regions
            splits = math.ceil(regions / per_split)
            line, down = shifts * across, math.ceil(conv.output[0] / cut.height)
            others = (down * cut.height - conv.output[0]) * line // tile.depth  # of regions before the last
            of_region = math.ceil(cut.height * line / tile.depth) - others / down
            k_tiles = regions * of_region, per_split * of_region
            plan = Plan(kernel, tiles, 0 if splits > 1 else tiles, splits, k_tiles, 0)
            cost = _cost(tile, tiles * splits, per_split * tile.region // tile.depth, gpu)
            cost *= _ALONE_COST if precision == "fp32" and _on_sm(kernel, gpu) == 1 else 1
            cost += _split_cost(product(conv, operation, precision), plan, gpu)
            plans.append(dataclasses.replace(plan, cost=cost))
        else:
            plans.append(_whole(kernel, regions * math.ceil(conv.maps / tile.cols), kernel.k_tiles, gpu))
    return sorted(plans, key=lambda plan: (-plan.kernel.tile.cols, -plan.kernel.tile.rows))


def _copy_cost(conv: Conv, precision: str) -> float:
    """copy_cost (image_patch.cuh)."""
    whole = conv.channels % (8 if precision == "bf16" else 4) == 0
    return 1 if whole else _ELEMENT_COPY_COST[precision]


def conv_plan(every: Sequence[Kernel], conv: Conv, operation: str, precision: str, gpu: Gpu) -> Plan:
    """Of one of the three directions. NoKernelError."""
    if operation == "dgrad" and (patches := patch_plans(every, conv, precision, gpu)):
        patch = min(patches, key=lambda plan: plan.cost)
        aligned = dataclasses.replace(product(conv, operation, precision), vector_a=True, vector_b=False)
        if not candidates(every, aligned) or cheapest_plan(every, aligned, gpu).cost >= patch.cost:
            return patch
    wanted = product(conv, operation, precision)
    if operation in ("fprop", "wgrad") and (patches := image_plans(every, conv, None, operation, precision, gpu)):
        patch = min(patches, key=lambda plan: plan.cost)
        copied = _copy_cost(conv, precision)
        if not candidates(every, wanted) or patch.cost < copied * cheapest_plan(every, wanted, gpu).cost:
            return patch
    return cheapest_plan(every, wanted, gpu)


def block_plan(every: Sequence[Kernel], block: Block, precision: str, gpu: Gpu) -> Plan | None:
    """Of the fused kernels; None where two operations are cheaper. If there are any with the tensor memory accelerator,
    of those alone."""
    conv, copies = block.conv, _copy_cost(block.conv, precision)
    composed = conv_plan(every, conv, "fprop", precision, gpu)
    if isinstance(composed.kernel, ImageKernel):
        best, least = None, composed.cost
    else:
        aligned = dataclasses.replace(product(conv, "fprop", precision), vector_a=True, vector_b=True)
        best, least = None, copies * cheapest_plan(every, aligned, gpu).cost
    written = (2 if precision == "bf16" else 4) * conv.n * math.prod(conv.output) * conv.maps
    least += 2 * written * _FMAS_PER_BYTE[precision] / gpu.sms
    wanted = product(conv, "block", precision)
    fitting, plans = candidates(every, wanted), []
    for kernel in (one for one in fitting if not one.tile.is_tma):
        cut, k_tiles = tiling(conv, block.pool, kernel.tile.rows), math.ceil(wanted.depth / kernel.tile.depth)
        if cut and kernel.dynamic_shared <= gpu.shared - gpu_sass.RESERVED:
            plan = _whole(kernel, conv.n * cut.tiles * math.ceil(conv.maps / kernel.tile.cols), k_tiles, gpu)
            plans.append(dataclasses.replace(plan, cost=copies * plan.cost))
    plans += image_plans(every, conv, block.pool, "block", precision, gpu)
    for plan in _tma_block_plans(fitting, block, wanted, gpu) or plans:
        if plan.cost < least:
            best, least = plan, plan.cost
    return best


def unpool_wgrad_plan(every: Sequence[Kernel], block: Block, precision: str, gpu: Gpu) -> Plan | None:
    """Of the weight gradient that is unpooled while it is read; None where a map is written first (block_grad.cuh)."""
    if pair(block.pool.stride) != (2, 2) or max(pair(block.pool.window)) > 3:
        return None
    quads = math.prod(
        math.ceil((size + pad % 2) / 2) for size, pad in zip(block.conv.output, pair(block.pool.padding), strict=True)
    )
    wanted = dataclasses.replace(product(block.conv, "unpool wgrad", precision), depth=4 * block.n * quads)
    narrowest = cheapest_plan(every, dataclasses.replace(wanted, vector_a=True), gpu).kernel.tile.cols
    if isinstance(conv_plan(every, block.conv, "wgrad", precision, gpu).kernel, ImageKernel):
        return None
    if math.ceil(wanted.cols / narrowest) > _MAX_GATHERS:
        return None
    return cheapest_plan(every, wanted, gpu)
