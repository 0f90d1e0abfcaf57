"""Tiles of the convolution kernels, as plans choose among them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PRECISIONS = {"Fp32": "fp32", "Tf32": "tf32", "Bf16": "bf16"}
CELLS = 8, 64  # rows and columns that the tile of a patch has (patch_tiles.cuh)
PIXEL = 32  # bytes that a stage of it has of a pixel


@dataclass(frozen=True)
class Tile:
    """What a block computes, from the template arguments of csrc/kernels/conv/mma.cuh, wgmma.cuh, tma.cuh, ffma.cuh,
    patch_tiles.cuh, image_patch.cuh and wgrad_patch.cuh."""

    precision: str
    rows: int
    cols: int
    warps: int  # that multiply
    stages: int
    min_blocks: int
    efficiency: float  # kEfficiency
    more_reads: int  # cycles beyond one an instruction in which a warp reads its operands, a k-tile; of a patch, a turn
    tap_rows: int = 0  # of a patch of y: taps below each other that are multiplied in a turn of the loop over taps
    of_image: bool = False  # its rows are read from a patch of the image
    chunk: int = 4  # elements of 16 bytes that are multiplied, in float32
    region: int = 0  # pixels of the map, at most, whose patch of the image a weight gradient reads at once
    group: int = 1  # of these, neighbours that are multiplied together
    is_wgmma: bool = False
    is_tma: bool = False  # and its operands are copied by the tensor memory accelerator

    @classmethod
    def parse(cls, text: str) -> Tile | None:
        """Of "MmaTile<Bf16, 2, 2, 64, 64, 4, 2>", "WgmmaTile<Bf16, 2, 256, 4, 1>",
        "TmaTile<Bf16, 3, 1, 2, 128, 4, 192>", "FfmaTile<2, 4, 8, 4, 8, 8, 3, 2>", "PatchTile<Bf16, 16, 4>",
        "ImageTile<Bf16, 2, 2, 64, 48, 3, 3>", "WgradImageTile<Bf16, 2, 2, 48, 56, 3, 3>",
        "FfmaImageTile<2, 3, 3, 3, 2>", "FfmaWgradImageTile<4, 6, 7, 3, 3, 2>"."""
        if found := re.match(r"MmaTile<(\w+), ([\d, ]+)>", text):
            warps_m, warps_n, rows, cols, stages, blocks = map(int, found[2].split(", "))
            precision = PRECISIONS[found[1]]
            more = 3 * (rows + cols) // 8 if precision == "tf32" else 0  # 16 bytes a lane; else by ldmatrix
            size = warps_m * rows, warps_n * cols, warps_m * warps_n
            efficiency = min(1.0, size[0] * size[1] / (64.0 * (size[0] + size[1])))
            return cls(precision, *size, stages, blocks, efficiency, more)
        if found := re.match(r"WgmmaTile<(\w+), ([\d, ]+)>", text):
            groups, cols, stages, blocks = map(int, found[2].split(", "))
            rows = 64 * groups
            efficiency = 2 * rows * cols / (rows + cols) / 128
            more = (64 + cols) // 4  # a warpgroup's tensor cores read both operands, lines of 128 bytes
            size = rows, cols, 4 * groups
            return cls(PRECISIONS[found[1]], *size, stages, blocks, efficiency, more, is_wgmma=True)
        if found := re.match(r"TmaTile<(\w+), ([\d, ]+)>", text):
            groups, row_blocks, col_blocks, block_cols, stages, rows = map(int, found[2].split(", "))
            cols = col_blocks * block_cols
            efficiency = 2 * rows * cols / (rows + cols) / 128
            more = row_blocks * col_blocks * (64 + block_cols) // 4  # as above, for each instruction
            size = rows, cols, 4 * groups
            return cls(PRECISIONS[found[1]], *size, stages, 1, efficiency, more, is_wgmma=True, is_tma=True)
        if found := re.match(r"FfmaTile<([\d, ]+)>", text):
            warps_m, warps_n, lanes_m, lanes_n, m, n, stages, blocks = map(int, found[1].split(", "))
            efficiency = 1.0 if m * n >= 64 else 0.85 if m * n >= 32 else 0.6
            more = 4 * (m * (max(lanes_m, 8) // 8 - 1) + n * (max(lanes_n, 8) // 8 - 1))
            size = warps_m * lanes_m * m, warps_n * lanes_n * n, warps_m * warps_n
            return cls("fp32", *size, stages, blocks, efficiency, more)
        if found := re.match(r"FfmaImageTile<([\d, ]+)>", text):
            warps_m, warps_n, chunk, stages, blocks = map(int, found[1].split(", "))
            size = 64 * warps_m, 32 * warps_n, warps_m * warps_n
            return cls("fp32", *size, stages, blocks, 1.0, 0, of_image=True, chunk=chunk)
        if found := re.match(r"FfmaWgradImageTile<([\d, ]+)>", text):
            warps, filters, chunks, chunk, stages, blocks = map(int, found[1].split(", "))
            size = 16 * filters, warps * 2 * chunks * chunk, warps
            more = 16  # a vector of four filters a lane, for each pixel
            return cls("fp32", *size, stages, blocks, 1.0, more, of_image=True, chunk=chunk, region=256, group=4)
        if found := re.match(r"(Wgrad)?ImageTile<(\w+), ([\d, ]+)>", text):
            warps_m, warps_n, rows, cols, stages, blocks = map(int, found[3].split(", "))
            size = warps_m * rows, warps_n * cols, warps_m * warps_n
            more = 0 if found[1] else 3 * 2 * cols // 16  # filters, 16 bytes a lane
            region = 512 if found[1] else 0
            return cls(PRECISIONS[found[2]], *size, stages, blocks, 0.8, more, of_image=True, region=region)
        if found := re.match(r"PatchTile<(\w+), (\d+), (\d+)>", text):
            precision, cols, tap_rows = PRECISIONS[found[1]], int(found[2]), int(found[3])
            wide = cols >= (12 if precision == "fp32" else 16)
            # Filters 4 bytes a lane and column block of 4; in float32 filters are the same for all lanes, pixels not.
            more = 3 * (4 + tap_rows - 1) if precision == "fp32" else tap_rows * (cols // 4 - 1)
            return cls(precision, math.prod(CELLS), cols, 4, 2, 3, 0.9 if wide else 0.6, more, tap_rows)
        return None

    @property
    def main_loop(self) -> str:
        if self.of_image:
            return "patch"
        if self.is_wgmma:
            return "tma" if self.is_tma else "wgmma"
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
    def line(self) -> int:
        """Bytes that a row has in a k-tile."""
        if self.tap_rows:
            return PIXEL
        return 128 if self.is_wgmma else 64 if self.region else 16 * self.chunk

    @property
    def depth(self) -> int:
        return self.line // self.element

    @property
    def multiply_adds(self) -> int:
        """Of a k-tile."""
        return self.rows * self.cols * self.depth

    @property
    def multiplied_rows(self) -> int:
        """With those whose results are not stored: warpgroups multiply 64 at a time."""
        return -(-self.rows // 64) * 64 if self.is_tma else self.rows

    def k_major(self, rows: int) -> int:
        """Bytes of a k-tile of an operand."""
        if self.is_wgmma:
            return rows * self.line
        return {"fp32": rows * 72, "tf32": (rows + rows // 16) * 64, "bf16": rows * 64}[self.precision]

    def mn_major(self, rows: int) -> int:
        if self.is_wgmma:
            return rows * self.line
        return 64 * (rows + {"fp32": 8, "tf32": 4, "bf16": 8}[self.precision])
