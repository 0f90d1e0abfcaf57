// Forward convolution of a first layer by Winograd's method (winograd/lines.h).
#include "lines.h"

#include <algorithm>

#include "../../gemm.h"
#include "source.h"
#include "transform.h"

namespace zfcuda::first_layer_winograd {
namespace {

using namespace gemm;
using simd::kLanes;
using simd::Vec;
using winograd::kFrequencies;
using winograd::kPoints;
using winograd::load_up_to;
using winograd::phase_taps;
using winograd::store_up_to;
using winograd::tile_size;
using winograd::with_taps;

// Sizes, in floats but for counts.
struct Plan {
    int depth, padded_depth;  // phases x channels of a place
    int size;                 // outputs of a tile's axis
    int across;               // tiles of a line
    int panels;
    int per_row, row_groups;  // frequencies side by side in a row of the product, and such rows
    std::int64_t line_stride, group_stride, product_stride;
    std::int64_t data_at[kFrequencies];  // a tile's place in its row, at each frequency

    explicit Plan(const ConvShape& s)
        : depth(s.stride_h * s.stride_w * s.c),
          padded_depth(round_up(depth, kLanes)),
          size(tile_size(phase_taps(s))),
          across(ceil_div(s.q(), size)),
          panels(ceil_div(s.k, kPanel)),
          per_row(kRowStride / padded_depth),
          row_groups(ceil_div(kFrequencies, std::max(1, per_row))),
          line_stride(
              odd_lines(static_cast<std::int64_t>((across - 1) * size + kPoints) * padded_depth)),
          group_stride(kTileRows * kRowStride),
          product_stride(odd_lines(kTileRows * kPanel)) {
        for (int i = 0; i < kFrequencies; ++i)
            data_at[i] = per_row == 0 ? 0 : i / per_row * group_stride + i % per_row * padded_depth;
    }

    std::int64_t pixel_floats() const { return kPoints * line_stride + kLanes; }
    std::int64_t data_floats() const { return row_groups * group_stride; }
    std::int64_t product_floats() const { return kFrequencies * product_stride; }

