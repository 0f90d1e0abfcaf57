// The matrix product inside every convolution kernel.
//
//   sums[row, col] = sum over depth of A[row, depth] * B[col, depth]
//
// A convolution is such a product whose operands are gathered while they are loaded (implicit
// GEMM): operands.cuh says how, this file runs the pipeline and stores the result. What
// multiplies two slices is chosen by the tile: FMA instructions (ffma.cuh, exact float32) or
// tensor cores (mma.cuh, tf32 and bfloat16).
//
// Cut. A block of warps computes a tile of kRows x kCols. Shared memory holds kStages slices of the
// operands, kDepth deep, filled by cp.async while earlier slices are multiplied; one barrier a
// slice. A slice of an operand lies in the order in which its array lies in memory, so that copies
// are 16 bytes wide and nothing is transposed: `DepthRuns` where the depth index is contiguous,
// `RowRuns` where the row index is.
//
// What a tile offers: kRows, kCols, kDepth, kStages, kThreads, kMinBlocks (blocks an SM is to hold
// at once, which bounds the registers), kEfficiency; Element, that of the operands; the layouts of
// slices; Sums, an array in the registers of a thread; and Product, which adds to them and knows
// where each belongs.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ffma.cuh"
#include "mma.cuh"
#include "shapes.h"

namespace zfcuda::conv {

ZFCUDA_HOST_DEVICE constexpr int divide_up(int a, int b) {
    return a / b + (a % b != 0);
}

// ---- The pipeline -------------------------------------------------------------------------------

template <class Tile, class OperandA, class OperandB>
using ProductOf =
    typename Tile::template Product<typename OperandA::Layout, typename OperandB::Layout>;

// Shared memory of the pipeline: kStages slices of A, each followed by its slice of B.
template <class Tile, class OperandA, class OperandB>
struct Pipeline {
    static constexpr int kSliceA = OperandA::Layout::kSize;
    static constexpr int kSliceB = OperandB::Layout::kSize;
    static constexpr int kSize = Tile::kStages * (kSliceA + kSliceB);
    static constexpr std::size_t kBytes = sizeof(typename Tile::Element) * kSize;
};

// sums = A * B over the next `slices` slices of both operands. `load(slice)` of an operand copies
// its next slice to shared memory, asynchronously or not. Every thread of the block calls this; no
// copy is under way when it returns.
template <class Tile, class OperandA, class OperandB>
__device__ inline void multiply(OperandA& a, OperandB& b, int slices,
                                typename Tile::Element* shared, typename Tile::Sums& sums) {
    using Buffers = Pipeline<Tile, OperandA, OperandB>;
    using Product = ProductOf<Tile, OperandA, OperandB>;
    constexpr int kStage = Buffers::kSliceA + Buffers::kSliceB;
    const Product mine;

#pragma unroll
    for (int i = 0; i < Product::kRowsOfThread; ++i)
#pragma unroll
        for (int j = 0; j < Product::kRuns * Product::kRun; ++j)
            Product::sum(sums, i, j / Product::kRun, j % Product::kRun) = 0.0f;

    // A group is committed every turn, empty ones too, so that the count of those that may be
    // pending is the same in every turn.
    for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
        if (stage < slices) {
            a.load(shared + stage * kStage);
            b.load(shared + stage * kStage + Buffers::kSliceA);
        }
        simt::copy_async_commit();
    }
    auto* const last = shared + (Tile::kStages - 1) * kStage;
    auto* read = shared;
    for (; slices > 0; --slices) {
        simt::copy_async_wait<Tile::kStages - 2>();
        // Everybody's copies of this slice have landed, and nobody still reads the slice before
        // this one, which the next load overwrites.
        __syncthreads();
        if (slices >= Tile::kStages) {
            auto* const write = read == shared ? last : read - kStage;
            a.load(write);
            b.load(write + Buffers::kSliceA);
        }
        simt::copy_async_commit();
        mine.add(read, read + Buffers::kSliceA, sums);
        read = read == last ? shared : read + kStage;
    }
    simt::copy_async_wait<0>();
}

// ---- Results ------------------------------------------------------------------------------------

// What becomes of the sums: y = act(sum + bias[col]). `bias` may be null. `wide`: rows of y allow
// accesses to four values at once.
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

template <class Product, class RowOffset, class T>
__device__ inline void store_tile(typename Product::Sums& sums, RowOffset offset, int first_col,
                                  int cols, const Epilogue& epilogue, T* y) {
    constexpr int kRun = Product::kRun;
    const Product mine;
#pragma unroll
    for (int run = 0; run < Product::kRuns; ++run) {
        const int col = first_col + mine.col(run);
        if (col >= cols) continue;
        auto bias = Vector<float, kRun>::filled(0.0f);
        if (epilogue.bias) {
#pragma unroll
            for (int e = 0; e < kRun; ++e)
                if (col + e < cols) bias.at[e] = epilogue.bias[col + e];
        }
#pragma unroll
        for (int i = 0; i < Product::kRowsOfThread; ++i) {
            const std::uint32_t row = offset(mine.row(i));
            if (row == kNoRow) continue;
            Vector<float, kRun> v;
#pragma unroll
            for (int e = 0; e < kRun; ++e) {
                v.at[e] = Product::sum(sums, i, run, e) + bias.at[e];
                if (epilogue.relu) v.at[e] = rectify(v.at[e]);
            }
            const auto result = from_floats<T>(v);
            T* at = y + row + mine.col(run);
            if (epilogue.wide) {
                store(at, result);
            } else {
#pragma unroll
                for (int e = 0; e < kRun; ++e)
                    if (col + e < cols) at[e] = result.at[e];
            }
        }
    }
}

// The same to y or, where the depth is split, in float32 and unrounded to the part of `size` sums
// in the workspace `y` that belongs to this split, blockIdx.y.
template <class Product, class RowOffset, class T>
__device__ inline void store_split(typename Product::Sums& sums, RowOffset offset, int first_col,
                                   int cols, const Epilogue& epilogue, T* y, std::size_t size) {
    const std::size_t first = blockIdx.y * size + first_col;
    if (std::is_same_v<T, float> || gridDim.y == 1) {
        store_tile<Product>(sums, offset, first_col, cols, epilogue, y + first);
    } else {
        store_tile<Product>(sums, offset, first_col, cols, epilogue,
                            reinterpret_cast<float*>(y) + first);
    }
}

}  // namespace zfcuda::conv
