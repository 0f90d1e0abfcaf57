// What the directions of Winograd's convolution share: sizes, and the transform of the tiles of an
// image batch.
#pragma once

#include <type_traits>

#include "../../../shapes.h"
#include "../../gemm.h"
#include "../../simd.h"
#include "grid.h"
#include "transform.h"

namespace zfcuda::winograd {

// Taps of an axis of one phase: those of the height, which pays() requires of the width too.
inline int phase_taps(const ConvShape& s) {
    return (s.r + s.stride_h - 1) / s.stride_h;
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

// The tiles of x, or of the output, which lie alike.
inline Grid source_grid(const ConvShape& s, int images) {
    const int taps = phase_taps(s);
    return Grid({s.p(), s.h, s.stride_h, -s.pad_h, taps}, {s.q(), s.w, s.stride_w, -s.pad_w, taps},
                images);
}

// The pixel (n, p, q) of the output at the tile's cell (i, j), or -1 if there is none.
inline std::int64_t output_pixel(const ConvShape& s, const TilePosition& position, int i, int j) {
    const int n = position.output_image(i, j);
    if (n < 0) return -1;
    return (static_cast<std::int64_t>(n) * s.p() + position.rows.u[i]) * s.q() + position.cols.u[j];
}

// `count` may be kLanes or more, which is a whole vector.
inline Vec load_up_to(const float* p, int count) {
    return count >= simd::kLanes ? simd::load(p) : simd::load_partial(p, count);
}

inline void store_up_to(float* p, Vec v, int count) {
    if (count >= simd::kLanes)
        simd::store(p, v);
    else
        simd::store_partial(p, v, count);
}

inline void store_frequencies(const Vec (&v)[6][6], float* out, std::int64_t stride) {
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j)
            simd::store(out + (i * 6 + j) * stride, v[i][j]);
}

// Images whose tiles are transformed; `zeros` has as many zeros as they have channels.
struct TileSource {
    const float* images;
    int channels;
    int phases_h, phases_w;
    const float* zeros;
};

// B^T x B of one tile: to(d) + frequency * stride, for d = phase * round_up(channels, kLanes)
// + channel, a vector at a time.
template <typename Place>
inline void transform_source(const TileSource& source, const TilePosition& position,
                             std::int64_t stride, const Place& to) {
    using simd::kLanes;
    for (int phase = 0; phase < source.phases_h * source.phases_w; ++phase) {
        const float* pixels[6][6];
        for (int i = 0; i < 6; ++i)
            for (int j = 0; j < 6; ++j) {
                const std::int64_t at =
                    position.source(i, j, phase / source.phases_w, phase % source.phases_w);
                pixels[i][j] = at < 0 ? source.zeros : source.images + at * source.channels;
            }
        for (int c = 0; c < source.channels; c += kLanes) {
            Vec x[6][6], v[6][6];
#pragma GCC unroll 6
            for (int i = 0; i < 6; ++i)
#pragma GCC unroll 6
                for (int j = 0; j < 6; ++j)
                    x[i][j] = load_up_to(pixels[i][j] + c, source.channels - c);
            transform_2d<6, 6, transform_data>(x, v);
            store_frequencies(v, to(phase * round_up(source.channels, kLanes) + c), stride);
        }
    }
}

}  // namespace zfcuda::winograd
