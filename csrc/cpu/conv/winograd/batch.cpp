// conv2d and conv_transpose2d by Winograd's method (winograd/batch.h).
//
// Both are the same three steps for a chunk of tiles: transform the tiles of the source (depth:
// phases x channels, padded to whole vectors), multiply with the transformed filters (36 products
// of tiles x depth x columns), transform back and write. conv2d has the phases in the depth, the
// transposed convolution in the columns, which are the pixels of x with one remainder by the
// stride; its filters are flipped.
#include <algorithm>

#include "../../gemm.h"
#include "../../parallel.h"
#include "batch.h"
#include "grid.h"
#include "source.h"
#include "transform.h"

namespace zfcuda::winograd {
namespace {

using namespace gemm;
using simd::kLanes;

// Sizes, and the places in the workspace.
struct Plan {
    Grid grid;
    int padded_channels, depth, columns;
    int chunks, chunk_tiles;
    int depth_blocks, block_depth;
    // Floats between frequencies, and between the products' rows.
    std::int64_t filter_stride, data_stride, product_stride, row_stride;
    float *filters, *data, *products, *zeros;

    Plan(const Grid& grid, int channels, int phases, int columns, void* workspace)
        : grid(grid), padded_channels(round_up(channels, kLanes)), columns(columns) {
        chunks = ceil_div(grid.tiles(), kChunkTiles);
        chunk_tiles = ceil_div(grid.tiles(), chunks);
        depth = phases * padded_channels;
        block_depth = round_up(ceil_div(depth, ceil_div(depth, kMaxDepth)), kLanes);
        depth_blocks = ceil_div(depth, block_depth);
        // Room for a longer chunk, which fewer images may need.
        const std::int64_t room = std::min(grid.tiles(), kChunkTiles);
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

    // The filters' vector of columns from `column` on, at one depth.
    float* filter(int d, int column) const {
        return filters + (static_cast<std::int64_t>(column / kPanel) * depth + d) * kPanel +
               column % kPanel;
    }
};

// ---- The steps ----------------------------------------------------------------------------------

// Transforms tile `tile` of the grid into row `row` of the chunk's data.
void transform_tile(const Plan& plan, const TileSource& source, int tile, int row) {
    transform_source(source, TilePosition(plan.grid, tile), plan.data_stride, [&](int d) {
        const std::int64_t at =
            static_cast<std::int64_t>(d / plan.block_depth) * plan.chunk_tiles + row;
        return plan.data + at * kRowStride + d % plan.block_depth;
    });
}

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

// The outputs of the chunk's row `row`, of up to kLanes columns.
template <int M>
void transform_products(const Plan& plan, int row, int column, int count, Vec (&out)[M][M]) {
    Vec m[6][6];
    const float* from = plan.products + row * plan.row_stride + column;
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j)
            m[i][j] = load_up_to(from + (i * 6 + j) * plan.product_stride, count);
    transform_2d<6, M, interpolate<M, false>>(m, out);
}

// All steps after the filters; write_tile(position, row) transforms back and writes one tile.
template <typename WriteTile>
void run(const Plan& plan, const TileSource& source, const WriteTile& write_tile) {
    std::fill(plan.zeros, plan.zeros + plan.padded_channels, 0.0f);
    const int all_tiles = plan.grid.tiles();
    const int groups = std::min(kPanelGroups, ceil_div(plan.columns, kPanel));
#pragma omp parallel num_threads(threads())
    for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        const int first = chunk * plan.chunk_tiles;
        const int tiles = std::min(plan.chunk_tiles, all_tiles - first);
#pragma omp for
        for (int i = 0; i < tiles; ++i)
            transform_tile(plan, source, first + i, i);
#pragma omp for collapse(2) schedule(dynamic)
        for (int frequency = 0; frequency < kFrequencies; ++frequency)
            for (int group = 0; group < groups; ++group)
                multiply_frequency(plan, frequency, tiles, group, groups);
#pragma omp for
        for (int i = 0; i < tiles; ++i)
            write_tile(TilePosition(plan.grid, first + i), i);
    }
}

// ---- conv2d -------------------------------------------------------------------------------------

Plan conv2d_plan(const ConvShape& s, int images, void* workspace) {
    return Plan(source_grid(s, images), s.c, s.stride_h * s.stride_w, s.k, workspace);
}

// The taps of filters k0.. and channels c0.. of one phase, turned so that k is fastest; zero where
// there are none.
template <int T>
void turn_taps(const ConvShape& s, const float* w, int phase, int k0, int c0,
               float (&out)[kLanes][T][T][kLanes]) {
    const int k_count = std::min(kLanes, s.k - k0), c_count = std::min(kLanes, s.c - c0);
    std::fill_n(&out[0][0][0][0], kLanes * T * T * kLanes, 0.0f);
    for (int t = 0; t < T; ++t)
        for (int u = 0; u < T; ++u) {
            const int r = t * s.stride_h + phase / s.stride_w,
                      q = u * s.stride_w + phase % s.stride_w;
            if (r >= s.r || q >= s.s) continue;
            for (int k = 0; k < k_count; ++k) {
                const float* from =
                    w + ((static_cast<std::int64_t>(k0 + k) * s.r + r) * s.s + q) * s.c + c0;
                for (int c = 0; c < c_count; ++c)
                    out[c][t][u][k] = from[c];
            }
        }
}

template <int T>
void pack_filters(const ConvShape& s, const Plan& plan, const float* w) {
    const int phases = s.stride_h * s.stride_w;
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int phase = 0; phase < phases; ++phase)
        for (int k0 = 0; k0 < s.k; k0 += kLanes)
            for (int c0 = 0; c0 < plan.padded_channels; c0 += kLanes) {
                alignas(64) float taps[kLanes][T][T][kLanes];
                turn_taps<T>(s, w, phase, k0, c0, taps);
                for (int c = 0; c < kLanes; ++c) {
                    Vec g[T][T], v[6][6];
                    for (int t = 0; t < T; ++t)
                        for (int u = 0; u < T; ++u)
                            g[t][u] = simd::load(taps[c][t][u]);
                    transform_2d<T, 6, evaluate<T, true>>(g, v);
                    store_frequencies(v, plan.filter(phase * plan.padded_channels + c0 + c, k0),
                                      plan.filter_stride);
                }
            }
}

