// Operations that make one element after the other: a pass in vectors, past the caches where the
// result is too large to stay in them. Bound by memory.
#pragma once

#include <cstdint>

#include "parallel.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {

// result[i] = f(V, i) for all i; f gives the vector (or float) that belongs to elements i and up.
template <typename F>
void element_wise(std::int64_t size, float* result, bool in_place, F f) {
    using simd::kLanes;
    const bool stream = !in_place && streams(size, kLanes, result);
    const std::int64_t vectors = size / kLanes;
#pragma omp parallel if (worth_threads(size))
    {
        if (stream) {
#pragma omp for schedule(static) nowait
            for (std::int64_t i = 0; i < vectors; ++i)
                simd::stream(result + i * kLanes, f(simd::Vec{}, i * kLanes));
            simd::stream_fence();
        } else {
#pragma omp for schedule(static) nowait
            for (std::int64_t i = 0; i < vectors; ++i)
                simd::store_as(result + i * kLanes, f(simd::Vec{}, i * kLanes));
        }
    }
    for (std::int64_t i = vectors * kLanes; i < size; ++i)
        result[i] = f(float{}, i);
}

}  // namespace zfcuda
