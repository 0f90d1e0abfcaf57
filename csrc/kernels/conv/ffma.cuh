// The product of two k-tiles in exact float32, by FMA instructions.
//
// The lanes of a warp form a LanesM x LanesN grid, each with ThreadM x ThreadN accumulators.
// Bound: for 8 x 8 of them a thread issues 16 16-byte shared loads per 256 FMAs, each without bank
// conflicts: the FMA units are the limit. A tile of 128 x 128 reads (128 + 128) * 4 bytes of L2 per
// 16384 FMAs, an intensity of 32 flop/byte.
#pragma once

#include "kernels/indexing.cuh"
#include "kernels/vector.cuh"
#include "main_loop.cuh"
#include "simt/simt.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

using Float4 = Vector<float, 4>;

// ---- A k-tile of an operand in shared memory ----------------------------------------------------

// Row after row, each kDepth values; 16 bytes are left out after every two rows. No bank conflicts
// where two rows are filled, nor where rows 0, 1, .. 7 or 0, 4, 8, 12 are read together
// (tests/kernels/test_bank_conflicts.py).
template <int Rows>
struct FfmaKMajor {
    static constexpr bool kIsKMajor = true;
    static_assert(Rows % 2 == 0);
    static constexpr int kSize = Rows * 18;
    __device__ static int at(int row, int depth) { return row * 16 + row / 2 * 4 + depth; }
};

// Depth after depth, each kRows values.
template <int Rows>
struct FfmaMNMajor {
    static constexpr bool kIsKMajor = false;
    static constexpr int kPitch = Rows + 8;
    static constexpr int kSize = 16 * kPitch;
    __device__ static int at(int row, int depth) { return depth * kPitch + row; }
};

// ---- The accumulators of a thread ---------------------------------------------------------------

// `Count` values of one depth for this thread, from an MN-major k-tile: vectors of four, `Step`
// apart.
template <int Count, int Step>
__device__ inline void read_vectors(float (&values)[Count], const float* shared) {
#pragma unroll
    for (int i = 0; i < Count; i += 4) {
        const Float4 v = load<4>(shared + i / 4 * Step);
#pragma unroll
        for (int e = 0; e < 4; ++e)
            values[i + e] = v.at[e];
    }
}

// acc[i][j] is at row(i) of the block's tile, and at column col(j / 4) + j % 4: columns come in
// vectors of four, for 16-byte stores; rows too where A is MN-major, else they interleave between
// lanes.
template <class Tile, class LayoutA, class LayoutB>
class Ffma {
  public:
    using Accumulators = typename Tile::Accumulators;
    static constexpr int kM = Tile::kThreadM, kN = Tile::kThreadN;
    static constexpr int kRows = kM;
    static constexpr int kVector = 4;  // columns side by side
    static constexpr int kVectors = kN / kVector;

    __device__ Ffma() {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        const int lane_m = lane / Tile::kLanesN, lane_n = lane % Tile::kLanesN;
        row0_ = warp / Tile::kWarpsN * (Tile::kLanesM * kM) + lane_m * (LayoutA::kIsKMajor ? 1 : 4);
        col0_ = warp % Tile::kWarpsN * (Tile::kLanesN * kN) + lane_n * 4;
    }

    __device__ int row(int i) const { return row0_ + row_step(i); }
    __device__ int col(int vector) const { return col0_ + col_step(vector * kVector); }

    __device__ static float& at(Accumulators& acc, int i, int vector, int e) {
        return acc[i][vector * kVector + e];
    }

    // acc += A * B for one k-tile of each.
    __device__ void add(const float* tile_a, const float* tile_b, Accumulators& acc) const {
        static_assert(LayoutA::kIsKMajor || !LayoutB::kIsKMajor);
        // Both bases are computed once: what is added to them below is constant. (`at` is linear,
        // since row_step is even, or else col0_.)
        const float* a = tile_a + LayoutA::at(row0_, 0);
        const float* b = tile_b + LayoutB::at(col0_, 0);
        // Not unrolled: the loads of a later step would be hoisted into registers that are not
        // there.
#pragma unroll 1
        for (int depth = 0; depth < Tile::kDepth; depth += 4) {
            if constexpr (LayoutA::kIsKMajor) {
                Float4 a4[kM];
#pragma unroll
                for (int i = 0; i < kM; ++i)
                    a4[i] = load<4>(a + LayoutA::at(row_step(i), depth));
                if constexpr (LayoutB::kIsKMajor) {
#pragma unroll
                    for (int j = 0; j < kN; ++j) {
                        const Float4 b4 = load<4>(b + LayoutB::at(col_step(j), depth));
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
                            const Float4 b4 = load<4>(b + LayoutB::at(col_step(j), depth + e));
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
                    read_vectors<kM, Tile::kLanesM * 4>(as, a + LayoutA::at(0, depth + e));
                    read_vectors<kN, Tile::kLanesN * 4>(bs, b + LayoutB::at(0, depth + e));
#pragma unroll
                    for (int i = 0; i < kM; ++i)
#pragma unroll
                        for (int j = 0; j < kN; ++j)
                            acc[i][j] = fmaf(as[i], bs[j], acc[i][j]);
                }
            }
        }
    }

  private:
    // Offsets from row(0) and col(0), known to the compiler.
    __device__ static constexpr int row_step(int i) {
        return LayoutA::kIsKMajor ? i * Tile::kLanesM : i / 4 * (Tile::kLanesM * 4) + i % 4;
    }
    __device__ static constexpr int col_step(int j) { return j / 4 * (Tile::kLanesN * 4) + j % 4; }

    int row0_, col0_;
};

// ---- The tile -----------------------------------------------------------------------------------

// `MinBlocks` is the number of blocks an SM is to hold at once, which bounds the registers.
template <int WarpsM, int WarpsN, int LanesM, int LanesN, int ThreadM, int ThreadN, int Stages,
          int MinBlocks>
struct FfmaTile {
    static_assert(LanesM * LanesN == kWarp && ThreadN % 4 == 0);
    using Element = float;
    using Accumulators = float[ThreadM][ThreadN];
    static constexpr MainLoop kMainLoop = MainLoop::kFfma;
    static constexpr int kWarpsN = WarpsN;
    static constexpr int kLanesM = LanesM, kLanesN = LanesN;
    static constexpr int kThreadM = ThreadM, kThreadN = ThreadN;
    static constexpr int kRows = WarpsM * LanesM * ThreadM;
    static constexpr int kCols = WarpsN * LanesN * ThreadN;
    static constexpr int kDepth = 16;
    static constexpr int kStages = Stages;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr int kMinBlocks = MinBlocks;
    // FMA slots kept busy, from the ratio of FMAs to shared loads: a guess until measured.
    static constexpr double kEfficiency = ThreadM * ThreadN >= 64   ? 1.0
                                          : ThreadM * ThreadN >= 32 ? 0.85
                                                                    : 0.6;

    template <int Rows>
    using KMajor = FfmaKMajor<Rows>;
    template <int Rows>
    using MNMajor = FfmaMNMajor<Rows>;
    template <class LayoutA, class LayoutB>
    using Multiplier = Ffma<FfmaTile, LayoutA, LayoutB>;
    template <class A, class B>
    using Loop = CopyAsyncLoop<FfmaTile, A, B>;
};

}  // namespace zfcuda::conv
