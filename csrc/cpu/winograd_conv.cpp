// conv2d and conv_transpose2d by Winograd's method (winograd.h).
//
// Both are the same three steps for a chunk of tiles: transform the tiles of the source (depth:
// phases x channels, padded to whole vectors), multiply with the transformed filters (36 products
// of tiles x depth x columns), transform back and write. conv2d has the phases in the depth, the
// transposed convolution in the columns, which are the pixels of x with one remainder by the
// stride; its filters are flipped.
#include <algorithm>

#include "gemm.h"
#include "winograd.h"
#include "winograd_grid.h"
#include "winograd_source.h"
#include "winograd_transform.h"

namespace zfcuda::winograd {
namespace {

using namespace gemm;
using simd::kLanes;

constexpr int kChunkTiles = 224;

constexpr int taps(int filter, int stride) {
    return (filter + stride - 1) / stride;
}

// Sizes, and the places in the workspace.
struct Plan {
    Grid grid;
    int channels, padded_channels, phases_in;  // of the source; depth = phases_in * padded_channels
    int columns;
    int chunks, chunk_tiles;
    int depth, depth_blocks, block_depth;
    std::int64_t filter_stride, data_stride, row_stride,
        product_stride;  // floats between frequencies; rows of products
    float *filters, *data, *products, *zeros;

    Plan(const Grid& grid, int channels, int phases_in, int columns, void* workspace)
        : grid(grid),
          channels(channels),
          padded_channels(round_up(channels, kLanes)),
          phases_in(phases_in),
          columns(columns) {
        const int tiles = grid.tiles();
        chunks = ceil_div(tiles, kChunkTiles);
        chunk_tiles = ceil_div(tiles, chunks);
        // Room for a longer chunk, which fewer images may need.
        const std::int64_t room = std::min(tiles, kChunkTiles);
        depth = phases_in * padded_channels;
        depth_blocks = ceil_div(depth, kMaxDepth);
        block_depth = round_up(ceil_div(depth, depth_blocks), kLanes);
        depth_blocks = ceil_div(depth, block_depth);
        filter_stride = odd_lines(panels_size(depth, columns));
        data_stride = odd_lines(depth_blocks * room * kRowStride);
        row_stride = odd_lines(columns);
        product_stride = odd_lines(row_stride * room);
        filters = static_cast<float*>(workspace);
        data = filters + kFrequencies * filter_stride;
        products = data + kFrequencies * data_stride;
        zeros = products + kFrequencies * product_stride;
    }

