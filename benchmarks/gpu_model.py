"""What the machine code of the convolution kernels allows: GPUs, and the bound of a k-tile.

A k-tile takes an SM at least the cycles of its busiest pipe (`Kernel.cycles`), whatever the latencies: blocks that
share an SM share its pipes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import gpu_sass
from gpu_tile import CELLS, PIXEL, Tile

_ROW = 16  # bytes of a WindowRow (windows.cuh)
_PATCH_COLS = 72  # that a patch of y has (patch_tiles.cuh)


@dataclass(frozen=True)
class Gpu:
    """One SM's rates a cycle, and the whole GPU's."""

    name: str
    architecture: str
    sms: int
    ghz: float
    peaks: dict[str, int]  # multiply-adds of the fastest instructions, by precision
    mma_share: float  # of the peak that mma.sync reaches
    fma: int  # warp instructions
    l2: int  # bytes from L2
    copy: float  # bytes a second of a copy
    shared: int  # bytes of shared memory
    registers: int = 65536
    warps: int = 64
    blocks: int = 32

    @property
    def hertz(self) -> float:
        return self.ghz * 1e9


_H200 = Gpu(
    name="H200",
    architecture="sm_90a",
    sms=132,
    ghz=1.83,
    peaks={"fp32": 128, "tf32": 1024, "bf16": 2048},
    mma_share=0.63,
    fma=4,
    l2=28,
    copy=4.3e12,
    shared=228 << 10,
)
GPUS = (
    _H200,
    dataclasses.replace(_H200, name="H100", copy=3.0e12),
    Gpu(
        name="A100",
        architecture="sm_80",
        sms=108,
        ghz=1.41,
        peaks={"fp32": 64, "tf32": 512, "bf16": 1024},
        mma_share=1.0,
        fma=2,
        l2=32,
        copy=1.8e12,
        shared=164 << 10,
    ),
    Gpu(  # sm_86, which runs the code for sm_80
        name="A10",
        architecture="sm_80",
        sms=72,
        ghz=1.69,
        peaks={"fp32": 128, "tf32": 256, "bf16": 512},
        mma_share=1.0,
        fma=4,
        l2=20,
        copy=0.5e12,
        shared=100 << 10,
        warps=48,
        blocks=16,
    ),
)


def busy_cycles(counts: gpu_sass.Counts, gpu: Gpu) -> dict[str, float]:
    """Of an SM for these instructions of a warp, by pipe."""
    pipes = counts.pipes
    return {
        "fma": max((pipes["fma"] + pipes["imad"]) / gpu.fma, pipes["imad"] / 2),
        "alu": pipes["alu"] / 2,
        "xu": pipes["xu"] / 0.5,
        "shared": float(counts.moved),
        "issue": counts.instructions / 4,
    }


# ---- Kernels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A product of csrc/kernels/conv/ as compiled."""

    code: gpu_sass.Code
    template: str  # "fprop_kernel<MmaTile<Bf16, 2, 2, 64, 64, 4, 2>, 8, true>"
    operation: str  # fprop, block, dgrad, patch dgrad, patch fprop, patch block, patch wgrad, wgrad, unpool wgrad
    tile: Tile
    width_a: int  # of copies, in elements
    width_b: int
    dense: bool

    @classmethod
    def parse(cls, code: gpu_sass.Code, name: str) -> Kernel | None:
        """`name`: demangled, without namespaces. None where the kernel is no product on a tile, or has no main loop."""
        found = re.match(r"(?:void )?((block_fprop|fprop|dgrad|wgrad)_kernel<(.*?>), (.*)>)\(", name.replace(" >", ">"))
        if not found or code.loop is None or (tile := Tile.parse(found[3])) is None:
            return None
        template, function, _, rest = found.groups()
        operation = {"block_fprop": "block"}.get(function, function)
        if "UnpooledPixels" in rest:
            operation = f"unpool {operation}"
        widths = [int(number) for number in re.findall(r"\d+", rest)[-2:]]  # "8, 1, true", "Pixels<Tile<..>, 8>, 1"
        return cls(code, template, operation, tile, widths[0], widths[-1], not rest.endswith("false"))

    @property
    def name(self) -> str:
        """With the bytes of a copy of either operand: "fprop bf16 mma 128x128, 16/16 B"."""
        widths = f"{self.width_a * self.tile.element}/{self.width_b * self.tile.element} B"
        return f"{self.operation} {self.tile.precision} {self.tile.name}, {widths}{'' if self.dense else ', taps'}"

    def serves(self, window: int, channels: int) -> bool:
        """Whether it is the one that does, of those with its tile, a product of windows, taps of so many channels."""
        return True

    def k_tiles(self, depth: int, channels: int) -> int:
        return -(-depth // self.tile.depth)

    def tiles_across(self, cols: int, channels: int) -> int:
        return -(-cols // self.tile.cols)

    def work(self, gpu: Gpu, tiles: int, k_tiles: float, around: float, filled: tuple[float, float]) -> float:
        """Cycles of an SM for so many tiles, `filled` rows and columns of which exist; `around`: before and after the
        k-tiles of each."""
        return tiles * (k_tiles * self.bound(gpu, *filled)[1] + around)

    @property
    def turns_filters(self) -> bool:
        """Whether another kernel turns them first."""
        return False

    @property
    def copies_a(self) -> bool:
        """Whether operand A lies in memory as it is used."""
        return not self.operation.startswith("unpool")

    @property
    def multiply_adds(self) -> int:
        """Of a k-tile."""
        return self.tile.multiply_adds

    @property
    def more_reads(self) -> int:
        """Tile.more_reads, of a k-tile."""
        return self.tile.more_reads

    @property
    def copy_turns(self) -> tuple[int, ...]:
        """How often each loop that only copies repeats."""
        return ()

    @property
    def dynamic_shared(self) -> int:
        """Bytes that a launch asks for."""
        tile = self.tile
        a = tile.mn_major(tile.rows) if "wgrad" in self.operation else tile.k_major(tile.rows)
        b = tile.k_major(tile.cols) if self.operation in ("fprop", "block") else tile.mn_major(tile.cols)
        stages = tile.stages * (a + b)
        if self.operation == "block":  # the map takes their place
            stages = max(stages, tile.rows * (tile.cols + (4 if tile.element == 2 else 16)) * tile.element)
        return stages + (0 if "wgrad" in self.operation else _ROW * tile.rows)

    def resident(self, gpu: Gpu) -> int:
        """Blocks on an SM at once."""
        of_a_warp = -(-self.code.registers * 32 // 256) * 256
        warps = gpu.registers // of_a_warp // 4 * 4
        shared = self.code.shared + self.dynamic_shared + gpu_sass.RESERVED
        return min(gpu.blocks, min(warps, gpu.warps) // self.tile.warps, gpu.shared // (-(-shared // 128) * 128))

    @property
    def counts(self) -> gpu_sass.Counts:
        """A warp's instructions for one k-tile. ValueError where those of the loop cannot be one."""
        loop = self.code.loop
        assert loop is not None
        per_warp = self.multiply_adds // self.tile.rows * self.tile.multiplied_rows // self.tile.warps
        counts = loop.once
        if again := loop.repeated.multiply_adds:
            counts = counts.plus(loop.repeated, round(per_warp / again))
        for one, turns in zip(loop.copies, self.copy_turns, strict=True):
            counts = counts.plus(one, turns)
        if not 1 <= counts.multiply_adds / per_warp < 1.05:  # a few FFMAs may be of something else
            raise ValueError(
                f"{self.name}: {counts.multiply_adds} multiply-adds a turn of the main loop, {per_warp} are a k-tile's"
            )
        return counts

    def from_l2(self, rows: float, cols: float) -> float:
        """Bytes for a k-tile: copies of 16 bytes pass L1 by; what others and loads find there need not come from L2."""
        whole = rows * (self.copies_a and self.width_a * self.tile.element == 16)
        return self.tile.line * (whole + cols * (self.width_b * self.tile.element == 16))

    def cycles(self, gpu: Gpu, rows: float | None = None, cols: float | None = None) -> dict[str, float]:
        """Of an SM for a k-tile of one block, by what may bound it; `rows`, `cols`: those of the tile that exist."""
        counts, tile = self.counts, self.tile
        busy = {term: cycles * tile.warps for term, cycles in busy_cycles(counts, gpu).items()}
        reached = 1.0 if tile.is_wgmma else gpu.mma_share
        tensor = counts.multiply_adds * tile.warps / gpu.peaks[tile.precision] / reached
        from_l2 = self.from_l2(tile.rows if rows is None else rows, tile.cols if cols is None else cols)
        return {
            "tensor": tensor if counts.pipes["tensor"] else 0.0,
            **busy,
            "shared": busy["shared"] + self.more_reads * tile.warps,
            "L2": from_l2 / gpu.l2,
        }

    def bound(self, gpu: Gpu, rows: float | None = None, cols: float | None = None) -> tuple[str, float]:
        """What it is, and cycles."""
        return max(self.cycles(gpu, rows, cols).items(), key=lambda term: term[1])

    def share(self, gpu: Gpu) -> float:
        """Of the peak of its precision, at most."""
        return self.multiply_adds / gpu.peaks[self.tile.precision] / self.bound(gpu)[1]


@dataclass(frozen=True)
class TmaKernel(Kernel):
    """A convolution whose k-tiles the tensor memory accelerator copies (conv_tma.cuh, wgrad_tma.cuh, block_tma.cuh), of
    lines of `line` bytes."""

    line: int

    @classmethod
    def parse(cls, code: gpu_sass.Code, name: str) -> TmaKernel | None:
        pattern = r"(?:void )?((conv|wgrad|block)_tma_kernel<(.*?>), (\d+)(?:, (Fprop|Dgrad)Filters)?>)\("
        found = re.match(pattern, name.replace(" >", ">"))
        if not found or code.loop is None or (tile := Tile.parse(found[3])) is None:
            return None
        vector = 16 // tile.element
        return cls(code, found[1], (found[5] or found[2]).lower(), tile, vector, vector, True, int(found[4]))

    @property
    def name(self) -> str:
        return f"{self.operation} {self.tile.precision} {self.tile.name}, lines of {self.line} B"

    @property
    def transposed(self) -> TmaKernel | None:
        """The data gradient that it computes, too: in tf32, from turned filters."""
        serves_both = self.operation == "fprop" and self.tile.precision == "tf32"
        return dataclasses.replace(self, operation="dgrad") if serves_both else None

    @property
    def turns_filters(self) -> bool:
        return self.operation == "dgrad" and self.tile.precision == "tf32"

    @property
    def dynamic_shared(self) -> int:
        """Two mbarriers a stage; of a block, a line of the map for each row, and what keeps them on different banks."""
        tile = self.tile
        of_map = tile.rows * (tile.line + 8 * tile.element) if self.operation == "block" else 0
        return tile.stages * (tile.line * (tile.rows + tile.cols) + 16) + of_map

    def _lines(self, window: int, channels: int, of: int) -> int:
        """That hold a window, cut into lines of `line` bytes, each of one tap: so many lines `of` bytes."""
        lines = window // channels * -(-channels * self.tile.element // self.line)
        return -(-lines * self.line // of)

    def serves(self, window: int, channels: int) -> bool:
        """Short lines, where they make fewer k-tiles of windows (tma_windows.h)."""
        kernels = (dataclasses.replace(self, line=line) for line in (128, 64))
        long, short = (kernel._lines(window, channels, self.tile.line) for kernel in kernels)
        return self.line == (64 if short < long else 128)

    def k_tiles(self, depth: int, channels: int) -> int:
        if self.operation == "wgrad":
            return super().k_tiles(depth, channels)
        return self._lines(depth, channels, self.tile.line)

    def tiles_across(self, cols: int, channels: int) -> int:
        if self.operation != "wgrad":
            return super().tiles_across(cols, channels)
        return self._lines(cols, channels, self.tile.cols * self.tile.element)

    def work(self, gpu: Gpu, tiles: int, k_tiles: float, around: float, filled: tuple[float, float]) -> float:
        """What comes from L2 comes while tiles are stored, too."""
        cycles = self.cycles(gpu, *filled)
        copies = tiles * k_tiles * cycles.pop("L2") + around
        return max(copies, tiles * (k_tiles * max(cycles.values()) + around))


@dataclass(frozen=True)
class PatchKernel(Kernel):
    """The transposed convolution to few channels (dgrad_patch.cuh). A k-tile has all taps of a window, any size:
    in the record a square."""

    taps: tuple[int, int]  # down, across

    @classmethod
    def parse(cls, code: gpu_sass.Code, name: str) -> PatchKernel | None:
        found = re.match(r"(?:void )?(dgrad_patch_kernel<(.*?>)>)\(", name.replace(" >", ">"))
        if not found or code.loop is None or (tile := Tile.parse(found[2])) is None:
            return None
        vector = 16 // tile.element
        return cls(code, found[1], "patch dgrad", tile, vector, vector, True, (tile.tap_rows, tile.tap_rows))

    def with_taps(self, down: int, across: int) -> PatchKernel:
        return dataclasses.replace(self, taps=(down, across))

    @property
    def name(self) -> str:
        return f"{self.operation} {self.tile.precision} {self.tile.name}, {self.tile.tap_rows} tap rows"

    @property
    def turns(self) -> int:
        """Of the loop over taps, one for each group of tap rows."""
        return -(-self.taps[0] // self.tile.tap_rows) * self.taps[1]

    @property
    def taps_computed(self) -> int:
        """With those that only fill up the tap rows."""
        return self.turns * self.tile.tap_rows

    @property
    def patch_pixels(self) -> int:
        return (CELLS[0] + self.taps_computed // self.taps[1] - 1) * _PATCH_COLS

    @property
    def filter_bytes(self) -> int:
        """Of a k-tile."""
        return self.taps_computed * PIXEL * self.tile.cols

    @property
    def multiply_adds(self) -> int:
        return self.tile.multiply_adds * self.taps_computed

    @property
    def more_reads(self) -> int:
        return self.tile.more_reads * self.turns * (2 if self.tile.precision == "fp32" else 1)

    @property
    def copy_turns(self) -> tuple[int, ...]:
        """Four pixels for two threads, then 16 bytes of the filters a thread."""
        threads = 32 * self.tile.warps
        return -(-self.patch_pixels // (2 * threads)), -(-self.filter_bytes // (16 * threads))

    @property
    def dynamic_shared(self) -> int:
        stage = (self.patch_pixels + 4) * PIXEL + self.filter_bytes
        return 4 * self.patch_pixels + self.tile.stages * stage

    def from_l2(self, rows: float, cols: float) -> float:
        """All of a patch, but for the tap rows that fill up."""
        down, across = (cells + taps - 1 for cells, taps in zip(CELLS, self.taps, strict=True))
        return down * across * PIXEL + self.filter_bytes


@dataclass(frozen=True)
class ImageKernel(Kernel):
    """Of few channels, whose windows are read from a patch of the image (image_patch.cuh). Any window: in the record
    that of ZFNet's first layer, for a region of 11 x 11 pixels; 16 x 32 of the weight gradient, 16 x 16 in float32."""

    slots: int = 532  # 16 bytes each
    chunks: int = 28  # of a window

    @classmethod
    def parse(cls, code: gpu_sass.Code, name: str) -> ImageKernel | None:
        found = re.match(r"(?:void )?((block|fprop|wgrad)_patch_kernel<(.*?>)>)\(", name.replace(" >", ">"))
        if not found or code.loop is None or (tile := Tile.parse(found[3])) is None:
            return None
        vector = 16 // tile.element
        if found[2] == "wgrad":
            return cls(code, found[1], "patch wgrad", tile, vector, 1, True, slots=1824 if tile.group > 1 else 1520)
        return cls(code, found[1], f"patch {found[2]}", tile, 1, vector, True)

    def with_patch(self, slots: int, chunks: int) -> ImageKernel:
        return dataclasses.replace(self, slots=slots, chunks=chunks)

    @property
    def name(self) -> str:
        channels = ", 3 channels" if self.tile.chunk == 3 else ""
        return f"{self.operation} {self.tile.precision} {self.tile.name}{channels}"

    def from_l2(self, rows: float, cols: float) -> float:
        """Of filters or of dy: patches are copied element by element."""
        return self.tile.line * (rows if self.operation == "patch wgrad" else cols)

    @property
    def k_tiles(self) -> int:
        return -(-self.chunks // 4)

    @property
    def dynamic_shared(self) -> int:
        tile = self.tile
        if self.operation == "patch wgrad":
            pitch = tile.rows + (0 if tile.group > 1 else 8)
            return 4 * (tile.region + tile.region // tile.group) + 16 * self.slots + tile.stages * tile.line * pitch
        own = 16 * self.k_tiles + 16 * self.slots + tile.stages * tile.line * tile.cols
        if self.operation == "patch block":  # the map takes their place
            own = max(own, tile.rows * (tile.cols + 16) * tile.element)
        return 4 * tile.rows + own


def plain(name: str) -> str:
    """A demangled name without the project's namespaces, and those of files."""
    return re.sub(r"\b(?:zfcuda|conv)::|\(anonymous namespace\)::", "", name)


def kernels(codes: Sequence[gpu_sass.Code], names: Sequence[str]) -> list[Kernel]:
    """The products among them, whose plain names these are."""
    kinds = (Kernel, TmaKernel, PatchKernel, ImageKernel)
    found = [kind.parse(code, name) for code, name in zip(codes, names, strict=True) for kind in kinds]
    found += [one.transposed for one in found if isinstance(one, TmaKernel)]
    return sorted((one for one in found if one), key=lambda one: (one.operation, one.name))
