// Convolutions whose filter covers the whole image, which are fully connected layers, and those of
// 1 x 1 filters with few pixels.
//
//   y (n, k) = x (n, d) w^T + b,   x = y w,   dw = y^T x,   w (k, d), d = r * s * c
//
// The batch is small and w is large: each product reads (or writes) w once and does 2 n operations
// for each of its elements, near the point where memory and multiply-adds take the same time. So w
// is never packed as a whole. A BLAS is no better at these shapes, and its threads wait in a loop
// for more work while those of OpenMP need the cores: between the operations of a network that
// costs more than the products.
#include <algorithm>
#include <array>
#include <utility>

#include "../gemm.h"
#include "../lanes.h"
#include "../parallel.h"
#include "../streams.h"
#include "methods.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;
using simd::kLanes;
using simd::Vec;

// Of x and of y.
int rows_of(const ConvShape& shape) {
    return shape.n * shape.p() * shape.q();
}

std::int64_t depth_of(const ConvShape& shape) {
    return static_cast<std::int64_t>(shape.r) * shape.s * shape.c;
}

// A float of w that is read once takes as long as this many multiply-adds.
constexpr int kRowsPerRead = 16;

bool pays(const ConvShape& shape) {
    return worth_threads(depth_of(shape) * shape.k * std::max(1, rows_of(shape) / kRowsPerRead));
}

// ---- Forward: rows of w and of x are read along the depth, a vector of partial sums for each pair

#if defined(__AVX512F__)
constexpr int kRows = 6, kColumns = 4;  // of x and of w; 24 sums and 5 operands in 32 registers
#else
constexpr int kRows = 4, kColumns = 3;
#endif

// sums[i][j] = the product of row i of x and row j of w over `count` elements.
template <int Rows, int Columns>
void dot_tile(const float* x, std::int64_t x_distance, const float* w, std::int64_t w_distance,
              int count, float (&sums)[kRows][kColumns]) {
    Vec acc[Rows][Columns] = {};
    const auto step = [&](auto load) {
        Vec wj[Columns];
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j)
            wj[j] = load(w + j * w_distance);
#pragma GCC unroll 6
        for (int i = 0; i < Rows; ++i) {
            const Vec xi = load(x + i * x_distance);
#pragma GCC unroll 4
            for (int j = 0; j < Columns; ++j)
                acc[i][j] += xi * wj[j];
        }
    };
    for (; count >= kLanes; count -= kLanes, x += kLanes, w += kLanes)
        step([](const float* p) { return simd::load(p); });
    if (count) step([count](const float* p) { return simd::load_partial(p, count); });
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i)
        simd::sums(acc[i], sums[i]);
}

using DotTile = void (*)(const float*, std::int64_t, const float*, std::int64_t, int,
                         float (&)[kRows][kColumns]);

template <int Rows, int... J>
constexpr std::array<DotTile, kColumns> dot_tiles_of(std::integer_sequence<int, J...>) {
    return {dot_tile<Rows, J + 1>...};
}

template <int... I>
constexpr std::array<std::array<DotTile, kColumns>, kRows> dot_tiles(
    std::integer_sequence<int, I...>) {
    return {dot_tiles_of<I + 1>(std::make_integer_sequence<int, kColumns>())...};
}

constexpr auto kDotTiles = dot_tiles(std::make_integer_sequence<int, kRows>());  // [rows][columns]

// Pixels of a batch, 7 x 7 of one image, beside which packing w takes longer than what it saves
// (twice as long as the products of 1,024 channels and filters, Zen 5).
constexpr int kFewPixels = 64;

// Whether w is packed after all, for the register-blocked product, in multiply-adds of vectors for a
// column: dots add up their lanes, and their tiles are smaller. (Fitted to 140 layers, Zen 5, AVX-512
// and AVX2.)
bool is_better_packed(const ConvShape& shape) {
    constexpr double kDot = 1.35, kAddLanes = 13, kPack = 1.4, kPackFar = 3;
    const double depth = static_cast<double>(depth_of(shape)), rows = rows_of(shape);
    const bool far = depth * shape.k * 4 * 2 > kFarBytes;  // with what is packed
    return rows * ((kDot - 1) * depth / kLanes + kAddLanes) > (far ? kPackFar : kPack) * depth;
}

