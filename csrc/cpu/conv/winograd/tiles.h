// What the methods by Winograd's algorithm (transform.h) share: phases and taps, filters, the tiles
// of a batch in chunks, and how a tile gets to the frequencies and back.
//
// 36 multiplications make 16 outputs that take 144 directly, less what tiles overhang. Tiles of x
// are transformed, 36 matrix products of gemm.h do the multiplications, one for each frequency,
// and their results are transformed back. Two ways of going through the tiles differ in what stays
// in which cache: chunks of a whole batch, shared by all threads (batch.cpp, wgrad.cpp), or a few
// lines of one image by one thread (lines.cpp).
#pragma once

#include <algorithm>
#include <type_traits>

#include "../../gemm.h"
#include "../../lanes.h"
#include "../../parallel.h"
#include "../methods.h"
#include "grid.h"
#include "transform.h"

namespace zfcuda::conv::winograd {

using namespace gemm;
using simd::kLanes;
using simd::load_up_to;
using simd::store_up_to;

// ---- Phases and taps ----------------------------------------------------------------------------

// Taps of an axis of one phase: those of the height, which has_transforms() requires of the width.
inline int phase_taps(const ConvShape& s) {
    return ceil_div(s.r, s.stride_h);
}

inline bool has_transforms(const ConvShape& s) {
    const int taps = phase_taps(s);
    return s.is_dense() && taps >= 2 && taps <= 5 && ceil_div(s.s, s.stride_w) == taps;
}

// body(std::integral_constant of the taps): the one place where their number becomes a constant.
template <typename Body>
inline void with_taps(const ConvShape& s, const Body& body) {
    switch (phase_taps(s)) {
        case 2:
            return body(std::integral_constant<int, 2>{});
        case 3:
            return body(std::integral_constant<int, 3>{});
        case 4:
            return body(std::integral_constant<int, 4>{});
        default:
            return body(std::integral_constant<int, 5>{});
    }
}

// The tap (t, u) of a phase in the filters (k, r, s, c).
struct Tap {
    int r, s;

    Tap(const ConvShape& shape, int phase, int t, int u)
        : r(t * shape.stride_h + phase / shape.stride_w),
          s(u * shape.stride_w + phase % shape.stride_w) {}

    bool exists(const ConvShape& shape) const { return r < shape.r && s < shape.s; }
    std::int64_t offset(const ConvShape& shape, int k, int c) const {
        return ((static_cast<std::int64_t>(k) * shape.r + r) * shape.s + s) * shape.c + c;
    }
};

// Whether tiles of a batch can compute it, and enough of them share the transformed filters.
bool batch_applies(const ConvShape& shape);

// ---- Phases of a batch --------------------------------------------------------------------------
//
// Of a stride of two and an odd filter, the second phase of an axis lacks the last tap. That makes its
// filter zero at infinity, the last point, and a flipped one, which lacks the first tap, at zero, the
// first point: a frequency of that point needs only the first phase. Of 3 x 3 taps at stride 2 that
// leaves 121 products of 144.

// The place of a phase in depth or columns, and the phase of a place. Those of the first row lie from
// right to left: then the ones that a frequency needs lie side by side.
inline int place_of(int phase, int stride_w) {
    return phase < stride_w ? stride_w - 1 - phase : phase;
}

// Whether the second phase of an axis lacks the last tap.
inline bool lacks_tap(int taps, int stride) {
    return taps % stride != 0;
}

struct Range {
    int begin, end;
};

// The places whose filters, flipped or not, are not all zero at a frequency.
inline Range needed_places(const ConvShape& s, int frequency, bool flipped = false) {
    const int point = flipped ? 0 : kPoints - 1;
    const bool one_row = frequency / kPoints == point && lacks_tap(s.r, s.stride_h);
    const bool one_column = frequency % kPoints == point && lacks_tap(s.s, s.stride_w);
    const int rows = one_row ? 1 : s.stride_h;
    // In the first row the first column comes last, in the second first.
    return one_column ? Range{s.stride_w - 1, s.stride_w + rows - 1} : Range{0, rows * s.stride_w};
}

// The part of all products that are needed.
inline double needed_part(const ConvShape& s) {
    int places = 0;
    for (int frequency = 0; frequency < kFrequencies; ++frequency) {
        const Range needed = needed_places(s, frequency);
        places += needed.end - needed.begin;
    }
    return static_cast<double>(places) / (kFrequencies * s.stride_h * s.stride_w);
}

// ---- Vectors of all frequencies -----------------------------------------------------------------

inline void load_frequencies(const float* from, std::int64_t stride, int count,
                             Vec (&v)[kPoints][kPoints]) {
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i)
#pragma GCC unroll 6
        for (int j = 0; j < kPoints; ++j)
            v[i][j] = load_up_to(from + (i * kPoints + j) * stride, count);
}

