// conv2d_weight_grad by Winograd's method (winograd/batch.h): T x T taps from tiles of M x M
// gradients, M + T = 7.
//
//   dw[k][tap][c] = A^T [ sum over tiles of (G dy_tile)[k] . (B^T x_tile)[c] ] A
//
// For a chunk of tiles: transform x into panels (depth: tiles, columns: phases x channels) and dy
// into packed tiles of K, and multiply: 36 products K x tiles x columns that add up over the
// chunks. At the end the sums are transformed back into taps. The sums (36 * K * columns floats)
// pass through the last-level cache once a chunk.
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
    const ConvShape& shape;
    Grid grid;
    int phases, padded_channels, columns, panels;
    int k_tiles, chunks, chunk_tiles;
    std::int64_t data_stride, gradient_stride, row_stride,
        sum_stride;  // floats between frequencies; rows of sums
    float *data, *gradients, *sums, *zeros;

    Plan(const ConvShape& s, int images, void* workspace) : shape(s), grid(source_grid(s, images)) {
        phases = s.stride_h * s.stride_w;
        padded_channels = round_up(s.c, kLanes);
        columns = phases * padded_channels;
        panels = ceil_div(columns, kPanel);
        k_tiles = ceil_div(s.k, kTileRows);
        chunks = ceil_div(grid.tiles(), kChunkTiles);
        chunk_tiles = ceil_div(grid.tiles(), chunks);
        // Room for a longer chunk, which fewer images may need.
        const std::int64_t room = std::min(grid.tiles(), kChunkTiles);
        data_stride = odd_lines(panels * room * kPanel);
        gradient_stride = odd_lines(k_tiles * room * kTileRows);
        row_stride = odd_lines(columns);
        sum_stride = odd_lines(s.k * row_stride);
        // The sums are first: they are where they are for any number of images.
        sums = static_cast<float*>(workspace);
        data = sums + kFrequencies * sum_stride;
        gradients = data + kFrequencies * data_stride;
        zeros = gradients + kFrequencies * gradient_stride;
    }

    int zero_floats() const { return std::max(padded_channels, shape.k); }
    std::size_t bytes() const { return sizeof(float) * (zeros + zero_floats() - sums); }
};

template <int M>
void transform_gradient_tile(const Plan& plan, const float* dy, const TilePosition& position,
                             int row) {
    const ConvShape& s = plan.shape;
    const float* pixels[M][M];
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < M; ++j) {
            const std::int64_t at = output_pixel(s, position, i, j);
            pixels[i][j] = at < 0 ? plan.zeros : dy + at * s.k;
        }
    for (int tile = 0; tile < plan.k_tiles; ++tile) {
        const int k0 = part_begin(s.k, plan.k_tiles, tile),
                  k1 = part_begin(s.k, plan.k_tiles, tile + 1);
        float* out =
            plan.gradients + (static_cast<std::int64_t>(tile) * plan.chunk_tiles + row) * kTileRows;
        for (int k = k0; k < k1; k += kLanes) {
            const int count = std::min(kLanes, k1 - k);
            Vec x[M][M], v[6][6];
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j)
                    x[i][j] = load_up_to(pixels[i][j] + k, count);
            transform_2d<M, 6, evaluate<M, false>>(x, v);
            for (int i = 0; i < 6; ++i)
                for (int j = 0; j < 6; ++j)
                    store_up_to(out + k - k0 + (i * 6 + j) * plan.gradient_stride, v[i][j], count);
        }
    }
}