template <int M>
void write_outputs(const ConvShape& s, const Plan& plan, const TilePosition& position, int row,
                   const float* b, bool relu, float* y) {
    float* to[M][M];
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < M; ++j) {
            const std::int64_t at = output_pixel(s, position, i, j);
            to[i][j] = at < 0 ? nullptr : y + at * s.k;
        }
    for (int k = 0; k < s.k; k += kLanes) {
        const int count = s.k - k;
        Vec out[M][M];
        transform_products<M>(plan, row, k, count, out);
        const Vec bias = b ? load_up_to(b + k, count) : Vec{};
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) {
                if (!to[i][j]) continue;
                const Vec v = out[i][j] + bias;
                store_up_to(to[i][j] + k, relu ? simd::relu(v) : v, count);
            }
    }
}

// ---- conv_transpose2d ---------------------------------------------------------------------------

// Its outputs along an axis: u from pad / stride on, pixel stride * u + phase - pad.
int first_output(int stride, int pad) {
    return pad / stride;
}

Axis transposed_axis(int size, int outputs, int stride, int pad, int taps) {
    const int first = first_output(stride, pad);
    return {(size - 1 + pad) / stride - first + 1, outputs, 1, first - (taps - 1), taps};
}

Plan transposed_plan(const ConvShape& s, int images, void* workspace) {
    const Grid grid(transposed_axis(s.h, s.p(), s.stride_h, s.pad_h, phase_taps(s)),
                    transposed_axis(s.w, s.q(), s.stride_w, s.pad_w, phase_taps(s)), images);
    return Plan(grid, s.k, 1, s.stride_h * s.stride_w * round_up(s.c, kLanes), workspace);
}

