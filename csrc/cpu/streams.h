// Which results are written past the caches: those so large that they would leave them before they
// are read.
#pragma once

#include <cstdint>

#include "blocking.h"
#include "simd.h"

namespace zfcuda {

inline bool leaves_caches(std::int64_t floats) {
    return floats * 4 > kStreamBytes;
}

// `floats` one after the other, written in runs of `run` each.
inline bool streams(std::int64_t floats, std::int64_t run, const float* result) {
    return leaves_caches(floats) && run % simd::kLanes == 0 && simd::is_aligned(result);
}

// Whether a store of one vector is a whole line of the caches. Parts of a line wait for the others,
// and a processor lets few lines wait: on Zen 3, six.
constexpr bool kStreamsWholeLines = simd::kLanes == kLineFloats;

// The same where so many places of the result get a vector by turns.
template <int kPlaces>
inline bool streams_to_places(std::int64_t floats, std::int64_t run, const float* result) {
    return (kStreamsWholeLines || kPlaces <= 6) && streams(floats, run, result);
}

// The same where the places are rows of `row` floats: the lines of rows that lie pages apart do not
// wait side by side (up to three times the time on Zen 3).
inline bool streams_to_rows(std::int64_t floats, std::int64_t run, const float* result,
                            std::int64_t row) {
    return (kStreamsWholeLines || row % kPageFloats != 0) && streams(floats, run, result);
}

// Whole vectors; `to` is aligned to them.
inline void copy_past_caches(const float* from, int count, float* to) {
    for (int i = 0; i < count; i += simd::kLanes)
        simd::stream(to + i, simd::load(from + i));
}

}  // namespace zfcuda
