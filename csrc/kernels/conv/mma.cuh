// The product of two k-tiles on tensor cores: mma.sync on tf32 or bfloat16 values, accumulated in
// float32.
//
// A warp computes WarpRows x WarpCols results in fragments of 16 x 8. K-tiles are 64 bytes deep: 16
// floats or 32 bfloat16s, two steps of the instruction. Its depth indices may be any, as long as A
// and B agree, and so may be the rows of the tile that a fragment's eight rows are: both are chosen
// so that 16 bytes are read at a time, into the registers in which the instruction wants them, and
// that the accumulators of a thread lie side by side. Tiles are read and filled without bank
// conflicts (tests/kernels/test_bank_conflicts.py): pitches are odd in chunks of 16 bytes, or rows
// are spaced or swizzled.
//
// Bound. Per k-tile a warp of 64 x 64 results reads 8 KB of shared memory, which takes 64 cycles,
// for 64 instructions, which take 128 cycles of the tensor cores of an A100 (512 tf32 or 1024
// bfloat16 FMAs an SM); 64 x 32: 48 for 64. The rest is copies and their addresses.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/indexing.cuh"
#include "kernels/vector.cuh"
#include "main_loop.cuh"
#include "ops.h"
#include "simt/simt.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

// ---- The instruction ----------------------------------------------------------------------------

__device__ inline void multiply_add(Tf32, float (&acc)[4], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
    simt::mma_m16n8k8_tf32(acc, a, b);
}
__device__ inline void multiply_add(Bf16, float (&acc)[4], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
    simt::mma_m16n8k16_bf16(acc, a, b);
}

// ---- Which rows of a tile the rows of a fragment are --------------------------------------------

// Row i (0 .. 7) of block b is block_row(b) + lane_row(i).
struct InOrder {
    __device__ static constexpr int block_row(int block) { return 8 * block; }
    __device__ static constexpr int lane_row(int i) { return i; }
};

// Four blocks share 32 rows: each has every fourth.
struct Spread {
    __device__ static constexpr int block_row(int block) { return block / 4 * 32 + block % 4; }
    __device__ static constexpr int lane_row(int i) { return 4 * i; }
};

// The same, but lanes 2q and 2q + 1 are 16 apart: of results whose columns these are, a thread has
// four side by side, and its quad 16.
struct Interleaved {
    __device__ static constexpr int block_row(int block) { return Spread::block_row(block); }
    __device__ static constexpr int lane_row(int i) { return i % 2 * 16 + i / 2 * 4; }
};

// ---- A k-tile of an operand in shared memory ----------------------------------------------------

// The operand's words of one lane: of each step, of each block of eight rows, of each half of the
// step's depth.
template <int Blocks>
using Words = std::uint32_t[2][Blocks][2];

// Which operand a k-tile is of.
enum class Side { kA, kB };

// Row after row, each 64 bytes.
template <class Math, int Rows>
struct MmaKMajor;

// Each lane of a quad owns 16 bytes of a row: four depths, two of either step. One more row after
// every 16.
template <int Rows>
struct MmaKMajor<Tf32, Rows> {
    static constexpr bool kIsKMajor = true;
    template <Side side>
    using Order = std::conditional_t<side == Side::kA, InOrder, Interleaved>;
    static constexpr int kSize = (Rows + Rows / 16) * 16;
    __device__ static int at(int row, int depth) { return (row + (row >> 4)) * 16 + depth; }

    // Where this lane reads from: the rows of its group from `row` on, a multiple of 32.
    template <Side side>
    __device__ static int lane_offset(int row, int lane) {
        return at(row + Order<side>::lane_row(lane / 4), lane % 4 * 4);
    }

    template <Side side, int Blocks>
    __device__ static void read(Words<Blocks>& words, const float* k_tile, int lane_offset) {
#pragma unroll
        for (int block = 0; block < Blocks; ++block) {
            const auto four = load<4>(k_tile + lane_offset + at(Order<side>::block_row(block), 0));
#pragma unroll
            for (int i = 0; i < 4; ++i)
                words[i / 2][block][i % 2] = simt::to_tf32(four.at[i]);
        }
    }
};

// The chunks of every two rows, 128 bytes, swizzled by bits 2 to 4 of the row.
template <int Rows>
struct MmaKMajor<Bf16, Rows> {
    static_assert(Rows % 32 == 0);
    static constexpr bool kIsKMajor = true;
    template <Side side>
    using Order = std::conditional_t<side == Side::kA, Spread, Interleaved>;
    static constexpr int kSize = Rows * 32;
    __device__ static int at(int row, int depth) { return (row * 32 + depth) ^ (row / 4 % 8 * 8); }

