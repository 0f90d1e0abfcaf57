// wgrad by Winograd's algorithm: T x T taps from tiles of M x M gradients, M + T = 7.
//
//   dw[k][tap][c] = A^T [ sum over tiles of (G dy_tile)[k] . (B^T x_tile)[c] ] A
//
// For a chunk of tiles: transform x into panels (depth: tiles, columns: phases x channels) and dy
// into rows of K, and multiply: 36 products K x tiles x columns that add up over the
// chunks. At the end the sums are transformed back into taps. The sums (36 * K * columns floats)
// pass through the last-level cache once a chunk. Where they are few, the tiles are cut into parts
// with sums of their own, in a way that depends on the shape alone, and a thread makes the chunks of
// a part by itself: what one thread writes and another one reads may come from a distant cache (twice
// as long for 24 channels and filters, Zen 5, on two processors that share no cache).
#include "../lines.h"
#include "tiles.h"

namespace zfcuda::conv {

using namespace winograd;

namespace {

// Sizes, and the places in the workspace.
struct Plan {
    Grid grid;
    int padded_channels, columns, panels, zero_floats;
    // Floats between frequencies, and between rows, of the sums.
    std::int64_t sum_stride, row_stride;
    int parts;  // of the tiles, of which one thread makes one; or 1, which all make together
    Chunks chunks;
    // The same of a chunk's data, whose rows are packed, and of its gradients.
    std::int64_t data_stride, gradient_stride;
    int gradient_row_stride;
    float *sums, *zeros, *data, *gradients;

    Plan(const ConvShape& s, int images, float* workspace)
        : grid(source_grid(s, images)),
          padded_channels(round_up(s.c, kLanes)),
          columns(s.stride_h * s.stride_w * padded_channels),
          panels(ceil_div(columns, kPanel)),
          zero_floats(std::max(padded_channels, s.k)),
          sum_stride(odd_lines(s.k * odd_lines(columns))),
          row_stride(odd_lines(columns)),
          parts(parts_of(source_grid(s, s.n).tiles())),
          chunks(grid.tiles(), parts > 1 ? own_tiles(s.k) : kChunkTiles),
          gradient_row_stride(static_cast<int>(odd_lines(s.k))) {
        const std::int64_t room = chunks.room;
        data_stride = odd_lines(panels * room * kPanel);
        gradient_stride = odd_lines(room * gradient_row_stride);
        // The sums are first: they are where they are for any number of images.
        sums = workspace;
        zeros = sums + parts * part_floats();
        data = zeros + odd_lines(zero_floats);
        gradients = data + kFrequencies * data_stride;
    }

    std::int64_t floats() const {
        return data - sums + (parts > 1 ? max_threads() : 1) * chunk_floats();
    }

    int parts_of(int tiles) const {
        return part_floats() > kOwnSumFloats ? 1 : std::clamp(tiles / kPartTiles, 1, kWgradParts);
    }

    // Tiles of a thread's own chunk.
    int own_tiles(int filters) const {
        return std::clamp(kOwnChunkFloats / (kFrequencies * (columns + filters)), kPartTiles / 2,
                          kPartTiles);
    }

    // Floats of the sums of a part, and of the data and gradients of a chunk.
    std::int64_t part_floats() const { return kFrequencies * sum_stride; }
    std::int64_t chunk_floats() const { return kFrequencies * (data_stride + gradient_stride); }

    // The same with the chunk of one thread.
    Plan of_thread(int thread) const {
        Plan plan = *this;
        plan.data += thread * chunk_floats();
        plan.gradients += thread * chunk_floats();
        return plan;
    }

