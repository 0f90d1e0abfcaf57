// The main loop of the matrix product inside every convolution kernel:
//
//   accumulators[row, col] = sum over depth of A[row, depth] * B[col, depth]
//
// A convolution is such a product whose operands are gathered while they are loaded (implicit
// GEMM): each kernel's own operands say how, what multiplies is chosen by the tile: FMA
// instructions (ffma.cuh, exact float32) or tensor cores (mma.cuh, tf32 and bfloat16).
//
// Cut. A block of warps computes a tile of kRows x kCols. Shared memory holds kStages stages, each
// a k-tile of both operands, kDepth deep, filled by cp.async while earlier ones are multiplied; one
// barrier a k-tile. An operand lies there in the order in which its array lies in memory, so that
// copies are 16 bytes wide and nothing is transposed: K-major where the depth index is contiguous,
// MN-major where the row index is.
//
// What a tile offers: kMainLoop, kRows, kCols, kDepth, kStages, kThreads, kMinBlocks (blocks an SM
// is to hold at once, which bounds the registers), kEfficiency; Element, that of the operands; the
// layouts of k-tiles, KMajor and MNMajor; Accumulators, an array in the registers of a thread;
// Multiplier, which adds to them and knows where each belongs; and Loop, the main loop of two
// operands: that below, or that of wgmma.cuh. (Hopper's own, tma.cuh, has roles instead of a loop.)
#pragma once

#include <cstddef>

#include "simt/simt.h"

namespace zfcuda::conv {

template <class Tile, class A, class B>
struct CopyAsyncLoop {
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    using Multiplier = typename Tile::template Multiplier<typename A::Layout, typename B::Layout>;

    // Shared memory: the stages, each a k-tile of A, then one of B.
    static constexpr int kStage = A::Layout::kSize + B::Layout::kSize;
    static constexpr std::size_t kBytes = sizeof(Element) * Tile::kStages * kStage;

    // acc = A * B over the next `k_tiles` k-tiles of both operands. `load(k_tile)` of an operand
    // copies its next k-tile to shared memory, asynchronously or not. Every thread of the block
    // calls this; no copy is under way when it returns.
    __device__ static void run(A& a, B& b, int k_tiles, Element* shared, Accumulators& acc) {
        constexpr int kB = A::Layout::kSize;
        const Multiplier multiplier;

#pragma unroll
        for (int i = 0; i < Multiplier::kRows; ++i)
#pragma unroll
            for (int j = 0; j < Multiplier::kVectors * Multiplier::kVector; ++j)
                Multiplier::at(acc, i, j / Multiplier::kVector, j % Multiplier::kVector) = 0.0f;

        // A group is committed every turn, empty ones too, so that the count of those that may be
        // pending is the same in every turn.
        for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
            if (stage < k_tiles) {
                a.load(shared + stage * kStage);
                b.load(shared + stage * kStage + kB);
            }
            simt::copy_async_commit();
        }
        Element* const last = shared + (Tile::kStages - 1) * kStage;
        Element* read = shared;
        for (; k_tiles > 0; --k_tiles) {
            simt::copy_async_wait<Tile::kStages - 2>();
            // Everybody's copies of this stage have landed, and nobody still reads the stage before
            // it, which the next load overwrites.
            __syncthreads();
            if (k_tiles >= Tile::kStages) {
                Element* const write = read == shared ? last : read - kStage;
                a.load(write);
                b.load(write + kB);
            }
            simt::copy_async_commit();
            multiplier.add(read, read + kB, acc);
            read = read == last ? shared : read + kStage;
        }
        simt::copy_async_wait<0>();
    }
};

}  // namespace zfcuda::conv
