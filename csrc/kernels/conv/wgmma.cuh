// The product of two k-tiles on Hopper's tensor cores: wgmma on bfloat16 or, where both are K-major,
// tf32 values, both operands from shared memory, accumulated in float32. For compute capability 9.0
// alone (sm_90a).
//
// Cut. A warpgroup computes 64 x kCols results, the warpgroups of a block one 64 rows after the
// other. K-tiles are 128 bytes deep, four steps of the instruction, in the layouts that it reads with
// a swizzle of 128 bytes: filled by the operands' own copies (in bfloat16 alone), 16 bytes at a time,
// without bank conflicts.
//
// The loop. One product is always under way: while it runs, the copies of a later k-tile are begun
// and the next barrier is met. So of the stages one is multiplied, one may still be read by the
// product before, and the others are being filled.
//
// Bound. Per k-tile of 128 x 256 results tensor cores take 1024 cycles (2048 bfloat16 FMAs a cycle
// and SM), and the 48 KB that come from L2 1755 at 28 bytes a cycle and SM: 58 % of the tensor
// cores' time; of 128 x 128 results, 512 and 1170, 44 %.
#pragma once

#include <cstdint>

#include "kernels/indexing.cuh"
#include "main_loop.cuh"
#include "ops.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

constexpr int kWarpgroup = 128;     // threads
constexpr int kWarpgroupRows = 64;  // of its product
constexpr int kSwizzleBytes = 128;  // and the depth of a k-tile
constexpr int kAtomBytes = 1024;    // eight lines of them

// ---- A k-tile of an operand in shared memory ----------------------------------------------------

// Row after row, each a line of 128 bytes.
template <int Rows>
struct WgmmaKMajor {
    static_assert(Rows % 8 == 0);
    static constexpr bool kIsKMajor = true;
    static constexpr simt::Major kMajor = simt::Major::kK;
    static constexpr int kSize = Rows * 64;
    __device__ static int at(int row, int depth) { return row * 64 + (depth ^ row % 8 * 8); }

    // From the first step of the instruction to another.
    __device__ static constexpr int step_bytes(int step) { return step * 32; }

    // Of the rows from `row` on, a multiple of 8.
    __device__ static std::uint64_t descriptor(const BFloat16* k_tile, int row) {
        return simt::matrix_descriptor(k_tile + row * 64, 16, kAtomBytes, simt::Swizzle::k128);
    }
};

// Blocks of 64 rows; in each, depth after depth, a line of 128 bytes.
template <int Rows>
struct WgmmaMNMajor {
    static_assert(Rows % 64 == 0);
    static constexpr bool kIsKMajor = false;
    static constexpr simt::Major kMajor = simt::Major::kMN;
    static constexpr int kSize = Rows * 64;
    static constexpr int kBlock = 64 * 64;
    __device__ static int at(int row, int depth) {
        return row / 64 * kBlock + depth * 64 + (row % 64 ^ depth % 8 * 8);
    }
    __device__ static constexpr int step_bytes(int step) { return step * 16 * kSwizzleBytes; }

    // Of the rows from `row` on, a multiple of 64.
    __device__ static std::uint64_t descriptor(const BFloat16* k_tile, int row) {
        return simt::matrix_descriptor(k_tile + row / 64 * kBlock, kBlock * sizeof(BFloat16),
                                       kAtomBytes, simt::Swizzle::k128);
    }
};

// ---- The instruction ----------------------------------------------------------------------------

template <int Cols, simt::Major A, simt::Major B>
__device__ inline void begin_product(Bf16, float (&acc)[Cols / 2], std::uint64_t a,
                                     std::uint64_t b) {
    simt::wgmma_bf16<Cols, A, B>(acc, a, b, true);
}
template <int Cols, simt::Major A, simt::Major B>
__device__ inline void begin_product(Tf32, float (&acc)[Cols / 2], std::uint64_t a,
                                     std::uint64_t b) {
    static_assert(A == simt::Major::kK && B == simt::Major::kK, "no others in tf32");
    simt::wgmma_tf32<Cols>(acc, a, b, true);
}

// ---- The accumulators of a thread ---------------------------------------------------------------

// A warpgroup has kRowBlocks blocks of 64 rows, 16 of each a warp, and kColBlocks of columns, as many
// as an instruction multiplies: acc[row block][col block][4 * j + 2 * i + e] is that of row group + 8
// * i of these, column 8 * j + 2 * quad + e.
template <class Tile, class LayoutA, class LayoutB>
class WgmmaProduct {
  public:
    using Math = typename Tile::Math;
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    static constexpr int kRows = 2 * Tile::kRowBlocks;
    static constexpr int kVector = 2;
    static constexpr int kVectors = Tile::kCols / 8;
    static constexpr int kBlockCols = Tile::kCols / Tile::kColBlocks;

    __device__ int row(int i) const {
        return first_row() + i / 2 * kWarpgroupRows + threadIdx.x % kWarpgroup / kWarp * 16 +
               threadIdx.x % kWarp / 4 + i % 2 * 8;
    }
    __device__ int col(int vector) const { return vector * 8 + threadIdx.x % 4 * 2; }

