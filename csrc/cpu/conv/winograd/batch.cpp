// fprop and dgrad by Winograd's algorithm, for a batch of images with many channels.
//
// Both are three steps for a chunk of tiles: transform the tiles of the source (depth: phases x
// channels, padded to whole vectors), multiply with the transformed filters (36 products of tiles x
// depth x columns), transform back and write. fprop has the phases in the depth, dgrad in the
// columns, which are the pixels of x with one remainder by the stride; its filters are flipped.
//
// Transformed filters and tiles stay in the last-level cache; where the filters are few, a thread
// makes chunks alone, which stay in its own cache. The transforms cost memory traffic that is shared
// by all channels on the other side. Where maps are small, neighbouring images of a batch share tiles
// (grid.h), and with them errors of the size of the larger one: only images of a like size do. An
// infinity or NaN is larger than all.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../../streams.h"
#include "../implicit_gemm.h"
#include "../lines.h"
#include "tiles.h"

namespace zfcuda::conv {

using namespace winograd;

namespace {

// Sizes, and the places in the workspace.
struct Plan {
    Grid grid;
    int padded_channels, depth, columns;
    bool own_chunks;  // of each thread; else one at a time, of all
    Chunks chunks;
    int depth_blocks, block_depth;
    // Floats between frequencies, and between the products' rows.
    std::int64_t data_stride, product_stride, row_stride;
    Filters filters;
    float *data, *products, *zeros;
    Range depths[kFrequencies], panels[kFrequencies];  // that each frequency needs

    // Of `phases` of the source or, with flipped filters, `column_phases` of the output.
    Plan(const ConvShape& s, const Grid& grid, int channels, int phases, int columns,
         int column_phases, float* workspace)
        : grid(grid),
          padded_channels(round_up(channels, kLanes)),
          depth(phases * padded_channels),
          columns(columns),
          own_chunks(kFrequencies * panels_size(depth, columns) <= kOwnFilterFloats),
          chunks(grid.tiles(), own_chunks ? own_tiles(grid.tiles()) : kChunkTiles) {
        block_depth = round_up(ceil_div(depth, ceil_div(depth, kMaxDepth)), kLanes);
        depth_blocks = ceil_div(depth, block_depth);
        data_stride = odd_lines(static_cast<std::int64_t>(depth_blocks) * chunks.room * kRowStride);
        row_stride = odd_lines(columns);
        product_stride = odd_lines(row_stride * chunks.room);
        filters = {workspace, depth, static_cast<std::int64_t>(depth) * kPanel,
                   odd_lines(panels_size(depth, columns))};
        data = workspace + kFrequencies * filters.frequency_stride;
        products = data + kFrequencies * data_stride;
        zeros = products + kFrequencies * product_stride;
        for (int frequency = 0; frequency < kFrequencies; ++frequency) {
            const Range all{0, 1}, needed = needed_places(s, frequency, column_phases > 1);
            const Range deep = phases > 1 ? needed : all, wide = column_phases > 1 ? needed : all;
            const int across = columns / column_phases;
            depths[frequency] = {deep.begin * padded_channels, deep.end * padded_channels};
            panels[frequency] = {wide.begin * across / kPanel, ceil_div(wide.end * across, kPanel)};
        }
    }

    std::int64_t floats() const {
        return zeros - filters.first + padded_channels + (teams() - 1) * chunk_floats();
    }

    // How many chunks are worked on at a time.
    int teams() const { return own_chunks ? max_threads() : 1; }

    // Tiles of a thread's own chunk: what its cache holds, and some chunks for each thread.
    int own_tiles(int all_tiles) const {
        const int held = kOwnChunkFloats / (kFrequencies * (depth + columns)) / kTileRows;
        const int shared_out = ceil_div(all_tiles, 2 * max_threads() * kTileRows);
        return std::max(1, std::min(held, shared_out)) * kTileRows;
    }

    // Floats of a chunk's data and products. The first chunk's lie before the zeros, the others'
    // behind them.
    std::int64_t chunk_floats() const { return zeros - data; }

