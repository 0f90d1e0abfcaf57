// Convolution as an implicit matrix product: rows gathered block by block, filters as panels.
//
//   out[m][j] = act(add[m][j] + bias[j] + scale[j] * sum over d of gather[m][d] * filters[d][j])
//
// A block of kBlockRows rows and up to kMaxDepth of the depth is gathered into the thread's scratch
// (268 KB, in the second-level cache), then every panel of filters (48 KB a depth block, read in
// sequence) meets every tile of the block. Bounded by the multiply-adds; gathering costs 1 / (2 *
// columns) of them.
#pragma once

#include <cstdint>

#include "../gemm.h"
#include "gather.h"

namespace zfcuda::conv {

// Floats of scratch a thread needs.
constexpr std::int64_t kBlockScratch = kBlockRows * gemm::kRowStride;

// Where the row (n, i, j) of the result lies.
struct RowPlacement {
    float* out;
    std::int64_t image_stride, line_stride, pixel_stride;
};

// The rows [m0, m1) of the result, at most kBlockRows, and of its columns those of the panels
// [panel0, panel1), by the calling thread. `whole`: what becomes of the sums over the whole depth.
void multiply_block(const Gather& gather, std::int64_t m0, std::int64_t m1, const float* panels,
                    int columns, int panel0, int panel1, const gemm::Epilogue& whole,
                    const RowPlacement& placement, float* scratch);

// Gathering takes as long as a third of the products where these have few columns. But windows that
// are neighbours in a line lie step_w * c floats apart, and the taps of a filter row are a run: once
// lines of the image are copied with their padding, a tile's rows are read in place. Whether that can
// be done for so many columns, and pays: the rows of a tile lie in one line.
bool reads_lines(const Gather& gather, int columns);

// The whole result that way, by `team` threads, each with kBlockScratch floats of `scratch`.
void multiply_lines(const Gather& gather, const float* panels, int columns,
                    const gemm::Epilogue& whole, const RowPlacement& placement, int team,
                    float* scratch);

// The time of the products, those of the regions of regions.h unless lines are read, in that of all.
// Those of small regions take longer each, since every region reads the filters.
double made_part(const Gather& gather, int columns);

// Panels of filters w (K,R,S,C) as conv2d needs them: depth (r, s, c), columns k; by `team` threads.
void pack_filters(const float* w, int filters, int depth, int team, float* panels);

// Panels of a matrix (depth, columns) as it lies.
void pack_rows(const float* matrix, int depth, int columns, float* panels);

}  // namespace zfcuda::conv