    std::size_t bytes() const { return sizeof(float) * (zeros + padded_channels - filters); }
};

// Multiplies the chunk's tiles with the filters: `group` of `groups` of the panels at one
// frequency.
void multiply_frequency(const Plan& plan, int frequency, int tiles, int group, int groups) {
    const float* data = plan.data + frequency * plan.data_stride;
    const float* filters = plan.filters + frequency * plan.filter_stride;
    float* products = plan.products + frequency * plan.product_stride;
    float* rows[kChunkTiles];
    for (int i = 0; i < tiles; ++i)
        rows[i] = products + i * plan.row_stride;
    const int panels = ceil_div(plan.columns, kPanel), row_tiles = ceil_div(tiles, kTileRows);
    for (int block = 0; block < plan.depth_blocks; ++block) {
        const int d0 = block * plan.block_depth, d1 = std::min(d0 + plan.block_depth, plan.depth);
        const float* a = data + static_cast<std::int64_t>(block) * plan.chunk_tiles * kRowStride;
        Epilogue epilogue;
        epilogue.accumulate = block > 0;
        for (int panel = part_begin(panels, groups, group);
             panel < part_begin(panels, groups, group + 1); ++panel) {
            const int column = panel * kPanel;
            const float* b =
                filters + (static_cast<std::int64_t>(panel) * plan.depth + d0) * kPanel;
            for (int t = 0; t < row_tiles; ++t) {
                const int t0 = part_begin(tiles, row_tiles, t),
                          t1 = part_begin(tiles, row_tiles, t + 1);
                multiply_tile(t1 - t0, {a + t0 * kRowStride, kRowStride, b, d1 - d0}, rows + t0,
                              column, plan.columns - column, epilogue);
            }
        }
    }
}

// The 4 x 4 outputs of the chunk's row `row` at `column`.
void transform_products(const Plan& plan, int row, int column, int count, Vec (&out)[4][4]) {
    Vec m[6][6];
    const float* from = plan.products + row * plan.row_stride + column;
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) {
            const float* p = from + (i * 6 + j) * plan.product_stride;
            m[i][j] = load_up_to(p, count);
        }
    transform_2d<6, 4, transform_output>(m, out);
}

// All steps after the filters; write_tile(position, row) transforms back and writes one tile.
template <typename WriteTile>
void run(const Plan& plan, const TileSource& source, const WriteTile& write_tile) {
    std::fill(plan.zeros, plan.zeros + plan.padded_channels, 0.0f);
    const int all_tiles = plan.grid.tiles();
    const int groups = std::min(4, ceil_div(plan.columns, kPanel));
#pragma omp parallel num_threads(threads())
    {
        for (int chunk = 0; chunk < plan.chunks; ++chunk) {
            const int first = chunk * plan.chunk_tiles;
            const int tiles = std::min(plan.chunk_tiles, all_tiles - first);
#pragma omp for
            for (int i = 0; i < tiles; ++i)
                transform_source(
                    source, TilePosition(plan.grid, first + i), plan.data_stride, [&](int d) {
                        const std::int64_t row =
                            static_cast<std::int64_t>(d / plan.block_depth) * plan.chunk_tiles + i;
                        return plan.data + row * kRowStride + d % plan.block_depth;
                    });
#pragma omp for collapse(2) schedule(dynamic)
            for (int frequency = 0; frequency < kFrequencies; ++frequency)
                for (int group = 0; group < groups; ++group)
                    multiply_frequency(plan, frequency, tiles, group, groups);
#pragma omp for
            for (int i = 0; i < tiles; ++i)
                write_tile(TilePosition(plan.grid, first + i), i);
        }
    }
}

Plan conv2d_plan(const ConvShape& s, void* workspace) {
    return Plan(Grid({s.p(), s.h, s.stride_h, -s.pad_h}, {s.q(), s.w, s.stride_w, -s.pad_w}, s.n),
                s.c, s.stride_h * s.stride_w, s.k, workspace);
}

// The transposed convolution's outputs along an axis: u from pad / stride on, pixel stride * u +
// phase - pad.
int first_output(int stride, int pad) {
    return pad / stride;
}

Axis transposed_axis(int size, int outputs, int stride, int pad) {
    const int first = first_output(stride, pad);
    return {(size - 1 + pad) / stride - first + 1, outputs, 1, first - (kTaps - 1)};
}

Plan conv_transpose2d_plan(const ConvShape& s, void* workspace) {
    return Plan(Grid(transposed_axis(s.h, s.p(), s.stride_h, s.pad_h),
                     transposed_axis(s.w, s.q(), s.stride_w, s.pad_w), s.n),
                s.k, 1, s.stride_h * s.stride_w * round_up(s.c, kLanes), workspace);
}

}  // namespace

bool pays(const ConvShape& s) {
    return s.stride_h == s.stride_w && s.stride_h <= 2 && taps(s.r, s.stride_h) == kTaps &&
           taps(s.s, s.stride_w) == kTaps && s.c >= 64 && s.k >= 64 && s.p() >= 4 && s.q() >= 4;
}

std::size_t conv2d_workspace(const ConvShape& shape) {
    return conv2d_plan(shape, nullptr).bytes();
}

// Vectors over k, from 9 taps turned so that k is fastest.
void pack_conv2d(const ConvShape& s, const float* w, void* workspace) {
    const Plan plan = conv2d_plan(s, workspace);
    const int groups = ceil_div(s.k, kLanes);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int phase = 0; phase < plan.phases_in; ++phase)
        for (int group = 0; group < groups; ++group)
            for (int c0 = 0; c0 < plan.padded_channels; c0 += kLanes) {
                alignas(64) float block[kLanes][kTaps][kTaps][kLanes] = {};
                const int k0 = group * kLanes;
                const int k_count = std::min(kLanes, s.k - k0),
                          c_count = std::min(kLanes, s.c - c0);
                for (int t = 0; t < kTaps; ++t)
                    for (int u = 0; u < kTaps; ++u) {
                        const int r = t * s.stride_h + phase / s.stride_w;
                        const int q = u * s.stride_w + phase % s.stride_w;
                        if (r >= s.r || q >= s.s) continue;
                        for (int k = 0; k < k_count; ++k) {
                            const float* from =
                                w +
                                ((static_cast<std::int64_t>(k0 + k) * s.r + r) * s.s + q) * s.c +
                                c0;
                            for (int c = 0; c < c_count; ++c)
                                block[c][t][u][k] = from[c];
                        }
                    }
                for (int c = 0; c < kLanes; ++c) {
                    Vec g[3][3], v[6][6];
                    for (int t = 0; t < kTaps; ++t)
                        for (int u = 0; u < kTaps; ++u)
                            g[t][u] = simd::load(block[c][t][u]);
                    transform_2d<3, 6, transform_filter>(g, v);
                    const std::int64_t row = static_cast<std::int64_t>(k0 / kPanel) * plan.depth +
                                             phase * plan.padded_channels + c0 + c;
                    store_frequencies(v, plan.filters + row * kPanel + k0 % kPanel,
                                      plan.filter_stride);
                }
            }
}