// As much of the depth at a time as leaves x in the second-level cache.
int forward_chunk(const ConvShape& shape) {
    return std::max(kDenseMinDepth, kDenseFloats / rows_of(shape) / kLanes * kLanes);
}

// ---- Both gradients: tiles of the register-blocked product --------------------------------------

// The first `columns` of `count` rows as panels, row by row, as they lie in memory.
void pack_panels(const float* from, std::int64_t distance, int count, int columns, float* panels) {
    for (int row = 0; row < count; ++row, from += distance, panels += kPanel)
        for (int c = 0; c < columns; c += kPanel)
            pack_panel(from + c, distance, 1, columns - c, panels + c * count);
}

// Depth blocks of the transposed product.
int depth_blocks(const ConvShape& shape) {
    return ceil_div(shape.k, kMaxDepth);
}

std::int64_t rows_floats(const ConvShape& shape) {
    return static_cast<std::int64_t>(rows_of(shape)) * depth_blocks(shape) * kRowStride;
}

// Columns of x that one thread packs for the weight gradient: they stay in the second-level cache.
int gradient_columns(const ConvShape& shape) {
    const int fit = std::max(1, kDenseGradFloats / (rows_of(shape) * kPanel)) * kPanel;
    return static_cast<int>(
        std::min<std::int64_t>(fit, ceil_div(depth_of(shape), kPanel) * kPanel));
}

std::int64_t gradient_floats(const ConvShape& shape) {
    return odd_lines(static_cast<std::int64_t>(rows_of(shape)) *
                         (gradient_columns(shape) + kTileRows) +
                     kLanes + kTileRows * kDenseGradRun);
}

bool applies(const ConvShape& shape) {
    return shape.groups == 1 && shape.h == shape.r && shape.w == shape.s && shape.p() == 1 &&
           shape.q() == 1 && shape.pad_top == 0 && shape.pad_left == 0;
}

// Also pixels that 1 x 1 filters see one by one, where they are few beside the filters: the other
// methods pack w as a whole.
bool applies_to_pixels(const ConvShape& shape) {
    // As many with a stride and padding behind are others.
    const auto one_by_one = [](int size, int outputs, int stride) {
        return size == outputs && (stride == 1 || size == 1);
    };
    const bool pixels = shape.groups == 1 && shape.r == 1 && shape.s == 1 &&
                        one_by_one(shape.h, shape.p(), shape.stride_h) &&
                        one_by_one(shape.w, shape.q(), shape.stride_w) && shape.pad_top == 0 &&
                        shape.pad_left == 0;
    return applies(shape) || (pixels && std::int64_t{shape.n} * shape.h * shape.w <= kFewPixels);
}

bool fprop_applies(const ConvShape& shape) {
    return applies_to_pixels(shape) && !is_better_packed(shape);
}

std::int64_t fprop_workspace(const ConvShape& shape, const PoolShape*) {
    return rows_of(shape) * odd_lines(forward_chunk(shape));
}

void fprop(const Call& call) {
    const ConvShape& shape = call.shape;
    const std::int64_t depth = depth_of(shape);
    const int chunk = forward_chunk(shape);
    const int tiles = ceil_div(rows_of(shape), kRows), groups = ceil_div(shape.k, kColumns);
    // A chunk of x with its rows apart: where the depth is a multiple of a page, rows in place
    // would all want the same set of the first-level cache.
    float* packed_x = call.workspace;
    const std::int64_t distance = odd_lines(chunk);
#pragma omp parallel num_threads(threads()) if (pays(shape))
    for (std::int64_t d = 0; d < depth; d += chunk) {
        const int count = static_cast<int>(std::min<std::int64_t>(chunk, depth - d));
        const bool last = d + count == depth;
#pragma omp for schedule(static)
        for (int m = 0; m < rows_of(shape); ++m)
            simd::copy(packed_x + m * distance, call.x + m * depth + d, count);
#pragma omp for schedule(static)
        for (int group = 0; group < groups; ++group) {
            const int k0 = group * kColumns, columns = std::min(kColumns, shape.k - k0);
            for (int tile = 0; tile < tiles; ++tile) {
                const int m0 = part_begin(rows_of(shape), tiles, tile);
                const int rows = part_begin(rows_of(shape), tiles, tile + 1) - m0;
                float sums[kRows][kColumns];
                kDotTiles[rows - 1][columns - 1](packed_x + m0 * distance, distance,
                                                 call.w + k0 * depth + d, depth, count, sums);
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < columns; ++j) {
                        const std::int64_t at =
                            static_cast<std::int64_t>(m0 + i) * call.out_pitch + k0 + j;
                        float& result = call.out[at];
                        float value = d ? result + sums[i][j] : sums[i][j];
                        if (last && call.scale) value *= call.scale[k0 + j];
                        if (last && call.bias) value += call.bias[k0 + j];
                        if (last && call.add) value += call.add[at];
                        if (last && call.relu) value = value < 0 ? 0.0f : value;
                        result = value;
                    }
            }
        }
    }
}