// Vectors over c, which are contiguous; flipped; depth k, columns (phase, c).
template <int T>
void pack_transposed(const ConvShape& s, const Plan& plan, const float* w) {
    const int phases = s.stride_h * s.stride_w, padded = round_up(s.c, kLanes);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int phase = 0; phase < phases; ++phase)
        for (int c = 0; c < padded; c += kLanes)
            for (int k = 0; k < plan.depth; ++k) {
                Vec g[T][T], v[6][6];
                for (int t = 0; t < T; ++t)
                    for (int u = 0; u < T; ++u) {
                        const int r = (T - 1 - t) * s.stride_h + phase / s.stride_w;
                        const int q = (T - 1 - u) * s.stride_w + phase % s.stride_w;
                        const bool exists = k < s.k && r < s.r && q < s.s;
                        const std::int64_t at =
                            ((static_cast<std::int64_t>(k) * s.r + r) * s.s + q) * s.c + c;
                        g[t][u] = exists ? load_up_to(w + at, s.c - c) : Vec{};
                    }
                transform_2d<T, 6, evaluate<T, true>>(g, v);
                store_frequencies(v, plan.filter(k, phase * padded + c), plan.filter_stride);
            }
}

template <int M>
void write_phases(const ConvShape& s, const Plan& plan, const TilePosition& position, int row,
                  float* x) {
    const int first_h = first_output(s.stride_h, s.pad_h),
              first_w = first_output(s.stride_w, s.pad_w);
    for (int phase = 0; phase < s.stride_h * s.stride_w; ++phase) {
        float* to[M][M];
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) {
                const int n = position.output_image(i, j);
                const int h =
                    (position.rows.u[i] + first_h) * s.stride_h + phase / s.stride_w - s.pad_h;
                const int v =
                    (position.cols.u[j] + first_w) * s.stride_w + phase % s.stride_w - s.pad_w;
                const bool inside = n >= 0 && h >= 0 && h < s.h && v >= 0 && v < s.w;
                to[i][j] = inside ? x + ((static_cast<std::int64_t>(n) * s.h + h) * s.w + v) * s.c
                                  : nullptr;
            }
        for (int c = 0; c < s.c; c += kLanes) {
            Vec out[M][M];
            transform_products<M>(plan, row, phase * round_up(s.c, kLanes) + c, kLanes, out);
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j)
                    if (to[i][j]) store_up_to(to[i][j] + c, out[i][j], s.c - c);
        }
    }
}

}  // namespace

bool pays(const ConvShape& s) {
    const int taps = phase_taps(s), phases = s.stride_h * s.stride_w;
    if (s.stride_h > 2 || s.stride_w > 2 || taps < 2 || taps > 5) return false;
    if ((s.s + s.stride_w - 1) / s.stride_w != taps) return false;
    if (s.c < 16 || s.k < 16) return false;
    const std::int64_t tiles = source_grid(s, s.n).tiles();
    const std::int64_t direct = static_cast<std::int64_t>(s.n) * s.p() * s.q() * s.r * s.s;
    return tiles >= 24 && 2 * direct >= 3 * kFrequencies * phases * tiles;
}

std::size_t conv2d_workspace(const ConvShape& s) {
    return conv2d_plan(s, s.n, nullptr).bytes();
}

void pack_conv2d(const ConvShape& s, const float* w, void* workspace) {
    const Plan plan = conv2d_plan(s, s.n, workspace);
    with_taps(s, [&](auto taps) { pack_filters<taps>(s, plan, w); });
}

void conv2d(const ConvShape& s, int images, const float* x, const float* b, bool relu, float* y,
            void* workspace) {
    const Plan plan = conv2d_plan(s, images, workspace);
    const TileSource source{x, s.c, s.stride_h, s.stride_w, plan.zeros};
    with_taps(s, [&](auto taps) {
        run(plan, source, [&](const TilePosition& position, int row) {
            write_outputs<tile_size(taps)>(s, plan, position, row, b, relu, y);
        });
    });
}

std::size_t conv_transpose2d_workspace(const ConvShape& s) {
    return transposed_plan(s, s.n, nullptr).bytes();
}

void pack_conv_transpose2d(const ConvShape& s, const float* w, void* workspace) {
    const Plan plan = transposed_plan(s, s.n, workspace);
    with_taps(s, [&](auto taps) { pack_transposed<taps>(s, plan, w); });
}

void conv_transpose2d(const ConvShape& s, int images, const float* y, float* x, void* workspace) {
    const Plan plan = transposed_plan(s, images, workspace);
    with_taps(s, [&](auto taps) {
        run(plan, {y, s.k, 1, 1, plan.zeros}, [&](const TilePosition& position, int row) {
            write_phases<tile_size(taps)>(s, plan, position, row, x);
        });
    });
}

}  // namespace zfcuda::winograd