void multiply_frequency(const Plan& plan, int frequency, int tiles, bool accumulate, int group,
                        int groups) {
    const ConvShape& s = plan.shape;
    const float* data = plan.data + frequency * plan.data_stride;
    const float* gradients = plan.gradients + frequency * plan.gradient_stride;
    float* sums = plan.sums + frequency * plan.sum_stride;
    Epilogue epilogue;
    epilogue.accumulate = accumulate;
    for (int panel = part_begin(plan.panels, groups, group);
         panel < part_begin(plan.panels, groups, group + 1); ++panel) {
        const int column = panel * kPanel;
        for (int tile = 0; tile < plan.k_tiles; ++tile) {
            const int k0 = part_begin(s.k, plan.k_tiles, tile),
                      k1 = part_begin(s.k, plan.k_tiles, tile + 1);
            float* rows[kTileRows];
            for (int i = 0; i < k1 - k0; ++i)
                rows[i] = sums + (k0 + i) * plan.row_stride;
            multiply_tile(
                k1 - k0,
                {gradients + static_cast<std::int64_t>(tile) * plan.chunk_tiles * kTileRows, 1,
                 data + static_cast<std::int64_t>(panel) * plan.chunk_tiles * kPanel, tiles,
                 kTileRows},
                rows, column, plan.columns - column, epilogue);
        }
    }
}

// The taps of filter k and one phase, from the sums.
template <int T>
void write_taps(const Plan& plan, int k, int phase, float* dw) {
    const ConvShape& s = plan.shape;
    for (int c = 0; c < s.c; c += kLanes) {
        Vec m[6][6], g[T][T];
        const float* from = plan.sums + k * plan.row_stride + phase * plan.padded_channels + c;
        for (int i = 0; i < 6; ++i)
            for (int j = 0; j < 6; ++j)
                m[i][j] = simd::load(from + (i * 6 + j) * plan.sum_stride);
        transform_2d<6, T, interpolate<T, true>>(m, g);
        for (int t = 0; t < T; ++t)
            for (int u = 0; u < T; ++u) {
                const int r = t * s.stride_h + phase / s.stride_w,
                          q = u * s.stride_w + phase % s.stride_w;
                if (r < s.r && q < s.s)
                    store_up_to(dw + ((static_cast<std::int64_t>(k) * s.r + r) * s.s + q) * s.c + c,
                                g[t][u], s.c - c);
            }
    }
}

}  // namespace

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    return Plan(shape, shape.n, nullptr).bytes();
}

void add_weight_grad(const ConvShape& s, int images, const float* x, const float* dy,
                     bool accumulate, void* workspace) {
    const Plan plan(s, images, workspace);
    const TileSource source{x, s.c, s.stride_h, s.stride_w, plan.zeros};
    const int all_tiles = plan.grid.tiles(), groups = std::min(kPanelGroups, plan.panels);
    std::fill(plan.zeros, plan.zeros + plan.zero_floats(), 0.0f);
#pragma omp parallel num_threads(threads())
    {
        for (int chunk = 0; chunk < plan.chunks; ++chunk) {
            const int first = chunk * plan.chunk_tiles;
            const int tiles = std::min(plan.chunk_tiles, all_tiles - first);
#pragma omp for
            for (int i = 0; i < tiles; ++i) {
                const TilePosition position(plan.grid, first + i);
                transform_source(source, position, plan.data_stride, [&](int d) {
                    return plan.data +
                           (static_cast<std::int64_t>(d / kPanel) * plan.chunk_tiles + i) * kPanel +
                           d % kPanel;
                });
                with_taps(s, [&](auto taps) {
                    transform_gradient_tile<tile_size(taps)>(plan, dy, position, i);
                });
            }
#pragma omp for collapse(2) schedule(dynamic)
            for (int frequency = 0; frequency < kFrequencies; ++frequency)
                for (int group = 0; group < groups; ++group)
                    multiply_frequency(plan, frequency, tiles, accumulate || chunk > 0, group,
                                       groups);
        }
    }
}

void finish_weight_grad(const ConvShape& s, float* dw, void* workspace) {
    const Plan plan(s, s.n, workspace);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int k = 0; k < s.k; ++k)
        for (int phase = 0; phase < plan.phases; ++phase)
            with_taps(s, [&](auto taps) { write_taps<taps>(plan, k, phase, dw); });
}

}  // namespace zfcuda::winograd
