// The matrix product inside every convolution kernel, in exact float32.
//
//   acc[row, col] = sum over depth of A[row, depth] * B[col, depth]
//
// A convolution is such a product whose operands are gathered while they are loaded (implicit
// GEMM): conv_operands.cuh says how, this file multiplies what lies in shared memory.
//
// Cut. A block of WarpsM x WarpsN warps computes a tile of kRows x kCols; the lanes of a warp form
// a LanesM x LanesN grid, each with ThreadM x ThreadN sums in registers. Shared memory holds
// kStages slices of the operands, kDepth = 16 deep, filled by cp.async while earlier slices are
// multiplied; one barrier a slice. A slice of an operand lies in the order in which its array lies
// in memory, so that copies are 16 bytes wide and nothing is transposed: `DepthRuns` where the
// depth index is contiguous, `RowRuns` where the row index is. Bound. For 8 x 8 sums a thread
// issues 16 16-byte shared loads per 256 FMAs, each without bank conflicts: the FMA units are the
// limit. A tile of 128 x 128 reads (128 + 128) * 4 bytes of L2 per 16384 FMAs, an intensity of 32
// flop/byte.
#pragma once

#include <cstdint>

#include "reduce.cuh"
#include "shapes.h"
#include "simt/simt.h"
#include "vector.cuh"

namespace zfcuda::conv {

ZFCUDA_HOST_DEVICE constexpr int divide_up(int a, int b) {
    return a / b + (a % b != 0);
}

// `MinBlocks` is the number of blocks an SM is to hold at once, which bounds the registers.
template <int WarpsM, int WarpsN, int LanesM, int LanesN, int ThreadM_, int ThreadN_, int Stages,
          int MinBlocks>
struct Tile {
    static_assert(LanesM * LanesN == kWarp && ThreadN_ % 4 == 0);
    static constexpr int kWarpsM = WarpsM, kWarpsN = WarpsN;
    static constexpr int kLanesM = LanesM, kLanesN = LanesN;
    static constexpr int kThreadM = ThreadM_, kThreadN = ThreadN_;
    static constexpr int kRows = WarpsM * LanesM * ThreadM_;
    static constexpr int kCols = WarpsN * LanesN * ThreadN_;
    static constexpr int kDepth = 16;
    static constexpr int kStages = Stages;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr int kMinBlocks = MinBlocks;
};

// ---- Slices of an operand in shared memory ------------------------------------------------------

// Row after row, each a run of kDepth values. The pitch of 5 chunks of 16 bytes, and one more every
// eighth row, spreads over all banks both the rows that neighbouring lanes read (0, 1, .. 7) and
// those that are four apart (0, 4, 8, 12).
template <int Rows>
struct DepthRuns {
    static constexpr bool kIsDepthRuns = true;
    static constexpr int kRows = Rows;
    static constexpr int kFloats = Rows * 20 + (Rows + 7) / 8 * 4;
    __device__ static int at(int row, int depth) { return row * 20 + row / 8 * 4 + depth; }
};

// Depth after depth, each a run of kRows values. Two more chunks in the pitch put the four depths
// of a tensor-core fragment on different banks.
template <int Rows>
struct RowRuns {
    static constexpr bool kIsDepthRuns = false;
    static constexpr int kRows = Rows;
    static constexpr int kPitch = Rows + 8;
    static constexpr int kFloats = 16 * kPitch;
    __device__ static int at(int row, int depth) { return depth * kPitch + row; }
};

// ---- Which sums a thread holds ------------------------------------------------------------------

// acc[i][j] is at (row(i), col(j)) of the block's tile. Columns come in runs of four, for 16-byte
// stores; rows too where A's slices are read along rows, else they interleave between lanes.
template <class Tile, class LayoutA>
struct ThreadTile {
    int row0, col0;

    __device__ ThreadTile() {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        const int lane_m = lane / Tile::kLanesN, lane_n = lane % Tile::kLanesN;
        row0 = warp / Tile::kWarpsN * (Tile::kLanesM * Tile::kThreadM) +
               lane_m * (LayoutA::kIsDepthRuns ? 1 : 4);
        col0 = warp % Tile::kWarpsN * (Tile::kLanesN * Tile::kThreadN) + lane_n * 4;
    }