inline void store_frequencies(const Vec (&v)[kPoints][kPoints], float* to, std::int64_t stride) {
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i)
#pragma GCC unroll 6
        for (int j = 0; j < kPoints; ++j)
            simd::store(to + (i * kPoints + j) * stride, v[i][j]);
}

// ---- Filters ------------------------------------------------------------------------------------

// Transformed filters, as panels for the product of each frequency.
struct Filters {
    float* first;
    int depth;
    std::int64_t panel_stride, frequency_stride;

    // The vector of columns from `column` on at one depth.
    float* at(int d, int column) const {
        return first + column / kPanel * panel_stride + d * kPanel + column % kPanel;
    }
};

// Those of fprop: columns k, depth (place(phase), channel) with places `pitch` apart, zero in between.
template <typename Place>
inline void transform_filters(const ConvShape& s, const float* w, int pitch, const Filters& filters,
                              const Place& place) {
    with_taps(s, [&](auto taps) {
        constexpr int T = taps;
#pragma omp parallel for collapse(2) num_threads(threads())
        for (int phase = 0; phase < s.stride_h * s.stride_w; ++phase)
            for (int k0 = 0; k0 < s.k; k0 += kLanes)
                for (int c0 = 0; c0 < pitch; c0 += kLanes) {
                    // Turned so that k is fastest.
                    alignas(64) float turned[kLanes][T][T][kLanes] = {};
                    const int k_count = std::min(kLanes, s.k - k0);
                    const int c_count = std::min(kLanes, s.c - c0);
                    for (int t = 0; t < T; ++t)
                        for (int u = 0; u < T; ++u) {
                            const Tap tap(s, phase, t, u);
                            for (int k = 0; k < (tap.exists(s) ? k_count : 0); ++k) {
                                const float* from = w + tap.offset(s, k0 + k, c0);
                                for (int c = 0; c < c_count; ++c)
                                    turned[c][t][u][k] = from[c];
                            }
                        }
                    for (int c = 0; c < std::min(kLanes, pitch - c0); ++c) {
                        Vec g[T][T], v[kPoints][kPoints];
                        for (int t = 0; t < T; ++t)
                            for (int u = 0; u < T; ++u)
                                g[t][u] = simd::load(turned[c][t][u]);
                        transform_2d<T, kPoints, evaluate<T, true>>(g, v);
                        store_frequencies(v, filters.at(place(phase) * pitch + c0 + c, k0),
                                          filters.frequency_stride);
                    }
                }
    });
}

// ---- The tiles of a batch -----------------------------------------------------------------------

// The tiles of x, or of the output, which lie alike.
inline Grid source_grid(const ConvShape& s, int images, bool apart = false) {
    const int taps = phase_taps(s);
    return Grid({s.p(), s.h, s.stride_h, -s.pad_top, taps},
                {s.q(), s.w, s.stride_w, -s.pad_left, taps}, images, apart);
}

// Tiles that are transformed, multiplied and transformed back together.
struct Chunks {
    int all_tiles, count, tiles;
    int room;  // of a longer chunk, which fewer images may need

    explicit Chunks(int all_tiles, int most = kChunkTiles)
        : all_tiles(all_tiles),
          count(ceil_div(all_tiles, most)),
          tiles(ceil_div(all_tiles, count)),
          room(std::min(all_tiles, most)) {}
};