    // The same with the chunk of one thread.
    Plan of_thread(int thread) const {
        Plan plan = *this;
        if (thread == 0) return plan;
        plan.data = zeros + padded_channels + (thread - 1) * chunk_floats();
        plan.products = plan.data + (products - data);
        return plan;
    }

    // The products of row `row` of the chunk, from `column` on.
    const float* product(int row, int column) const { return products + row * row_stride + column; }
};

// Products that are not needed are zero in every chunk.
void clear_others(const Plan& plan, int frequency) {
    const int begin = plan.panels[frequency].begin * kPanel;
    const int end = std::min(plan.panels[frequency].end * kPanel, plan.columns);
    float* row = plan.products + frequency * plan.product_stride;
    for (int tile = 0; tile < plan.chunks.tiles; ++tile, row += plan.row_stride) {
        std::fill(row, row + begin, 0.0f);
        std::fill(row + end, row + plan.columns, 0.0f);
    }
}

// Multiplies the chunk's tiles with the panels [panel0, panel1) of the filters at one frequency.
void multiply(const Plan& plan, int frequency, int tiles, int panel0, int panel1) {
    const Range depths = plan.depths[frequency], panels = plan.panels[frequency];
    panel0 = std::max(panel0, panels.begin);
    panel1 = std::min(panel1, panels.end);
    const float* data = plan.data + frequency * plan.data_stride;
    const float* filters = plan.filters.first + frequency * plan.filters.frequency_stride;
    float* products = plan.products + frequency * plan.product_stride;
    for (int block = depths.begin / plan.block_depth; block < plan.depth_blocks; ++block) {
        const int first = block * plan.block_depth, d0 = std::max(first, depths.begin);
        const int d1 = std::min(first + plan.block_depth, depths.end);
        if (d0 >= d1) break;
        const float* a =
            data + static_cast<std::int64_t>(block) * plan.chunks.tiles * kRowStride + d0 - first;
        Epilogue epilogue;
        epilogue.accumulate = d0 > depths.begin;
        for (int panel = panel0; panel < panel1; ++panel) {
            const int column = panel * kPanel;
            const float* b = filters + panel * plan.filters.panel_stride + d0 * kPanel;
            gemm::multiply(tiles, {a, kRowStride, b, d1 - d0}, products + column, plan.row_stride,
                           plan.columns - column, epilogue);
        }
    }
}

// Transforms the source of tile `tile` into row `row` of the chunk.
void transform(const Plan& plan, const TileSource& source, int tile, int row) {
    const auto place = [&](int d) {
        const std::int64_t at =
            static_cast<std::int64_t>(d / plan.block_depth) * plan.chunks.tiles + row;
        return plan.data + at * kRowStride + d % plan.block_depth;
    };
    transform_source(source, TilePosition(plan.grid, tile), plan.data_stride, place);
}

// All steps after the filters; write(plan, position, row) transforms back and writes one tile.
template <typename Write>
void run(const Plan& plan, const TileSource& source, const Write& write) {
    std::fill(plan.zeros, plan.zeros + plan.padded_channels, 0.0f);
    const auto write_tile = [&](const Plan& plan, int tile, int row) {
        write(plan, TilePosition(plan.grid, tile), row);
    };
    const Chunks& chunks = plan.chunks;
    const int panels = ceil_div(plan.columns, kPanel);
    if (!plan.own_chunks) {
#pragma omp parallel for num_threads(threads())
        for (int frequency = 0; frequency < kFrequencies; ++frequency)
            clear_others(plan, frequency);
        for_chunks(
            chunks, panels, [&](int tile, int row) { transform(plan, source, tile, row); },
            [&](int frequency, int, int tiles, int panel0, int panel1) {
                multiply(plan, frequency, tiles, panel0, panel1);
            },
            [&](int tile, int row) { write_tile(plan, tile, row); });
        return;
    }
    Tasks tasks(chunks.count);
#pragma omp parallel num_threads(threads())
    {
        const Plan mine = plan.of_thread(thread_index());
        for (int frequency = 0; frequency < kFrequencies; ++frequency)
            clear_others(mine, frequency);
        tasks.run([&](std::int64_t chunk) {
            const int first = static_cast<int>(chunk) * chunks.tiles;
            const int rows = std::min(chunks.tiles, chunks.all_tiles - first);
            for (int row = 0; row < rows; ++row)
                transform(mine, source, first + row, row);
            for (int frequency = 0; frequency < kFrequencies; ++frequency)
                multiply(mine, frequency, rows, 0, panels);
            for (int row = 0; row < rows; ++row)
                write_tile(mine, first + row, row);
        });
    }
}

// The largest |element|, NaN before infinity: without their signs, floats are ordered as their bits are.
float largest_magnitude(const float* p, std::int64_t count) {
    using simd::IntVec;
    constexpr int kSums = 4;
    IntVec largest[kSums] = {};
    const auto take = [&](int j, Vec v) {
        const IntVec bits = reinterpret_cast<IntVec>(v) & 0x7fffffff;
        largest[j] = bits > largest[j] ? bits : largest[j];
    };
    std::int64_t i = 0;
    for (; i + kSums * kLanes <= count; i += kSums * kLanes)
        for (int j = 0; j < kSums; ++j)
            take(j, simd::load(p + i + j * kLanes));
    for (; i < count; i += kLanes)
        take(0, load_up_to(p + i, static_cast<int>(std::min<std::int64_t>(count - i, kLanes))));
    std::int32_t all = 0;
    for (const IntVec& of_lanes : largest)
        for (int lane = 0; lane < kLanes; ++lane)
            all = std::max(all, of_lanes[lane]);
    float result;
    std::memcpy(&result, &all, sizeof(result));
    return result;
}

// Whether the largest elements of the images, of `floats` each, are of like size: then an image that
// shares tiles has errors of 1e-5 of its own results at most.
bool are_alike(const float* images, int count, std::int64_t floats) {
    constexpr float kMostRatio = 32;
    constexpr std::int64_t kPart = 64 * 1024;
    const int parts = ceil_div(floats, kPart);
    std::vector<float> of_parts(std::int64_t{count} * parts);
#pragma omp parallel for num_threads(threads()) if (worth_threads(count * floats))
    for (std::int64_t i = 0; i < std::int64_t{count} * parts; ++i) {
        const std::int64_t begin = i % parts * kPart, end = std::min(floats, begin + kPart);
        of_parts[i] = largest_magnitude(images + i / parts * floats + begin, end - begin);
    }
    float least = std::numeric_limits<float>::infinity(), most = 0;
    for (std::int64_t i = 0; i < std::int64_t{count} * parts; i += parts) {
        float of_image = 0;
        for (int part = 0; part < parts; ++part) {
            if (!std::isfinite(of_parts[i + part])) return false;
            of_image = std::max(of_image, of_parts[i + part]);
        }
        least = std::min(least, of_image);
        most = std::max(most, of_image);
    }
    return most <= kMostRatio * least;
}

// ---- Fprop --------------------------------------------------------------------------------------

Plan fprop_plan(const ConvShape& s, int images, float* workspace, bool apart = false) {
    return Plan(s, source_grid(s, images, apart), s.c, s.stride_h * s.stride_w, s.k, 1, workspace);
}

std::int64_t fprop_workspace(const ConvShape& s, const PoolShape*) {
    return std::max(fprop_plan(s, s.n, nullptr).floats(),
                    fprop_plan(s, s.n, nullptr, true).floats());
}

void pack_fprop(const Call& call) {
    const Plan plan = fprop_plan(call.shape, call.shape.n, call.workspace);
    transform_filters(call.shape, call.w, plan.padded_channels, plan.filters,
                      [&](int phase) { return place_of(phase, call.shape.stride_w); });
}

template <int M>
void write_outputs(const Call& call, const Plan& plan, const TilePosition& position, int row) {
    const Epilogue epilogue{false, call.scale, call.bias, call.relu, false, call.add, call.out};
    float* to[M][M];
    output_pixels<M, float>(call.shape, position, call.out, call.out_pitch, nullptr, to);
    for (int k = 0; k < call.shape.k; k += kLanes) {
        const int count = call.shape.k - k;
        Vec y[M][M];
        transform_products<M>(plan.product(row, k), plan.product_stride, count, y);
        const MapTerms terms(epilogue, k, count);
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) {
                if (!to[i][j]) continue;
                write_result(y[i][j], terms, epilogue, count, to[i][j] + k);
            }
    }
}

void fprop(const Call& call) {
    const ConvShape& s = call.shape;
    Plan plan = fprop_plan(s, call.images, call.workspace);
    if (!plan.grid.apart && !are_alike(call.x, call.images, std::int64_t{s.h} * s.w * s.c))
        plan = fprop_plan(s, call.images, call.workspace, true);
    with_taps(s, [&](auto taps) {
        run(plan, {call.x, s.c, s.stride_h, s.stride_w, plan.zeros},
            [&](const Plan& plan, const TilePosition& position, int row) {
                write_outputs<tile_size(taps)>(call, plan, position, row);
            });
    });
}

// ---- Dgrad --------------------------------------------------------------------------------------

// Its outputs along an axis: u from pad / stride on, pixel stride * u + phase - pad.
int first_output(int stride, int pad) {
    return pad / stride;
}

Axis dgrad_axis(int size, int outputs, int stride, int pad, int taps) {
    const int first = first_output(stride, pad);
    return {(size - 1 + pad) / stride - first + 1, outputs, 1, first - (taps - 1), taps};
}

Plan dgrad_plan(const ConvShape& s, int images, float* workspace, bool apart = false) {
    const Grid grid(dgrad_axis(s.h, s.p(), s.stride_h, s.pad_top, phase_taps(s)),
                    dgrad_axis(s.w, s.q(), s.stride_w, s.pad_left, phase_taps(s)), images, apart);
    const int phases = s.stride_h * s.stride_w;
    return Plan(s, grid, s.k, 1, phases * round_up(s.c, kLanes), phases, workspace);
}

std::int64_t dgrad_workspace(const ConvShape& s, const PoolShape*) {
    return std::max(dgrad_plan(s, s.n, nullptr).floats(),
                    dgrad_plan(s, s.n, nullptr, true).floats());
}

// Vectors over c, which are contiguous; flipped; depth k, columns (place of the phase, c).
template <int T>
void transform_flipped(const ConvShape& s, const Plan& plan, const float* w) {
    const int phases = s.stride_h * s.stride_w, padded = round_up(s.c, kLanes);
#pragma omp parallel for collapse(2) num_threads(threads())
    for (int phase = 0; phase < phases; ++phase)
        for (int c = 0; c < padded; c += kLanes)
            for (int k = 0; k < plan.depth; ++k) {
                Vec g[T][T], v[kPoints][kPoints];
                for (int t = 0; t < T; ++t)
                    for (int u = 0; u < T; ++u) {
                        const Tap tap(s, phase, T - 1 - t, T - 1 - u);
                        const bool exists = k < s.k && tap.exists(s);
                        const std::int64_t at = tap.offset(s, k, c);
                        g[t][u] = exists ? load_up_to(w + at, s.c - c) : Vec{};
                    }
                transform_2d<T, kPoints, evaluate<T, true>>(g, v);
                store_frequencies(v, plan.filters.at(k, place_of(phase, s.stride_w) * padded + c),
                                  plan.filters.frequency_stride);
            }
}

void pack_dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan = dgrad_plan(s, s.n, call.workspace);
    with_taps(s, [&](auto taps) { transform_flipped<taps>(s, plan, call.w); });
}