    __device__ static float& at(Accumulators& acc, int i, int vector, int e) {
        constexpr int kBlockVectors = kBlockCols / 8;
        return acc[i / 2][vector / kBlockVectors][4 * (vector % kBlockVectors) + 2 * (i % 2) + e];
    }

    __device__ static void clear(Accumulators& acc) {
#pragma unroll
        for (auto& rows : acc)
#pragma unroll
            for (auto& block : rows)
#pragma unroll
                for (float& value : block)
                    value = 0.0f;
    }

    // Begins acc += A * B for one k-tile of each.
    __device__ void begin(const Element* tile_a, const Element* tile_b, Accumulators& acc) const {
        std::uint64_t a[Tile::kRowBlocks], b[Tile::kColBlocks];
#pragma unroll
        for (int i = 0; i < Tile::kRowBlocks; ++i)
            a[i] = LayoutA::descriptor(tile_a, first_row() + i * kWarpgroupRows);
#pragma unroll
        for (int j = 0; j < Tile::kColBlocks; ++j)
            b[j] = LayoutB::descriptor(tile_b, j * kBlockCols);
        simt::warpgroup_arrive();
#pragma unroll
        for (int step = 0; step < 4; ++step)
#pragma unroll
            for (int i = 0; i < Tile::kRowBlocks; ++i)
#pragma unroll
                for (int j = 0; j < Tile::kColBlocks; ++j)
                    begin_product<kBlockCols, LayoutA::kMajor, LayoutB::kMajor>(
                        Math(), acc[i][j], simt::advance(a[i], LayoutA::step_bytes(step)),
                        simt::advance(b[j], LayoutB::step_bytes(step)));
        simt::warpgroup_commit();
    }

  private:
    __device__ static int first_row() {
        return threadIdx.x / kWarpgroup * Tile::kRowBlocks * kWarpgroupRows;
    }
};

// ---- The main loop ------------------------------------------------------------------------------

template <class Tile, class A, class B>
struct WgmmaLoop {
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    using Multiplier = typename Tile::template Multiplier<typename A::Layout, typename B::Layout>;

    static constexpr int kStage = A::Layout::kSize + B::Layout::kSize;
    static constexpr std::size_t kBytes = sizeof(Element) * Tile::kStages * kStage;

    // As in CopyAsyncLoop; `shared` is aligned to 1024 bytes.
    __device__ static void run(A& a, B& b, int k_tiles, Element* shared, Accumulators& acc) {
        constexpr int kB = A::Layout::kSize;
        constexpr int kAhead = Tile::kStages - 2;  // k-tiles that are being copied
        static_assert(kAhead >= 1);
        const Multiplier multiplier;
        Multiplier::clear(acc);

        Element* const end = shared + Tile::kStages * kStage;
        Element* write = shared;
        const auto load = [&](bool exists) {
            if (exists) {
                a.load(write);
                b.load(write + kB);
            }
            simt::copy_async_commit();
            write = write + kStage == end ? shared : write + kStage;
        };
        for (int i = 0; i < kAhead; ++i)
            load(i < k_tiles);
        Element* read = shared;
        for (int i = 0; i < k_tiles; ++i) {
            simt::copy_async_wait<kAhead - 1>();
            simt::fence_proxy_async();
            // Everybody's copies of this stage have landed, and everybody has waited for the product
            // of two turns ago, whose stage the next load overwrites.
            __syncthreads();
            multiplier.begin(read, read + kB, acc);
            load(i + kAhead < k_tiles);
            simt::warpgroup_wait<1>();
            read = read + kStage == end ? shared : read + kStage;
        }
        simt::warpgroup_wait<0>();
        simt::copy_async_wait<0>();
    }
};

// ---- The tile -----------------------------------------------------------------------------------

template <class Math_, int Warpgroups, int Cols, int Stages, int MinBlocks>
struct WgmmaTile {
    using Math = Math_;
    using Element = typename Math::Element;
    static constexpr MainLoop kMainLoop = MainLoop::kWgmma;
    static constexpr int kRowBlocks = 1, kColBlocks = 1;  // of a warpgroup
    static constexpr int kRows = Warpgroups * kWarpgroupRows;
    static constexpr int kCols = Cols;
    static constexpr int kDepth = kSwizzleBytes / sizeof(Element);
    static constexpr int kStages = Stages;
    static constexpr int kThreads = Warpgroups * kWarpgroup;
    static constexpr int kMinBlocks = MinBlocks;
    using Accumulators = float[kRowBlocks][kColBlocks][kCols / kColBlocks / 2];
    // Relative to mma.sync's largest tile, by bytes from L2 for each product: those bound both.
    static constexpr double kEfficiency = 2.0 * kRows * kCols / (kRows + kCols) / 128;

    template <int Rows>
    using KMajor = WgmmaKMajor<Rows>;
    template <int Rows>
    using MNMajor = WgmmaMNMajor<Rows>;
    template <class LayoutA, class LayoutB>
    using Multiplier = WgmmaProduct<WgmmaTile, LayoutA, LayoutB>;
    template <class A, class B>
    using Loop = WgmmaLoop<WgmmaTile, A, B>;
};

}  // namespace zfcuda::conv