    // Each lane points to 16 bytes of one of eight rows in one of four matrices. A: two blocks,
    // and the same in the second half of the step. B: one block, both halves of both steps.
    template <Side side>
    __device__ static int lane_offset(int row, int lane) {
        const int matrix = lane / 8;
        row += Order<side>::lane_row(lane % 8);
        return side == Side::kA ? at(row + matrix % 2, matrix / 2 * 8) : at(row, matrix * 8);
    }

    // What differs in a bit that is swizzled has an offset that differs in this bit.
    template <Side side, int Blocks>
    __device__ static void read(Words<Blocks>& words, const BFloat16* k_tile, int lane_offset) {
        std::uint32_t four[4];
        if constexpr (side == Side::kA) {
#pragma unroll
            for (int step = 0; step < 2; ++step)
#pragma unroll
                for (int block = 0; block < Blocks; block += 2) {
                    simt::load_matrix_x4(
                        four, k_tile + (lane_offset ^ step * 16) + Spread::block_row(block) * 32);
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        words[step][block + i % 2][i / 2] = four[i];
                }
        } else {
#pragma unroll
            for (int block = 0; block < Blocks; ++block) {
                simt::load_matrix_x4(four, k_tile + (lane_offset ^ block % 2 * 32) +
                                               Spread::block_row(block / 2 * 2) * 32);
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    words[i / 2][block][i % 2] = four[i];
            }
        }
    }
};

// Depth after depth, each a line of kRows values.
template <class Math, int Rows>
struct MmaMNMajor;

// Line 4 * c + q holds depth 4 * q + c: the lines that a quad reads together follow each other, and
// 16 bytes of one serve four blocks.
template <int Rows>
struct MmaMNMajor<Tf32, Rows> {
    static_assert(Rows % 32 == 0);
    static constexpr bool kIsKMajor = false;
    template <Side>
    using Order = Interleaved;
    static constexpr int kPitch = Rows + 4;
    static constexpr int kSize = 16 * kPitch;
    __device__ static int at(int row, int depth) {
        return (depth % 4 * 4 + depth / 4) * kPitch + row;
    }

    template <Side>
    __device__ static int lane_offset(int row, int lane) {
        return lane % 4 * kPitch + row + Interleaved::lane_row(lane / 4);
    }

    template <Side, int Blocks>
    __device__ static void read(Words<Blocks>& words, const float* k_tile, int lane_offset) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int block = 0; block < Blocks; block += 4) {
                const auto four =
                    load<4>(k_tile + lane_offset + i * 4 * kPitch + Interleaved::block_row(block));
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    words[i / 2][block + j][i % 2] = simt::to_tf32(four.at[j]);
            }
    }
};

template <int Rows>
struct MmaMNMajor<Bf16, Rows> {
    static_assert(Rows % 32 == 0);
    static constexpr bool kIsKMajor = false;
    template <Side>
    using Order = InOrder;
    static constexpr int kPitch = Rows + 8;
    static constexpr int kSize = 32 * kPitch;
    __device__ static int at(int row, int depth) { return depth * kPitch + row; }

    // Each lane points to eight rows in one of eight lines of one of four matrices: two blocks in
    // both halves of a step, in the order in which a fragment has them.
    template <Side side>
    __device__ static int lane_offset(int row, int lane) {
        const int odd = lane / 8 % 2, second = lane / 16;
        const int block = side == Side::kA ? odd : second, half = side == Side::kA ? second : odd;
        return (half * 8 + lane % 8) * kPitch + row + block * 8;
    }

    template <Side side, int Blocks>
    __device__ static void read(Words<Blocks>& words, const BFloat16* k_tile, int lane_offset) {
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
            for (int block = 0; block < Blocks; block += 2) {
                std::uint32_t four[4];
                simt::load_matrix_x4_trans(
                    four, k_tile + lane_offset + step * 16 * kPitch + InOrder::block_row(block));
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if constexpr (side == Side::kA)
                        words[step][block + i % 2][i / 2] = four[i];
                    else
                        words[step][block + i / 2][i % 2] = four[i];
                }
            }
    }
};

// ---- The accumulators of a thread ---------------------------------------------------------------