// Of few rows, w is read once, row by row as it lies in memory, and added up in the caches: packing
// it would cost as much as the products.
bool has_few_rows(const ConvShape& shape) {
    return rows_of(shape) <= kDenseFewRows;
}

// out[m] (+)= the sum over j of y[m][j] * w[j], for n rows of `columns` floats.
template <int Count>
void add_filters(int n, const float* y, std::int64_t y_distance, const float* w,
                 std::int64_t distance, int columns, bool accumulate, float* out) {
    const auto step = [&](int c, auto load, auto store) {
        Vec wj[Count];
#pragma GCC unroll 4
        for (int j = 0; j < Count; ++j)
            wj[j] = load(w + j * distance + c);
        for (int m = 0; m < n; ++m) {
            float* to = out + m * distance + c;
            Vec sum{};
            if (accumulate) sum = load(to);
#pragma GCC unroll 4
            for (int j = 0; j < Count; ++j)
                sum += simd::broadcast(y[m * y_distance + j]) * wj[j];
            store(to, sum);
        }
    };
    int c = 0;
    for (; c + kLanes <= columns; c += kLanes)
        step(c, [](const float* p) { return simd::load(p); }, simd::store);
    if (const int rest = columns - c)
        step(
            c, [rest](const float* p) { return simd::load_partial(p, rest); },
            [rest](float* p, Vec v) { simd::store_partial(p, v, rest); });
}

void dgrad_of_few_rows(const Call& call) {
    const ConvShape& shape = call.shape;
    const std::int64_t depth = depth_of(shape);
    const int block = std::min(kDenseFewColumns, round_up(ceil_div(depth, threads()), kLanes));
#pragma omp parallel for num_threads(threads()) if (pays(shape))
    for (std::int64_t c = 0; c < depth; c += block) {
        const int columns = static_cast<int>(std::min<std::int64_t>(block, depth - c));
        const auto add = [&](auto count, int k) {
            add_filters<count>(rows_of(shape), call.y + k, shape.k, call.w + k * depth + c, depth,
                               columns, k > 0, call.out + c);
        };
        int k = 0;
        for (; k + 4 <= shape.k; k += 4)
            add(std::integral_constant<int, 4>{}, k);
        for (; k < shape.k; ++k)
            add(std::integral_constant<int, 1>{}, k);
    }
}

std::int64_t dgrad_workspace(const ConvShape& shape, const PoolShape*) {
    if (has_few_rows(shape)) return 0;
    return rows_floats(shape) + kMaxDepth * kDenseColumns * max_threads();
}

