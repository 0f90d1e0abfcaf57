// The implicit matrix product of implicit_gemm.h.
#include "implicit_gemm.h"

#include <algorithm>

#include "../parallel.h"

namespace zfcuda {
namespace {

void place_rows(const Gather& gather, const RowPlacement& placement, std::int64_t m0, int count,
                float** rows) {
    int j = static_cast<int>(m0 % gather.grid_w);
    const std::int64_t line = m0 / gather.grid_w;
    int i = static_cast<int>(line % gather.grid_h);
    std::int64_t n = line / gather.grid_h;
    for (int row = 0; row < count; ++row) {
        rows[row] = placement.out + n * placement.image_stride + i * placement.line_stride +
                    j * placement.pixel_stride;
        if (++j == gather.grid_w) {
            j = 0;
            if (++i == gather.grid_h) {
                i = 0;
                ++n;
            }
        }
    }
}

}  // namespace

void multiply_block(const Gather& gather, std::int64_t m0, std::int64_t m1, const float* panels,
                    int columns, int panel0, int panel1, const float* bias, bool relu, bool stream,
                    const RowPlacement& placement, float* scratch) {
    using namespace gemm;
    const int count = static_cast<int>(m1 - m0);
    float* rows[kBlockRows];
    place_rows(gather, placement, m0, count, rows);

    const int depth = gather.depth();
    // A phase without taps (stride > filter) has no depth: one empty block writes its zeros.
    const int depth_blocks = std::max(1, ceil_div(depth, kMaxDepth));
    const int tiles = ceil_div(count, kTileRows);
    for (int block = 0; block < depth_blocks; ++block) {
        const int d0 = part_begin(depth, depth_blocks, block);
        const int d1 = part_begin(depth, depth_blocks, block + 1);
        gather.pack(m0, count, d0, d1, scratch, kRowStride);
        const bool last = block == depth_blocks - 1;
        Epilogue epilogue;
        epilogue.accumulate = block > 0;
        epilogue.relu = relu && last;
        epilogue.stream = stream && depth_blocks == 1;
        for (int panel = panel0; panel < panel1; ++panel) {
            const int column = panel * kPanel;
            const float* b = panels + static_cast<std::int64_t>(depth) * column + d0 * kPanel;
            epilogue.bias = bias && last ? bias + column : nullptr;
            for (int tile = 0; tile < tiles; ++tile) {
                const int t0 = part_begin(count, tiles, tile);
                const int t1 = part_begin(count, tiles, tile + 1);
                multiply_tile(t1 - t0, {scratch + t0 * kRowStride, kRowStride, b, d1 - d0},
                              rows + t0, column, columns - column, epilogue);
            }
        }
    }
}

void multiply_all(const Gather& gather, const float* panels, int columns, const float* bias,
                  bool relu, const RowPlacement& placement, float* scratch) {
    using namespace gemm;
    const std::int64_t rows = gather.rows();
    const int team = threads();
    const int panel_count = ceil_div(columns, kPanel);
    // As many blocks of rows as a multiple of the threads, but none without a full tile; where the
    // rows are too few, the panels are shared out too.
    int blocks = ceil_div(ceil_div(rows, kBlockRows), team) * team;
    blocks = std::max(1, std::min(blocks, ceil_div(rows, kTileRows)));
    const int groups = std::min(panel_count, ceil_div(team, blocks));
    const bool stream = rows * columns * 4 > kStreamBytes && columns % simd::kLanes == 0 &&
                        placement.pixel_stride == columns && simd::is_aligned(placement.out);

#pragma omp parallel num_threads(team)
    {
        float* mine = scratch + thread_index() * kBlockScratch;
#pragma omp for collapse(2) schedule(dynamic)
        for (int block = 0; block < blocks; ++block)
            for (int group = 0; group < groups; ++group)
                multiply_block(gather, part_begin(rows, blocks, block),
                               part_begin(rows, blocks, block + 1), panels, columns,
                               part_begin(panel_count, groups, group),
                               part_begin(panel_count, groups, group + 1), bias, relu, stream,
                               placement, mine);
        if (stream) simd::stream_fence();
    }
}

void pack_filters(const float* w, int filters, int depth, float* panels) {
    using namespace gemm;
    constexpr int kStep = 16;
    const int panel_count = ceil_div(filters, kPanel);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int panel = 0; panel < panel_count; ++panel)
        for (int d0 = 0; d0 < depth; d0 += kStep) {
            const int d1 = std::min(d0 + kStep, depth);
            float* out = panels + static_cast<std::int64_t>(panel) * depth * kPanel;
            for (int j = 0; j < kPanel; ++j) {
                const int k = panel * kPanel + j;
                const float* filter = w + static_cast<std::int64_t>(k) * depth;
                for (int d = d0; d < d1; ++d)
                    out[d * kPanel + j] = k < filters ? filter[d] : 0.0f;
            }
        }
}

void pack_rows(const float* matrix, int depth, int columns, float* panels) {
    using namespace gemm;
#pragma omp parallel for num_threads(threads())
    for (int column = 0; column < columns; column += kPanel) {
        float* out = panels + static_cast<std::int64_t>(column) * depth;
        const int count = std::min(kPanel, columns - column);
        for (int d = 0; d < depth; ++d, out += kPanel) {
            simd::copy(out, matrix + static_cast<std::int64_t>(d) * columns + column, count);
            simd::clear(out + count, kPanel - count);
        }
    }
}

void pack_transposed_filters(const float* w, int k, int r, int s, int c, const PhaseTaps& taps,
                             float* panels) {
    using namespace gemm;
    const int panel_count = ceil_div(c, kPanel);
    const int depth = taps.taps_h * taps.taps_w * k;
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int panel = 0; panel < panel_count; ++panel)
        for (int t = 0; t < taps.taps_h; ++t)
            for (int u = 0; u < taps.taps_w; ++u) {
                const int row = taps.r0 + (taps.taps_h - 1 - t) * taps.step_h;
                const int col = taps.s0 + (taps.taps_w - 1 - u) * taps.step_w;
                const int count = std::min(kPanel, c - panel * kPanel);
                float* out =
                    panels +
                    (static_cast<std::int64_t>(panel) * depth + (t * taps.taps_w + u) * k) * kPanel;
                for (int f = 0; f < k; ++f, out += kPanel) {
                    const float* from = w +
                                        ((static_cast<std::int64_t>(f) * r + row) * s + col) * c +
                                        panel * kPanel;
                    simd::copy(out, from, count);
                    simd::clear(out + count, kPanel - count);
                }
            }
}

}  // namespace zfcuda