// acc[i][j] is the fragment of blocks 2i and 2i + 1 of A and block j of B: of rows group and group
// + 8, columns 2 * quad and 2 * quad + 1.
template <class Tile, class LayoutA, class LayoutB>
class Mma {
  public:
    using Math = typename Tile::Math;
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    using OrderA = typename LayoutA::template Order<Side::kA>;
    using OrderB = typename LayoutB::template Order<Side::kB>;
    static constexpr int kBlocksA = Tile::kWarpRows / 8, kBlocksB = Tile::kWarpCols / 8;
    static constexpr bool kIsInterleaved = std::is_same_v<OrderB, Interleaved>;
    static constexpr int kRows = kBlocksA;
    static constexpr int kVector = kIsInterleaved ? 4 : 2;  // columns side by side
    static constexpr int kVectors = 2 * kBlocksB / kVector;

    __device__ Mma() {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        const int row = warp / Tile::kWarpsN * Tile::kWarpRows;
        const int col = warp % Tile::kWarpsN * Tile::kWarpCols;
        row0_ = row + OrderA::lane_row(lane / 4);
        col0_ = col + OrderB::lane_row(lane % 4 * 2);
        offset_a_ = LayoutA::template lane_offset<Side::kA>(row, lane);
        offset_b_ = LayoutB::template lane_offset<Side::kB>(col, lane);
    }

    __device__ int row(int i) const { return row0_ + OrderA::block_row(i); }
    __device__ int col(int vector) const {
        return col0_ + (kIsInterleaved ? vector / 2 * 32 + vector % 2 * 16 : vector * 8);
    }

    __device__ static float& at(Accumulators& acc, int i, int vector, int e) {
        return kIsInterleaved ? acc[i / 2][vector / 2 * 4 + e][i % 2 * 2 + vector % 2]
                              : acc[i / 2][vector][i % 2 * 2 + e];
    }

    // acc += A * B for one k-tile of each.
    __device__ void add(const Element* tile_a, const Element* tile_b, Accumulators& acc) const {
        Words<kBlocksA> a;
        Words<kBlocksB> b;
        LayoutA::template read<Side::kA>(a, tile_a, offset_a_);
        LayoutB::template read<Side::kB>(b, tile_b, offset_b_);
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
            for (int i = 0; i < kBlocksA; i += 2) {
                const auto& top = a[step][i];
                const auto& bottom = a[step][i + 1];
                const std::uint32_t rows[4] = {top[0], bottom[0], top[1], bottom[1]};
#pragma unroll
                for (int j = 0; j < kBlocksB; ++j)
                    multiply_add(Math(), acc[i / 2][j], rows, b[step][j]);
            }
    }

  private:
    int row0_, col0_, offset_a_, offset_b_;
};

// ---- The tile -----------------------------------------------------------------------------------

// WarpsM x WarpsN warps of WarpRows x WarpCols results each.
template <class Math_, int WarpsM, int WarpsN, int WarpRows, int WarpCols, int Stages,
          int MinBlocks>
struct MmaTile {
    static_assert(WarpRows % 32 == 0 && WarpCols % 32 == 0);
    using Math = Math_;
    using Element = typename Math::Element;
    using Accumulators = float[WarpRows / 16][WarpCols / 8][4];
    static constexpr MainLoop kMainLoop = MainLoop::kMma;
    static constexpr int kWarpsN = WarpsN;
    static constexpr int kWarpRows = WarpRows, kWarpCols = WarpCols;
    static constexpr int kRows = WarpsM * WarpRows;
    static constexpr int kCols = WarpsN * WarpCols;
    static constexpr int kDepth = 64 / sizeof(Element);
    static constexpr int kStages = Stages;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr int kMinBlocks = MinBlocks;
    // Time of the tensor cores that is used, beside that of 128 x 128 results: what bounds a tile is
    // its operands' way from L2 (benchmarks/results/gpu-static-sm_90a.md).
    static constexpr double kEfficiency = std::min(1.0, kRows* kCols / (64.0 * (kRows + kCols)));

    template <int Rows>
    using KMajor = MmaKMajor<Math, Rows>;
    template <int Rows>
    using MNMajor = MmaMNMajor<Math, Rows>;
    template <class LayoutA, class LayoutB>
    using Multiplier = Mma<MmaTile, LayoutA, LayoutB>;
    template <class A, class B>
    using Loop = CopyAsyncLoop<MmaTile, A, B>;
};

}  // namespace zfcuda::conv