// For each chunk, by all threads: transform(tile, row) for its tiles, multiply(frequency, chunk,
// rows, panel, end panel) for parts of all products, write(tile, row). A thread that has written its
// tiles goes on to transform those of the next chunk: the others still read products, no data.
template <typename Transform, typename Multiply, typename Write>
void for_chunks(const Chunks& chunks, int panels, const Transform& transform,
                const Multiply& multiply, const Write& write) {
    const int groups = std::min(kPanelGroups, panels);
#pragma omp parallel num_threads(threads())
    for (int chunk = 0; chunk < chunks.count; ++chunk) {
        const int first = chunk * chunks.tiles;
        const int rows = std::min(chunks.tiles, chunks.all_tiles - first);
#pragma omp for
        for (int row = 0; row < rows; ++row)
            transform(first + row, row);
        // Not all frequencies take as long (needed_places).
#pragma omp for collapse(2) schedule(guided)
        for (int frequency = 0; frequency < kFrequencies; ++frequency)
            for (int group = 0; group < groups; ++group)
                multiply(frequency, chunk, rows, part_begin(panels, groups, group),
                         part_begin(panels, groups, group + 1));
#pragma omp for nowait
        for (int row = 0; row < rows; ++row)
            write(first + row, row);
    }
}

// Images whose tiles are transformed; `zeros` has as many zeros as they have channels.
struct TileSource {
    const float* images;
    int channels;
    int phases_h, phases_w;
    const float* zeros;
};

// B^T x B of one tile: to(d) + frequency * stride, for d = place * round_up(channels, kLanes) +
// channel, a vector at a time.
template <typename Place>
inline void transform_source(const TileSource& source, const TilePosition& position,
                             std::int64_t stride, const Place& to) {
    for (int phase = 0; phase < source.phases_h * source.phases_w; ++phase) {
        const int first = place_of(phase, source.phases_w) * round_up(source.channels, kLanes);
        const float* pixels[kPoints][kPoints];
        position.source_pixels(source.images, source.channels, phase / source.phases_w,
                               phase % source.phases_w, source.zeros, pixels);
        for (int c = 0; c < source.channels; c += kLanes) {
            Vec x[kPoints][kPoints], v[kPoints][kPoints];
#pragma GCC unroll 6
            for (int i = 0; i < kPoints; ++i)
#pragma GCC unroll 6
                for (int j = 0; j < kPoints; ++j)
                    x[i][j] = load_up_to(pixels[i][j] + c, source.channels - c);
            transform_2d<kPoints, kPoints, transform_data>(x, v);
            store_frequencies(v, to(first + c), stride);
        }
    }
}

// ---- Outputs ------------------------------------------------------------------------------------

// The pixels (n, p, q) of `map`, `pitch` floats apart, that a tile's outputs are; `absent` where
// there is none.
template <int M, typename T>
inline void output_pixels(const ConvShape& s, const TilePosition& position, T* map, int pitch,
                          T* absent, T* (&pixels)[M][M]) {
    const auto along = [](int outputs) { return [=](int u) { return u < outputs ? u : -1; }; };
    position.pixels(map, s.p(), s.q(), pitch, absent, along(s.p()), along(s.q()), pixels);
}

// out = A^T m A of a tile's products m, up to kLanes columns from `products` on.
template <int M>
inline void transform_products(const float* products, std::int64_t frequency_stride, int columns,
                               Vec (&out)[M][M]) {
    Vec m[kPoints][kPoints];
    load_frequencies(products, frequency_stride, columns, m);
    transform_2d<kPoints, M, interpolate<M, false>>(m, out);
}

// An epilogue's factors and summands of up to kLanes columns.
struct MapTerms {
    Vec scale{}, bias{};

    MapTerms() = default;
    MapTerms(const Epilogue& epilogue, int column, int columns) {
        if (epilogue.scale) scale = load_up_to(epilogue.scale + column, columns);
        if (epilogue.bias) bias = load_up_to(epilogue.bias + column, columns);
    }
};

// What `epilogue` makes of up to kLanes results, which go to `to`.
inline void write_result(Vec v, const MapTerms& terms, const Epilogue& epilogue, int columns,
                         float* to) {
    if (epilogue.scale) v *= terms.scale;
    v += terms.bias;
    if (epilogue.add) v += load_up_to(epilogue.added(to), columns);
    if (epilogue.relu) v = simd::relu(v);
    if (epilogue.stream)
        simd::stream(to, v);
    else
        store_up_to(to, v, columns);
}

}  // namespace zfcuda::conv::winograd
