// The register-blocked matrix product under every convolution on the CPU.
//
//   C[i][j] (+)= sum over d of A[i][d] * B[d][j]
//
// in tiles of up to kTileRows rows of A and one panel of B, which has kPanel columns. A tile lives
// in registers (14 rows x 2 vectors of AVX-512, 6 x 2 of AVX2); each step of the depth loads two
// vectors of B, broadcasts one float of A per row and does rows x 2 fused multiply-adds, so that
// the multiply-adds are what bounds it (98 % of peak was measured with A and B in the second-level
// cache). A last panel of one vector has tiles of twice the rows, which loads bound: one for each
// multiply-add and one of B (96 % of peak). One call makes many tiles: a call for each took as long
// as 4 steps of the depth.
//
// The usual distances of the rows of A are compile-time constants, kRowStrides, so that every row's
// address is a displacement: kRowStride, an odd number of cache lines, for rows that were gathered;
// 1 for an A that lies depth by depth (weight gradients); and a few floats where neighbouring
// windows of an image with few channels are read in place. Any other, of the pixels that a 1 x 1
// convolution reads in place, takes eight registers for 28 rows; those a multiple of a page apart have
// tiles of kPageTileRows.
#pragma once

#include <cstdint>

#include "blocking.h"
#include "fetch.h"
#include "simd.h"

namespace zfcuda::gemm {

#if defined(__AVX512F__)
constexpr int kTileRows = 14, kNarrowTileRows = 28;
#else
constexpr int kTileRows = 6, kNarrowTileRows = 14;
#endif
constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * simd::kLanes;
constexpr int kRowStride = kMaxDepth + 16;
constexpr int kAnyStride = 0;
constexpr int kRowStrides[] = {kRowStride, 1, 3, 6, 12, kAnyStride};

constexpr bool is_row_stride(int floats) {
    for (int stride : kRowStrides)
        if (stride == floats) return true;
    return false;
}

// The operands of a product. The depth is `runs` x `depth`: A[i][d] lies at
// a + i * row_stride + (d / depth) * run_distance + (d % depth) * a_step, B[d] at b + d * b_stride.
struct Operands {
    const float* a;
    int row_stride;
    const float* b;
    int depth;
    int a_step = 1;
    int b_stride = kPanel;
    int runs = 1;
    std::int64_t run_distance = 0;
    std::int64_t panel_distance = 0;  // of B, where C has more columns than a panel

    // Of A: those of the next tile that are among them are fetched meanwhile, a line at each step (two
    // where a step takes floats of more rows than a line has). Of one run of rows without gaps.
    int fetched_rows = 0;

    // If not null, what it fetches meanwhile; a tile makes `runs` x `depth` steps.
    FetchRows* fetch = nullptr;

    // Several products of the same size, of one panel each. From one to the next are a_distance,
    // panel_distance and, in C, c_distance.
    int products = 1;
    std::int64_t a_distance = 0, c_distance = 0;
};

// What becomes of the products.
struct Epilogue {
    bool accumulate = false;       // C += products, else C = products
    const float* scale = nullptr;  // then C *= scale[column of C], if not null
    const float* bias = nullptr;   // then C += bias[column of C], if not null
    bool relu = false;             // then, after `add`, C = max(C, 0)
    bool stream = false;           // write past the caches; every row of C must be vector-aligned

    // If `add` is not null, C += its element that lies as far from its begin as C's from `out`.
    const float* add = nullptr;
    const float* out = nullptr;

    int fetched_rows = 0;  // of C, as those of A

    // What is added to the element of C at `to`.
    const float* added(const float* to) const { return add + (to - out); }

    // The same for a product that begins `columns` further right.
    Epilogue from(int columns) const {
        Epilogue other = *this;
        if (scale) other.scale += columns;
        if (bias) other.bias += columns;
        return other;
    }
};

// C[i] = rows[i] + column for i < count; there are `columns` columns, of one panel if there is no
// distance to the next. A tile's rows meet one panel after the other.
void multiply(int count, const Operands&, float* const* rows, std::int64_t column, int columns,
              const Epilogue&);

// The same for rows of C that lie `distance` apart, `first` at C's first column.
inline void multiply(int count, const Operands& operands, float* first, std::int64_t distance,
                     int columns, const Epilogue& epilogue) {
    float* rows[kBlockRows];
    const auto multiply_block = [&](int count, const Operands& operands, float* first) {
        for (int i = 0; i < count; ++i)
            rows[i] = first + i * distance;
        multiply(count, operands, rows, 0, columns, epilogue);
    };
    if (count <= kBlockRows) return multiply_block(count, operands, first);
    for (int i = 0; i < count; i += kBlockRows) {
        Operands block = operands;
        block.a += std::int64_t{i} * operands.row_stride;
        multiply_block(count - i < kBlockRows ? count - i : kBlockRows, block,
                       first + i * distance);
    }
}

// A panel of B from `depth` rows that lie `distance` apart, of which it has up to kPanel columns.
inline void pack_panel(const float* from, std::int64_t distance, int depth, int columns,
                       float* panel) {
    const int count = columns < kPanel ? columns : kPanel;
    for (int d = 0; d < depth; ++d, from += distance, panel += kPanel) {
        simd::copy(panel, from, count);
        simd::clear(panel + count, kPanel - count);
    }
}

// Floats that the panels of B (depth x columns) take.
inline std::int64_t panels_size(std::int64_t depth, int columns) {
    return depth * ceil_div(columns, kPanel) * kPanel;
}

}  // namespace zfcuda::gemm
