// The register-blocked matrix product under every convolution on the CPU.
//
//   C[i][j] (+)= sum over d of A[i][d] * B[d][j]
//
// for one tile: up to kTileRows rows of A, one panel of B with kPanel columns, a depth of up to
// kMaxDepth. A tile lives in registers (14 rows x 2 vectors of AVX-512, 6 x 2 of AVX2), each step
// of the depth loads two vectors of B, broadcasts one float of A per row and does rows x 2 fused
// multiply-adds, so that the multiply-adds are what bounds it (97 % of peak was measured with A and
// B in the second-level cache).
//
// B comes as panels: kPanel columns, depth-major, so that it is read in sequence. A comes either as
// plain rows kRowStride apart (what im2col makes by copying runs) or packed depth-major, kTileRows
// floats a step (what the weight gradient needs). Both strides are compile-time constants, so that
// every row's address is a displacement; kRowStride is an odd number of cache lines, so that
// rows spread over all sets of the first-level cache.
#pragma once

#include <cstdint>

#include "simd.h"

namespace zfcuda::gemm {

#if defined(__AVX512F__)
constexpr int kTileRows = 14;
#else
constexpr int kTileRows = 6;
#endif
constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * simd::kLanes;
constexpr int kMaxDepth = 384;
constexpr int kRowStride = kMaxDepth + 16;

// What becomes of the products of a tile.
struct Epilogue {
    bool accumulate = false;      // C += products, else C = products
    const float* bias = nullptr;  // then C += bias[column of the tile], if not null
    bool relu = false;            // then C = max(C, 0)
    bool stream = false;          // write past the caches; every row of C must be vector-aligned
};

// C = rows[i] + column, i < count; the tile has `columns` <= kPanel columns.
void multiply_row_tile(int count, int depth, const float* a, const float* panel, float* const* rows,
                       std::int64_t column, int columns, const Epilogue&);
void multiply_packed_tile(int count, int depth, const float* a, const float* panel,
                          float* const* rows, std::int64_t column, int columns, const Epilogue&);

constexpr int ceil_div(std::int64_t a, int b) {
    return static_cast<int>((a + b - 1) / b);
}

// Where part `i` of `parts` begins when `total` is cut as evenly as possible.
constexpr std::int64_t part_begin(std::int64_t total, int parts, int i) {
    return total * i / parts;
}

// Floats that the panels of B (depth x columns) take.
inline std::int64_t panels_size(std::int64_t depth, int columns) {
    return depth * ceil_div(columns, kPanel) * kPanel;
}

// Upper bound of the threads of any operation, the same at every call: it sizes per-thread scratch.
int max_threads();

// The threads an operation uses now: at most max_threads().
int threads();

// The number of the calling thread in its team.
int thread_index();

}  // namespace zfcuda::gemm