    __device__ int row(int i) const { return row0 + row_step(i); }
    __device__ int col(int j) const { return col0 + col_step(j); }

    // Offsets from row(0) and col(0), known to the compiler.
    __device__ static constexpr int row_step(int i) {
        return LayoutA::kIsDepthRuns ? i * Tile::kLanesM : i / 4 * (Tile::kLanesM * 4) + i % 4;
    }
    __device__ static constexpr int col_step(int j) { return j / 4 * (Tile::kLanesN * 4) + j % 4; }
};

using Float4 = Vector<float, 4>;

// `Count` values of one depth for this thread, from a slice of RowRuns: runs of four, `step` apart.
template <int Count, int Step>
__device__ inline void read_runs(float (&values)[Count], const float* shared) {
#pragma unroll
    for (int i = 0; i < Count; i += 4) {
        const Float4 v = load<4>(shared + i / 4 * Step);
#pragma unroll
        for (int e = 0; e < 4; ++e)
            values[i + e] = v.at[e];
    }
}

// acc += A * B for one slice.
template <class Tile, class LayoutA, class LayoutB>
__device__ inline void multiply_slice(const float* slice_a, const float* slice_b,
                                      const ThreadTile<Tile, LayoutA>& mine,
                                      float (&acc)[Tile::kThreadM][Tile::kThreadN]) {
    constexpr int kM = Tile::kThreadM, kN = Tile::kThreadN;
    using Mine = ThreadTile<Tile, LayoutA>;
    static_assert(LayoutA::kIsDepthRuns || !LayoutB::kIsDepthRuns);
    // Both bases are computed once: what is added to them below is constant. (`at` is linear in
    // the multiples of eight rows that row_step and col_step add.)
    const float* a = slice_a + LayoutA::at(mine.row0, 0);
    const float* b = slice_b + LayoutB::at(mine.col0, 0);
    // Not unrolled: the loads of a later step would be hoisted into registers that are not there.
#pragma unroll 1
    for (int depth = 0; depth < Tile::kDepth; depth += 4) {
        if constexpr (LayoutA::kIsDepthRuns) {
            Float4 a4[kM];
#pragma unroll
            for (int i = 0; i < kM; ++i)
                a4[i] = load<4>(a + LayoutA::at(Mine::row_step(i), depth));
            if constexpr (LayoutB::kIsDepthRuns) {
#pragma unroll
                for (int j = 0; j < kN; ++j) {
                    const Float4 b4 = load<4>(b + LayoutB::at(Mine::col_step(j), depth));
#pragma unroll
                    for (int e = 0; e < 4; ++e)
#pragma unroll
                        for (int i = 0; i < kM; ++i)
                            acc[i][j] = fmaf(a4[i].at[e], b4.at[e], acc[i][j]);
                }
            } else {
#pragma unroll
                for (int j = 0; j < kN; j += 4)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const Float4 b4 = load<4>(b + LayoutB::at(Mine::col_step(j), depth + e));
#pragma unroll
                        for (int i = 0; i < kM; ++i)
#pragma unroll
                            for (int f = 0; f < 4; ++f)
                                acc[i][j + f] = fmaf(a4[i].at[e], b4.at[f], acc[i][j + f]);
                    }
            }
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float as[kM], bs[kN];
                read_runs<kM, Tile::kLanesM * 4>(as, a + LayoutA::at(0, depth + e));
                read_runs<kN, Tile::kLanesN * 4>(bs, b + LayoutB::at(0, depth + e));
#pragma unroll
                for (int i = 0; i < kM; ++i)
#pragma unroll
                    for (int j = 0; j < kN; ++j)
                        acc[i][j] = fmaf(as[i], bs[j], acc[i][j]);
            }
        }
    }
}

// ---- The pipeline -------------------------------------------------------------------------------