void conv2d(const ConvShape& s, const float* x, const float* b, bool relu, float* y,
            void* workspace) {
    const Plan plan = conv2d_plan(s, workspace);
    const auto write_tile = [&](const TilePosition& position, int row) {
        float* to[4][4];
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const int n = position.output_image(i, j);
                to[i][j] =
                    n < 0
                        ? nullptr
                        : y + ((static_cast<std::int64_t>(n) * s.p() + position.rows.u[i]) * s.q() +
                               position.cols.u[j]) *
                                  s.k;
            }
        for (int k = 0; k < s.k; k += kLanes) {
            const int count = s.k - k;
            Vec out[4][4];
            transform_products(plan, row, k, count, out);
            Vec bias{};
            if (b) bias = load_up_to(b + k, count);
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) {
                    if (!to[i][j]) continue;
                    const Vec v = out[i][j] + bias;
                    store_up_to(to[i][j] + k, relu ? simd::relu(v) : v, count);
                }
        }
    };
    run(plan, {x, s.c, s.stride_h, s.stride_w, plan.zeros}, write_tile);
}

std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    return conv_transpose2d_plan(shape, nullptr).bytes();
}

// Vectors over c, which are contiguous; flipped; depth k, columns (phase, c).
void pack_conv_transpose2d(const ConvShape& s, const float* w, void* workspace) {
    const Plan plan = conv_transpose2d_plan(s, workspace);
    const int phases = s.stride_h * s.stride_w, padded = round_up(s.c, kLanes);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int phase = 0; phase < phases; ++phase)
        for (int c = 0; c < padded; c += kLanes)
            for (int k = 0; k < plan.depth; ++k) {
                const int count = s.c - c;
                Vec g[3][3], v[6][6];
                for (int t = 0; t < kTaps; ++t)
                    for (int u = 0; u < kTaps; ++u) {
                        const int r = (kTaps - 1 - t) * s.stride_h + phase / s.stride_w;
                        const int q = (kTaps - 1 - u) * s.stride_w + phase % s.stride_w;
                        const float* from =
                            w + ((static_cast<std::int64_t>(k) * s.r + r) * s.s + q) * s.c + c;
                        if (k >= s.k || r >= s.r || q >= s.s)
                            g[t][u] = Vec{};
                        else
                            g[t][u] = load_up_to(from, count);
                    }
                transform_2d<3, 6, transform_filter>(g, v);
                const int column = phase * padded + c;
                const std::int64_t row =
                    static_cast<std::int64_t>(column / kPanel) * plan.depth + k;
                store_frequencies(v, plan.filters + row * kPanel + column % kPanel,
                                  plan.filter_stride);
            }
}

void conv_transpose2d(const ConvShape& s, const float* y, float* x, void* workspace) {
    const Plan plan = conv_transpose2d_plan(s, workspace);
    const int phases = s.stride_h * s.stride_w, padded = round_up(s.c, kLanes);
    const int first_h = first_output(s.stride_h, s.pad_h),
              first_w = first_output(s.stride_w, s.pad_w);
    const auto write_tile = [&](const TilePosition& position, int row) {
        for (int phase = 0; phase < phases; ++phase) {
            float* to[4][4];
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) {
                    const int n = position.output_image(i, j);
                    const int h =
                        (position.rows.u[i] + first_h) * s.stride_h + phase / s.stride_w - s.pad_h;
                    const int v =
                        (position.cols.u[j] + first_w) * s.stride_w + phase % s.stride_w - s.pad_w;
                    const bool inside = n >= 0 && h >= 0 && h < s.h && v >= 0 && v < s.w;
                    to[i][j] = inside
                                   ? x + ((static_cast<std::int64_t>(n) * s.h + h) * s.w + v) * s.c
                                   : nullptr;
                }
            for (int c = 0; c < s.c; c += kLanes) {
                Vec out[4][4];
                transform_products(plan, row, phase * padded + c, kLanes, out);
                for (int i = 0; i < 4; ++i)
                    for (int j = 0; j < 4; ++j)
                        if (to[i][j]) store_up_to(to[i][j] + c, out[i][j], s.c - c);
            }
        }
    };
    run(plan, {y, s.k, 1, 1, plan.zeros}, write_tile);
}

}  // namespace zfcuda::winograd