    // Row `row` of a panel of the chunk's data.
    float* data_row(int panel, int row) const {
        return data + (static_cast<std::int64_t>(panel) * chunks.tiles + row) * kPanel;
    }
};

template <int M>
void transform_gradients(const ConvShape& s, const Plan& plan, const float* dy,
                         const TilePosition& position, int row) {
    const float* pixels[M][M];
    output_pixels<M, const float>(s, position, dy, s.k, plan.zeros, pixels);
    float* out = plan.gradients + static_cast<std::int64_t>(row) * plan.gradient_row_stride;
    for (int k = 0; k < s.k; k += kLanes) {
        Vec x[M][M], v[kPoints][kPoints];
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j)
                x[i][j] = load_up_to(pixels[i][j] + k, s.k - k);
        transform_2d<M, kPoints, evaluate<M, false>>(x, v);
        store_frequencies(v, out + k, plan.gradient_stride);
    }
}

// Adds the products of the chunk's tiles to the sums of a part, for the panels [panel0, panel1) at one
// frequency. (Those sums that it does not need make no tap that exists.)
void multiply(const ConvShape& s, const Plan& plan, int part, int frequency, int tiles,
              bool accumulate, int panel0, int panel1) {
    const Range needed = needed_places(s, frequency);
    panel0 = std::max(panel0, needed.begin * plan.padded_channels / kPanel);
    panel1 = std::min(panel1, ceil_div(needed.end * plan.padded_channels, kPanel));
    float* sums = plan.sums + part * plan.part_floats() + frequency * plan.sum_stride;
    const float* gradients = plan.gradients + frequency * plan.gradient_stride;
    Epilogue epilogue;
    epilogue.accumulate = accumulate;
    for (int panel = panel0; panel < panel1; ++panel) {
        const int column = panel * kPanel;
        const float* data = plan.data_row(panel, 0) + frequency * plan.data_stride;
        gemm::multiply(s.k, {gradients, 1, data, tiles, plan.gradient_row_stride}, sums + column,
                       plan.row_stride, plan.columns - column, epilogue);
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
    const auto transform = [&](const Plan& plan, int tile, int row) {
        const TilePosition position(plan.grid, tile);
        transform_source(source, position, plan.data_stride,
                         [&](int d) { return plan.data_row(d / kPanel, row) + d % kPanel; });
        with_taps(s, [&](auto taps) {
            transform_gradients<tile_size(taps)>(s, plan, call.y, position, row);
        });
    };
    if (plan.parts == 1)
        return for_chunks(
            plan.chunks, plan.panels, [&](int tile, int row) { transform(plan, tile, row); },
            [&](int frequency, int chunk, int tiles, int panel0, int panel1) {
                multiply(s, plan, 0, frequency, tiles, call.accumulate || chunk > 0, panel0,
                         panel1);
            },
            [](int, int) {});
    Tasks tasks(plan.parts);
#pragma omp parallel num_threads(threads())
    {
        const Plan mine = plan.of_thread(thread_index());
        tasks.run([&](std::int64_t task) {
            const int part = static_cast<int>(task), all = plan.chunks.all_tiles;
            const int begin = part_begin(all, plan.parts, part);
            const int end = part_begin(all, plan.parts, part + 1);
            int tile = begin;
            // A part without tiles (fewer images than there is room for) adds a depth of zero.
            do {
                const int rows = std::min(plan.chunks.tiles, end - tile);
                for (int row = 0; row < rows; ++row)
                    transform(mine, tile + row, row);
                for (int frequency = 0; frequency < kFrequencies; ++frequency)
                    multiply(s, mine, part, frequency, rows, call.accumulate || tile > begin, 0,
                             plan.panels);
                tile += rows;
            } while (tile < end);
        });
    }
}

// The taps of filter k and one phase, from the sums, in the order of the parts.
template <int T>
void write_taps(const ConvShape& s, const Plan& plan, int k, int phase, float* dw) {
    for (int c = 0; c < s.c; c += kLanes) {
        const float* from = plan.sums + k * plan.row_stride +
                            place_of(phase, s.stride_w) * plan.padded_channels + c;
        Vec m[kPoints][kPoints], g[T][T];
        load_frequencies(from, plan.sum_stride, kLanes, m);
        for (int part = 1; part < plan.parts; ++part)
            for (int i = 0; i < kPoints; ++i)
                for (int j = 0; j < kPoints; ++j)
                    m[i][j] += simd::load(from + part * plan.part_floats() +
                                          (i * kPoints + j) * plan.sum_stride);
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

// Where the products of the windows take longer than products and transforms of all tiles, whose
// cost was measured: of x on Zen 5, AVX-512 and AVX2, of gradients on Zen 3, AVX2 alone.
bool applies(const ConvShape& s) {
    if (!batch_applies(s)) return false;
    // Of a vector of x and of gradients, in vectors of multiply-adds.
    constexpr double kTransform = 350, kGradient = 400, kLeastGain = 1.35;
    const int vectors = s.stride_h * s.stride_w * ceil_div(s.c, kLanes);
    const double tile = kFrequencies * needed_part(s) * s.k * vectors + kTransform * vectors +
                        kGradient * ceil_div(s.k, kLanes);
    const double direct = static_cast<double>(s.n) * s.p() * s.q() * windows_wgrad_cost(s);
    return direct > kLeastGain * tile * source_grid(s, s.n).tiles();
}

}  // namespace
const Method winograd_wgrad{
    "winograd", Direction::kWgrad, Fusion::kImages, applies, workspace, nullptr, run, finish};

}  // namespace zfcuda::conv