template <int M>
void write_phases(const ConvShape& s, const Plan& plan, const TilePosition& position, int row,
                  float* x) {
    const int first_h = first_output(s.stride_h, s.pad_top),
              first_w = first_output(s.stride_w, s.pad_left);
    for (int phase = 0; phase < s.stride_h * s.stride_w; ++phase) {
        const int first = place_of(phase, s.stride_w) * round_up(s.c, kLanes);
        float* to[M][M];
        const auto along = [](const Axis& axis, int size, int first, int stride, int pad) {
            return [=, &axis](int u) {
                const int place = (u + first) * stride - pad;
                return u < axis.outputs && place < size ? place : -1;
            };
        };
        position.pixels<M, float>(
            x, s.h, s.w, s.c, nullptr,
            along(plan.grid.h, s.h, first_h, s.stride_h, s.pad_top - phase / s.stride_w),
            along(plan.grid.w, s.w, first_w, s.stride_w, s.pad_left - phase % s.stride_w), to);
        for (int c = 0; c < s.c; c += kLanes) {
            Vec out[M][M];
            transform_products<M>(plan.product(row, first + c), plan.product_stride, kLanes, out);
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j)
                    if (to[i][j]) store_up_to(to[i][j] + c, out[i][j], s.c - c);
        }
    }
}

void dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    Plan plan = dgrad_plan(s, call.images, call.workspace);
    if (!plan.grid.apart && !are_alike(call.y, call.images, std::int64_t{s.p()} * s.q() * s.k))
        plan = dgrad_plan(s, call.images, call.workspace, true);
    with_taps(s, [&](auto taps) {
        run(plan, {call.y, s.k, 1, 1, plan.zeros},
            [&](const Plan& plan, const TilePosition& position, int row) {
                write_phases<tile_size(taps)>(s, plan, position, row, call.out);
            });
    });
}

}  // namespace

bool winograd::batch_applies(const ConvShape& s) {
    return has_transforms(s) && s.stride_h <= 2 && s.stride_w <= 2 && s.c >= 8 && s.k >= 8 &&
           source_grid(s, s.n).tiles() >= 24;
}

namespace {

// By how much the direct product has to cost more: filters and tiles in the caches take a larger
// part of the time of wide products.
#if defined(__AVX512F__)
constexpr double kLeastGain = 1.25;
#else
constexpr double kLeastGain = 1.15;
#endif

// Whether the direct product's multiply-adds, in vectors of columns, are more than products and
// transforms of all tiles take. A transform waits for the caches, so that it costs what a few
// hundred multiply-adds do, of vectors of any width; more where threads share a chunk, which lies in
// the last-level cache. There lie the filters, too, that a thread reads for each chunk of its own,
// unless its second-level cache holds them. Those that leave the caches are transformed at the pace of
// memory. (Measured on Zen 5, AVX-512 and AVX2; the last on Zen 3.)
bool pays(const ConvShape& s, const Plan& plan, int column_vectors, double direct) {
    constexpr double kTransform = 500, kSharedTransform = 2500, kBackOutput = 27, kFilterLine = 2;
    constexpr double kFarFilter = 1500;
    const int size = tile_size(phase_taps(s));
    double tile = kFrequencies * needed_part(s) * plan.depth * column_vectors +
                  kBackOutput * size * size * column_vectors +
                  (plan.own_chunks ? kTransform : kSharedTransform) * (plan.depth / kLanes);
    const std::int64_t filters = kFrequencies * panels_size(plan.depth, plan.columns);
    if (plan.own_chunks && filters * 4 > kSecondCacheBytes)
        tile += kFilterLine * filters / kLineFloats / plan.chunks.tiles;
    double all = tile * plan.grid.tiles();
    if (leaves_caches(filters)) all += kFarFilter * plan.depth * column_vectors;
    return direct > kLeastGain * all;
}

bool fprop_applies(const ConvShape& s) {
    if (!winograd::batch_applies(s)) return false;
    const int vectors = ceil_div(s.k, kLanes);
    return pays(s, fprop_plan(s, s.n, nullptr), vectors,
                made_part(windows(s, s.n, nullptr, 0), s.k) * s.n * s.p() * s.q() * s.r * s.s *
                    s.c * vectors);
}

bool dgrad_applies(const ConvShape& s) {
    return winograd::batch_applies(s) &&
           pays(s, dgrad_plan(s, s.n, nullptr), s.stride_h * s.stride_w * ceil_div(s.c, kLanes),
                direct_dgrad_cost(s));
}

}  // namespace

const Method winograd_fprop{"winograd",      Direction::kFprop, Fusion::kImages, fprop_applies,
                            fprop_workspace, pack_fprop,        fprop,           nullptr};
const Method winograd_dgrad{"winograd",      Direction::kDgrad, Fusion::kImages, dgrad_applies,
                            dgrad_workspace, pack_dgrad,        dgrad,           nullptr};

}  // namespace zfcuda::conv