// Shared memory of the pipeline: kStages slices of A, each followed by its slice of B.
template <class Tile, class OperandA, class OperandB>
struct Pipeline {
    static constexpr int kSliceA = OperandA::Layout::kFloats;
    static constexpr int kSliceB = OperandB::Layout::kFloats;
    static constexpr int kFloats = Tile::kStages * (kSliceA + kSliceB);
};

// acc = A * B over the next `slices` slices of both operands. `load(slice)` of an operand copies
// its next slice to shared memory, asynchronously or not. Every thread of the block calls this; no
// copy is under way when it returns.
template <class Tile, class OperandA, class OperandB>
__device__ inline void multiply(OperandA& a, OperandB& b, int slices, float* shared,
                                float (&acc)[Tile::kThreadM][Tile::kThreadN]) {
    using LayoutA = typename OperandA::Layout;
    using LayoutB = typename OperandB::Layout;
    using Buffers = Pipeline<Tile, OperandA, OperandB>;
    constexpr int kStage = Buffers::kSliceA + Buffers::kSliceB;
    const ThreadTile<Tile, LayoutA> mine;

#pragma unroll
    for (int i = 0; i < Tile::kThreadM; ++i)
#pragma unroll
        for (int j = 0; j < Tile::kThreadN; ++j)
            acc[i][j] = 0.0f;

    // A group is committed every turn, empty ones too, so that the count of those that may be
    // pending is the same in every turn.
    for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
        if (stage < slices) {
            a.load(shared + stage * kStage);
            b.load(shared + stage * kStage + Buffers::kSliceA);
        }
        simt::copy_async_commit();
    }
    float* const last = shared + (Tile::kStages - 1) * kStage;
    float* read = shared;
    for (; slices > 0; --slices) {
        simt::copy_async_wait<Tile::kStages - 2>();
        // Everybody's copies of this slice have landed, and nobody still reads the slice before
        // this one, which the next load overwrites.
        __syncthreads();
        if (slices >= Tile::kStages) {
            float* const write = read == shared ? last : read - kStage;
            a.load(write);
            b.load(write + Buffers::kSliceA);
        }
        simt::copy_async_commit();
        multiply_slice<Tile, LayoutA, LayoutB>(read, read + Buffers::kSliceA, mine, acc);
        read = read == last ? shared : read + kStage;
    }
    simt::copy_async_wait<0>();
}

// ---- Results ------------------------------------------------------------------------------------

// What becomes of the sums: y = act(acc + bias[col]). `bias` may be null. `wide`: rows of y and
// bias allow 16-byte accesses.
struct Epilogue {
    const float* bias;
    bool relu;
    bool wide;
};

__device__ inline float rectify(float v) {
    return v < 0.0f ? 0.0f : v;  // NaN stays NaN
}

// Stores this thread's sums: row i goes to y + offset(row(i)) if that is not kNoRow, `y` being
// where column `first_col` of row 0 lies; columns from `cols` on do not exist.
constexpr std::uint32_t kNoRow = 0xffffffffu;

template <class Tile, class LayoutA, class RowOffset>
__device__ inline void store_tile(const float (&acc)[Tile::kThreadM][Tile::kThreadN],
                                  RowOffset offset, int first_col, int cols,
                                  const Epilogue& epilogue, float* y) {
    const ThreadTile<Tile, LayoutA> mine;
#pragma unroll
    for (int j = 0; j < Tile::kThreadN; j += 4) {
        const int col = first_col + mine.col(j);
        if (col >= cols) continue;
        auto bias = Float4::filled(0.0f);
        if (epilogue.bias) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (col + e < cols) bias.at[e] = epilogue.bias[col + e];
        }
#pragma unroll
        for (int i = 0; i < Tile::kThreadM; ++i) {
            const std::uint32_t row = offset(mine.row(i));
            if (row == kNoRow) continue;
            Float4 v;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                v.at[e] = acc[i][j + e] + bias.at[e];
                if (epilogue.relu) v.at[e] = rectify(v.at[e]);
            }
            float* at = y + row + mine.col(j);
            if (epilogue.wide) {
                store(at, v);
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (col + e < cols) at[e] = v.at[e];
            }
        }
    }
}

}  // namespace zfcuda::conv
