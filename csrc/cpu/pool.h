// Max pooling and unpooling, one row at a time: the rows may be those of a whole map or of a tile.
// And what both share: vectors of channels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../shapes.h"
#include "blocking.h"
#include "simd.h"

namespace zfcuda {

// One row (q, c) of y and switches from the rows first_row <= r < end_row of the window that lie in
// x; rows[r] is a row (w, c). Past the caches if `stream`, for which y must be aligned to a vector
// and c a multiple of it. Meanwhile fetches `next_floats` from `next` on, the rows that come after.
void max_pool_row(const PoolShape& shape, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream, const float* next = nullptr,
                  std::int64_t next_floats = 0);

// Row h of x (w, c), gathered from the windows of one image that cover it: y and switches are
// (p, q, c).
void max_unpool_row(const PoolShape& shape, int h, const float* y, const std::uint8_t* switches,
                    float* x, bool stream);

namespace pool {

// Calls body(V, number of vectors, channel) for as many vectors from `c` on as there are, at most
// kVectors at a time; returns the channel after them.
template <int kVectors, typename Body>
inline int for_vectors(int c, int channels, const Body& body) {
    for (; c + kVectors * simd::kLanes <= channels; c += kVectors * simd::kLanes)
        body(simd::Vec{}, std::integral_constant<int, kVectors>{}, c);
    if constexpr (kVectors > 1) c = for_vectors<kVectors / 2>(c, channels, body);
    return c;
}

// The same until all channels are done. The last vector overlaps the one before where the channels
// are no multiple of a vector; fewer than one vector go one by one.
template <int kVectors, typename Body>
inline void for_channels(int channels, const Body& body) {
    int c = for_vectors<kVectors>(0, channels, body);
    if (c < channels && channels >= simd::kLanes) {
        body(simd::Vec{}, std::integral_constant<int, 1>{}, channels - simd::kLanes);
        c = channels;
    }
    for (; c < channels; ++c)
        body(float{}, std::integral_constant<int, 1>{}, c);
}

inline bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % simd::kLanes == 0 && simd::is_aligned(result);
}

}  // namespace pool

}  // namespace zfcuda
