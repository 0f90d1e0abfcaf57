"""What the machine code of the convolution kernels allows: GPUs, tiles, and the bound of a k-tile.

A k-tile takes an SM at least the cycles of its busiest pipe (`Kernel.cycles`), whatever the latencies: blocks that
share an SM share its pipes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import gpu_sass

PRECISIONS = {"Fp32": "fp32", "Tf32": "tf32", "Bf16": "bf16"}
_ROW = 16  # bytes of a WindowRow (windows.cuh)


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
class Tile:
    """What a block computes, from the template arguments of csrc/kernels/conv/mma.cuh and ffma.cuh."""

    precision: str
    rows: int
    cols: int
    warps: int
    stages: int
    min_blocks: int
    efficiency: float  # kEfficiency
    more_reads: int  # cycles beyond one an instruction in which a warp reads its operands, a k-tile

    @classmethod
    def parse(cls, text: str) -> Tile | None:
        """Of "MmaTile<Bf16, 2, 2, 64, 64, 4, 2>" or "FfmaTile<2, 4, 8, 4, 8, 8, 3, 2>"."""
        if found := re.match(r"MmaTile<(\w+), ([\d, ]+)>", text):
            warps_m, warps_n, rows, cols, stages, blocks = map(int, found[2].split(", "))
            precision, ratio = PRECISIONS[found[1]], rows * cols / (rows + cols)
            efficiency = 1.0 if ratio >= 32 else 0.8 if ratio >= 20 else 0.6
            more = 3 * (rows + cols) // 8 if precision == "tf32" else 0  # 16 bytes a lane; else by ldmatrix
            size = warps_m * rows, warps_n * cols, warps_m * warps_n
            return cls(precision, *size, stages, blocks, efficiency, more)
        if found := re.match(r"FfmaTile<([\d, ]+)>", text):
            warps_m, warps_n, lanes_m, lanes_n, m, n, stages, blocks = map(int, found[1].split(", "))
            efficiency = 1.0 if m * n >= 64 else 0.85 if m * n >= 32 else 0.6
            more = 4 * (m * (max(lanes_m, 8) // 8 - 1) + n * (max(lanes_n, 8) // 8 - 1))
            size = warps_m * lanes_m * m, warps_n * lanes_n * n, warps_m * warps_n
            return cls("fp32", *size, stages, blocks, efficiency, more)
        return None

    @property
    def main_loop(self) -> str:
        return "ffma" if self.precision == "fp32" else "mma"

    @property
    def name(self) -> str:
        """As plans have it."""
        return f"{self.main_loop} {self.rows}x{self.cols}"

    @property
    def element(self) -> int:
        """Bytes."""
        return 2 if self.precision == "bf16" else 4

    @property
    def depth(self) -> int:
        return 64 // self.element

    @property
    def multiply_adds(self) -> int:
        """Of a k-tile."""
        return self.rows * self.cols * self.depth

    def k_major(self, rows: int) -> int:
        """Bytes of a k-tile of an operand."""
        return {"fp32": rows * 72, "tf32": (rows + rows // 16) * 64, "bf16": rows * 64}[self.precision]

    def mn_major(self, rows: int) -> int:
        return 64 * (rows + {"fp32": 8, "tf32": 4, "bf16": 8}[self.precision])


@dataclass(frozen=True)
class Kernel:
    """A product of csrc/kernels/conv/ as compiled."""

    code: gpu_sass.Code
    template: str  # "fprop_kernel<MmaTile<Bf16, 2, 2, 64, 64, 4, 2>, 8, true>"
    operation: str  # fprop, block, dgrad, wgrad, unpool wgrad
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

    @property
    def copies_a(self) -> bool:
        """Whether operand A lies in memory as it is used."""
        return not self.operation.startswith("unpool")

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
        per_warp = self.tile.multiply_adds // self.tile.warps
        counts = loop.once
        if again := loop.repeated.multiply_adds:
            counts = counts.plus(loop.repeated, round(per_warp / again))
        if not 1 <= counts.multiply_adds / per_warp < 1.05:  # a few FFMAs may be of something else
            raise ValueError(
                f"{self.name}: {counts.multiply_adds} multiply-adds a turn of the main loop, {per_warp} are a k-tile's"
            )
        return counts

    def cycles(self, gpu: Gpu, rows: float | None = None, cols: float | None = None) -> dict[str, float]:
        """Of an SM for a k-tile of one block, by what may bound it; `rows`, `cols`: those of the tile that exist."""
        counts, tile = self.counts, self.tile
        busy = {term: cycles * tile.warps for term, cycles in busy_cycles(counts, gpu).items()}
        tensor = counts.multiply_adds * tile.warps / gpu.peaks[tile.precision] / gpu.mma_share
        # Copies of 16 bytes pass L1 by; what others and loads find there need not come from L2.
        from_l2 = (tile.rows if rows is None else rows) * (self.copies_a and self.width_a * tile.element == 16)
        from_l2 += (tile.cols if cols is None else cols) * (self.width_b * tile.element == 16)
        return {
            "tensor": tensor if counts.pipes["tensor"] else 0.0,
            **busy,
            "shared": busy["shared"] + tile.more_reads * tile.warps,
            "L2": from_l2 * 64 / gpu.l2,
        }

    def bound(self, gpu: Gpu, rows: float | None = None, cols: float | None = None) -> tuple[str, float]:
        """What it is, and cycles."""
        return max(self.cycles(gpu, rows, cols).items(), key=lambda term: term[1])

    def share(self, gpu: Gpu) -> float:
        """Of the peak of its precision, at most."""
        return self.tile.multiply_adds / gpu.peaks[self.tile.precision] / self.bound(gpu)[1]


def plain(name: str) -> str:
    """A demangled name without the project's namespaces."""
    return re.sub(r"\b(?:zfcuda|conv)::", "", name)


def kernels(codes: Sequence[gpu_sass.Code], names: Sequence[str]) -> list[Kernel]:
    """The products among them, whose plain names these are."""
    found = [Kernel.parse(code, name) for code, name in zip(codes, names, strict=True)]
    return sorted((one for one in found if one), key=lambda one: (one.operation, one.name))