void dgrad(const Call& call) {
    const ConvShape& shape = call.shape;
    if (has_few_rows(shape)) return dgrad_of_few_rows(call);
    const std::int64_t depth = depth_of(shape);
    const int blocks = depth_blocks(shape);
    float* packed_y = call.workspace;
    float* scratch = packed_y + rows_floats(shape);
    // Panels of w in parts as even as can be, as many as a multiple of the threads.
    const int panel_count = ceil_div(depth, kPanel);
    const int parts =
        std::min(panel_count, ceil_div(ceil_div(depth, kDenseColumns), threads()) * threads());
#pragma omp parallel num_threads(threads()) if (pays(shape))
    {
#pragma omp for
        for (int m = 0; m < rows_of(shape); ++m)
            for (int block = 0; block < blocks; ++block) {
                const int k0 = block * kMaxDepth;
                simd::copy(
                    packed_y + (static_cast<std::int64_t>(block) * rows_of(shape) + m) * kRowStride,
                    call.y + static_cast<std::int64_t>(m) * shape.k + k0,
                    std::min(kMaxDepth, shape.k - k0));
            }
        float* panels = scratch + thread_index() * (kMaxDepth * kDenseColumns);
#pragma omp for
        for (int part = 0; part < parts; ++part) {
            const auto first_column = [&](int part) {
                return std::min(part_begin(panel_count, parts, part) * kPanel, depth);
            };
            const std::int64_t c = first_column(part);
            const int columns = static_cast<int>(first_column(part + 1) - c);
            for (int block = 0; block < blocks; ++block) {
                const int k0 = block * kMaxDepth, count = std::min(kMaxDepth, shape.k - k0);
                pack_panels(call.w + k0 * depth + c, depth, count, columns, panels);
                // The next block of a large w, short runs of memory, comes during the products.
                const bool last = block == blocks - 1;
                const int next_k0 = last ? 0 : k0 + kMaxDepth, next = last ? part + 1 : part;
                FetchRows fetch;
                if (next < parts && depth * shape.k * 4 > kFarBytes)
                    fetch.add(call.w + next_k0 * depth + first_column(next),
                              std::min(kMaxDepth, shape.k - next_k0), depth,
                              first_column(next + 1) - first_column(next));
                fetch.spread(std::int64_t{ceil_div(columns, kPanel)} *
                             ceil_div(rows_of(shape), kTileRows) * count);
                Epilogue epilogue;
                epilogue.accumulate = block > 0;
                Operands operands{
                    packed_y + static_cast<std::int64_t>(block) * rows_of(shape) * kRowStride,
                    kRowStride, panels, count};
                operands.fetch = &fetch;
                for (int panel = 0; panel * kPanel < columns; ++panel) {
                    gemm::multiply(rows_of(shape), operands, call.out + c + panel * kPanel, depth,
                                   columns - panel * kPanel, epilogue);
                    operands.b += count * kPanel;
                }
            }
        }
    }
}

std::int64_t wgrad_workspace(const ConvShape& shape, const PoolShape*) {
    return gradient_floats(shape) * max_threads();
}

void wgrad(const Call& call) {
    const ConvShape& shape = call.shape;
    const std::int64_t depth = depth_of(shape);
    const int n = rows_of(shape), tiles = ceil_div(shape.k, kTileRows);
    const int block_columns = gradient_columns(shape);
    const bool stream = streams(depth * shape.k, static_cast<int>(depth), call.out);
#pragma omp parallel num_threads(threads()) if (pays(shape))
    {
        float* runs = call.workspace + thread_index() * gradient_floats(shape);
        float* panels = runs + kTileRows * kDenseGradRun;
        float* packed_dy = panels + static_cast<std::int64_t>(n) * block_columns;
        for (std::int64_t c = 0; c < depth; c += block_columns) {
            const int columns = static_cast<int>(std::min<std::int64_t>(block_columns, depth - c));
            pack_panels(call.x + c, depth, n, columns, panels);
#pragma omp for schedule(static) nowait
            for (int tile = 0; tile < tiles; ++tile) {
                const int k0 = part_begin(shape.k, tiles, tile);
                const int count = part_begin(shape.k, tiles, tile + 1) - k0;
                for (int m = 0; m < n; ++m)
                    simd::copy_spilling(packed_dy + m * kTileRows,
                                        call.y + static_cast<std::int64_t>(m) * shape.k + k0,
                                        count);
                for (int d0 = 0; d0 < columns; d0 += kDenseGradRun) {
                    const int run = std::min(kDenseGradRun, columns - d0);
                    float* const dw = call.out + k0 * depth + c + d0;
                    for (int d = 0; d < run; d += kPanel)
                        gemm::multiply(count, {packed_dy, 1, panels + (d0 + d) * n, n, kTileRows},
                                       (stream ? runs : dw) + d, stream ? kDenseGradRun : depth,
                                       run - d, {});
                    for (int i = 0; stream && i < count; ++i)
                        copy_past_caches(runs + i * kDenseGradRun, run, dw + i * depth);
                }
            }
        }
        simd::stream_fence();
    }
}

}  // namespace

const Method dense_fprop{"dense",         Direction::kFprop, Fusion::kNone, fprop_applies,
                         fprop_workspace, nullptr,           fprop,         nullptr};
const Method dense_dgrad{"dense",         Direction::kDgrad, Fusion::kNone, applies_to_pixels,
                         dgrad_workspace, nullptr,           dgrad,         nullptr};
const Method dense_wgrad{"dense",         Direction::kWgrad, Fusion::kNone, applies,
                         wgrad_workspace, nullptr,           wgrad,         nullptr};

}  // namespace zfcuda::conv