    // The filters of a panel at one frequency.
    std::int64_t filters_at(int panel, int frequency) const {
        return static_cast<std::int64_t>(panel * kFrequencies + frequency) * depth * kPanel;
    }
};

// The pixels that tiles from line p0 on read: `out` (6, places, padded_depth) with (phase of the
// height, phase of the width, channel) in the depth, of which the padding stays undefined.
void gather_phases(const ConvShape& s, const Plan& plan, const float* x, int n, int p0,
                   float* out) {
    const int run = s.stride_w * s.c, width = s.w * s.c;
    const int places = (plan.across - 1) * plan.size + kPoints;
    for (int i = 0; i < kPoints; ++i, out += plan.line_stride)
        for (int place = 0; place < places; ++place)
            for (int phase = 0; phase < s.stride_h; ++phase) {
                // What a run spills is written over by the next one.
                float* to =
                    out + static_cast<std::int64_t>(place) * plan.padded_depth + phase * run;
                const int h = (p0 + i) * s.stride_h + phase - s.pad_h;
                const int first = place * run - s.pad_w * s.c;
                if (h < 0 || h >= s.h) {
                    simd::clear_spilling(to, run);
                    continue;
                }
                const float* line = x + (static_cast<std::int64_t>(n) * s.h + h) * width;
                if (first >= 0 && first + run <= width) {
                    simd::copy_spilling(to, line + first, run);
                } else {
                    for (int e = 0; e < run; ++e)
                        to[e] = first + e >= 0 && first + e < width ? line[first + e] : 0.0f;
                }
            }
}

void transform_tile(const Plan& plan, const float* pixels, int tile, int row, float* data) {
    for (int d = 0; d < plan.padded_depth; d += kLanes) {
        Vec x[6][6], v[6][6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
            for (int j = 0; j < 6; ++j)
                x[i][j] = simd::load(pixels + i * plan.line_stride +
                                     (tile * plan.size + j) * plan.padded_depth + d);
        winograd::transform_2d<6, 6, winograd::transform_data>(x, v);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
            for (int j = 0; j < 6; ++j)
                simd::store(data + plan.data_at[i * 6 + j] + row * kRowStride + d, v[i][j]);
    }
}

// Where the results of one panel go.
struct Target {
    int p0, p1;  // lines, of which y begins with the first
    int column;  // the panel's first
    const float* bias;
    bool relu, stream;
    float* y;
};

// The outputs of tile `tile` from row `row` of the products.
template <int M>
void write_tile(const ConvShape& s, const Plan& plan, const float* products, int row, int tile,
                const Target& target) {
    for (int j = 0; j < kPanel && target.column + j < s.k; j += kLanes) {
        const int k = target.column + j, count = s.k - k;
        Vec m[6][6], out[M][M];
        const float* from = products + row * kPanel + j;
#pragma GCC unroll 6
        for (int a = 0; a < 6; ++a)
#pragma GCC unroll 6
            for (int c = 0; c < 6; ++c)
                m[a][c] = simd::load(from + (a * 6 + c) * plan.product_stride);
        winograd::transform_2d<6, M, winograd::interpolate<M, false>>(m, out);
        const Vec bias = target.bias ? load_up_to(target.bias + k, count) : Vec{};
        for (int a = 0; a < std::min(M, target.p1 - target.p0); ++a)
            for (int c = 0; c < std::min(M, s.q() - tile * M); ++c) {
                float* to = target.y + (static_cast<std::int64_t>(a) * s.q() + tile * M + c) * s.k;
                Vec v = out[a][c] + bias;
                if (target.relu) v = simd::relu(v);
                if (target.stream)
                    simd::stream(to + k, v);
                else
                    store_up_to(to + k, v, count);
            }
    }
}

// Up to M lines.
template <int M>
void conv2d_tiles(const ConvShape& s, const Plan& plan, const float* pixels, const float* packed,
                  Target target, float* data, float* products) {
    const int groups = ceil_div(plan.across, kTileRows);
    float* rows[kTileRows];
    for (int i = 0; i < kTileRows; ++i)
        rows[i] = products + i * kPanel;
    for (int group = 0; group < groups; ++group) {
        const int first = part_begin(plan.across, groups, group);
        const int count = part_begin(plan.across, groups, group + 1) - first;
        for (int i = 0; i < count; ++i)
            transform_tile(plan, pixels, first + i, i, data);
        for (int panel = 0; panel < plan.panels; ++panel) {
            for (int frequency = 0; frequency < kFrequencies; ++frequency)
                multiply_tile(count,
                              {data + plan.data_at[frequency], kRowStride,
                               packed + plan.filters_at(panel, frequency), plan.depth},
                              rows, frequency * plan.product_stride, kPanel, {});
            target.column = panel * kPanel;
            for (int i = 0; i < count; ++i)
                write_tile<M>(s, plan, products, i, first + i, target);
        }
    }
}

}  // namespace

bool pays(const ConvShape& s) {
    const int taps = phase_taps(s);
    if ((s.s + s.stride_w - 1) / s.stride_w != taps || taps < 2 || taps > 5) return false;
    const Plan plan(s);
    if (plan.per_row < 1) return false;
    // Multiply-adds for a vector of k, and what the transforms cost in their measure.
    constexpr double kTransformBack = 140, kTransform = 300;
    const double tiles = static_cast<double>(ceil_div(s.p(), plan.size)) * plan.across;
    const double transform = kTransform * (plan.padded_depth / kLanes) / ceil_div(s.k, kLanes);
    const double direct = static_cast<double>(s.p()) * s.q() * s.r * s.s * s.c;
    return direct > 1.5 * tiles * (kFrequencies * plan.depth + kTransformBack + transform);
}

int tile_lines(const ConvShape& s) {
    return tile_size(phase_taps(s));
}

std::int64_t packed_floats(const ConvShape& s) {
    const Plan plan(s);
    return plan.filters_at(plan.panels, 0);
}

void pack_filters(const ConvShape& s, const float* w, float* packed) {
    const Plan plan(s);
    with_taps(s, [&](auto taps) {
        constexpr int T = taps;
        for (int k0 = 0; k0 < plan.panels * kPanel; k0 += kLanes)
            for (int d = 0; d < plan.depth; ++d) {
                const int c = d % s.c, phase = d / s.c;
                Vec g[T][T] = {}, v[6][6];
                for (int t = 0; t < T; ++t)
                    for (int u = 0; u < T; ++u) {
                        const int r = t * s.stride_h + phase / s.stride_w;
                        const int q = u * s.stride_w + phase % s.stride_w;
                        if (r >= s.r || q >= s.s) continue;
                        for (int k = k0; k < std::min(k0 + kLanes, s.k); ++k)
                            g[t][u][k - k0] = w[((k * s.r + r) * s.s + q) * s.c + c];
                    }
                winograd::transform_2d<T, 6, winograd::evaluate<T, true>>(g, v);
                float* to = packed + plan.filters_at(k0 / kPanel, 0) + d * kPanel + k0 % kPanel;
                winograd::store_frequencies(v, to, static_cast<std::int64_t>(plan.depth) * kPanel);
            }
    });
}

std::int64_t scratch_floats(const ConvShape& s) {
    const Plan plan(s);
    return odd_lines(plan.pixel_floats()) + plan.data_floats() + plan.product_floats();
}

void conv2d_lines(const ConvShape& s, const float* x, int n, int p0, int p1, const float* packed,
                  const float* b, bool relu, bool stream, float* y, float* scratch) {
    const Plan plan(s);
    float* data = scratch + odd_lines(plan.pixel_floats());
    float* products = data + plan.data_floats();
    const std::int64_t line = static_cast<std::int64_t>(s.q()) * s.k;
    for (int p = p0; p < p1; p += plan.size) {
        gather_phases(s, plan, x, n, p, scratch);
        const Target target{p, p1, 0, b, relu, stream, y + (p - p0) * line};
        with_taps(s, [&](auto taps) {
            conv2d_tiles<tile_size(taps)>(s, plan, scratch, packed, target, data, products);
        });
    }
}

}  // namespace zfcuda::first_layer_winograd
