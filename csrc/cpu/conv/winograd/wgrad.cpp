// wgrad by Winograd's algorithm: T x T taps from tiles of M x M gradients, M + T = 7.
//
//   dw[k][tap][c] = A^T [ sum over tiles of (G dy_tile)[k] . (B^T x_tile)[c] ] A
//
// For a chunk of tiles: transform x into panels (depth: tiles, columns: phases x channels) and dy
// into packed tiles of K, and multiply: 36 products K x tiles x columns that add up over the
// chunks. At the end the sums are transformed back into taps. The sums (36 * K * columns floats)
// pass through the last-level cache once a chunk.
#include "tiles.h"

namespace zfcuda::conv {

using namespace winograd;

namespace {

// Sizes, and the places in the workspace.
struct Plan {
    Grid grid;
    Chunks chunks;
    int padded_channels, columns, panels, k_tiles, zero_floats;
    // Floats between frequencies, and between rows of the sums.
    std::int64_t data_stride, gradient_stride, sum_stride, row_stride;
    float *data, *gradients, *sums, *zeros;

    Plan(const ConvShape& s, int images, float* workspace)
        : grid(source_grid(s, images)),
          chunks(grid.tiles()),
          padded_channels(round_up(s.c, kLanes)),
          columns(s.stride_h * s.stride_w * padded_channels),
          panels(ceil_div(columns, kPanel)),
          k_tiles(ceil_div(s.k, kTileRows)),
          zero_floats(std::max(padded_channels, s.k)) {
        const std::int64_t room = chunks.room;
        data_stride = odd_lines(panels * room * kPanel);
        gradient_stride = odd_lines(k_tiles * room * kTileRows);
        row_stride = odd_lines(columns);
        sum_stride = odd_lines(s.k * row_stride);
        // The sums are first: they are where they are for any number of images.
        sums = workspace;
        data = sums + kFrequencies * sum_stride;
        gradients = data + kFrequencies * data_stride;
        zeros = gradients + kFrequencies * gradient_stride;
    }

    std::int64_t floats() const { return zeros + zero_floats - sums; }

    // Row `row` of the chunk: of a panel of data, and of a tile of gradients.
    float* data_row(int panel, int row) const {
        return data + (static_cast<std::int64_t>(panel) * chunks.tiles + row) * kPanel;
    }
    float* gradient_row(int tile, int row) const {
        return gradients + (static_cast<std::int64_t>(tile) * chunks.tiles + row) * kTileRows;
    }
};

template <int M>
void transform_gradients(const ConvShape& s, const Plan& plan, const float* dy,
                         const TilePosition& position, int row) {
    const float* pixels[M][M];
    output_pixels<M, const float>(s, position, dy, s.k, plan.zeros, pixels);
    for (int tile = 0; tile < plan.k_tiles; ++tile) {
        const int k0 = part_begin(s.k, plan.k_tiles, tile),
                  k1 = part_begin(s.k, plan.k_tiles, tile + 1);
        float* out = plan.gradient_row(tile, row);
        for (int k = k0; k < k1; k += kLanes) {
            const int count = k1 - k;
            Vec x[M][M], v[kPoints][kPoints];
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j)
                    x[i][j] = load_up_to(pixels[i][j] + k, count);
            transform_2d<M, kPoints, evaluate<M, false>>(x, v);
            for (int i = 0; i < kPoints; ++i)
                for (int j = 0; j < kPoints; ++j)
                    store_up_to(out + k - k0 + (i * kPoints + j) * plan.gradient_stride, v[i][j],
                                count);
        }
    }
}

// Adds the products of the chunk's tiles for the panels [panel0, panel1) at one frequency.
void multiply(const ConvShape& s, const Plan& plan, int frequency, int tiles, bool accumulate,
              int panel0, int panel1) {
    float* sums = plan.sums + frequency * plan.sum_stride;
    Epilogue epilogue;
    epilogue.accumulate = accumulate;
    for (int panel = panel0; panel < panel1; ++panel) {
        const int column = panel * kPanel;
        const float* data = plan.data_row(panel, 0) + frequency * plan.data_stride;
        for (int tile = 0; tile < plan.k_tiles; ++tile) {
            const int k0 = part_begin(s.k, plan.k_tiles, tile),
                      k1 = part_begin(s.k, plan.k_tiles, tile + 1);
            const float* gradients = plan.gradient_row(tile, 0) + frequency * plan.gradient_stride;
            gemm::multiply(k1 - k0, {gradients, 1, data, tiles, kTileRows},
                           sums + k0 * plan.row_stride + column, plan.row_stride,
                           plan.columns - column, epilogue);
        }
    }
}

std::int64_t workspace(const ConvShape& s, const PoolShape*) {
    return Plan(s, s.n, nullptr).floats();
}

void run(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s, call.images, call.workspace);
    const TileSource source{call.x, s.c, s.stride_h, s.stride_w, plan.zeros};
    std::fill(plan.zeros, plan.zeros + plan.zero_floats, 0.0f);
    for_chunks(
        plan.chunks, plan.panels,
        [&](int tile, int row) {
            const TilePosition position(plan.grid, tile);
            transform_source(source, position, plan.data_stride,
                             [&](int d) { return plan.data_row(d / kPanel, row) + d % kPanel; });
            with_taps(s, [&](auto taps) {
                transform_gradients<tile_size(taps)>(s, plan, call.y, position, row);
            });
        },
        [&](int frequency, int chunk, int tiles, int panel0, int panel1) {
            multiply(s, plan, frequency, tiles, call.accumulate || chunk > 0, panel0, panel1);
        },
        [](int, int) {});
}

// The taps of filter k and one phase, from the sums.
template <int T>
void write_taps(const ConvShape& s, const Plan& plan, int k, int phase, float* dw) {
    for (int c = 0; c < s.c; c += kLanes) {
        const float* from = plan.sums + k * plan.row_stride + phase * plan.padded_channels + c;
        Vec m[kPoints][kPoints], g[T][T];
        load_frequencies(from, plan.sum_stride, kLanes, m);
        transform_2d<kPoints, T, interpolate<T, true>>(m, g);
        for (int t = 0; t < T; ++t)
            for (int u = 0; u < T; ++u) {
                const Tap tap(s, phase, t, u);
                if (tap.exists(s)) store_up_to(dw + tap.offset(s, k, c), g[t][u], s.c - c);
            }
    }
}

void finish(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s, s.n, call.workspace);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int k = 0; k < s.k; ++k)
        for (int phase = 0; phase < s.stride_h * s.stride_w; ++phase)
            with_taps(s, [&](auto taps) { write_taps<taps>(s, plan, k, phase, call.out); });
}

// Where the multiply-adds of all tiles, with channels padded to whole vectors, are two thirds of the
// direct product's.
bool applies(const ConvShape& s) {
    if (!batch_applies(s)) return false;
    const double direct = static_cast<double>(s.n) * s.p() * s.q() * s.r * s.s * s.c;
    const int depth = s.stride_h * s.stride_w * round_up(s.c, kLanes);
    return direct >= 1.5 * kFrequencies * depth * source_grid(s, s.n).tiles();
}

}  // namespace
const Method winograd_wgrad{
    "winograd", Direction::kWgrad, Fusion::kImages, applies, workspace, nullptr, run, finish};

}  // namespace zfcuda::conv
