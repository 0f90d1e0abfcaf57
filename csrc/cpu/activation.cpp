// ReLU and dropout on the CPU.
//
// ReLU and its gradient are bound by memory: a pass in vectors, past the caches where the result is
// too large to stay in them. Dropout is bound by Philox, whose ten rounds the compiler vectorises
// across kBatch counters.
#include <algorithm>

#include "../ops.h"
#include "../philox.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

// result[i] = f(V, i) for all i; f gives the vector (or float) that belongs to elements i and up.
template <typename F>
void element_wise(std::int64_t size, float* result, bool in_place, F f) {
    using simd::kLanes;
    const bool stream = !in_place && size * 4 > kStreamBytes && simd::is_aligned(result);
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

// Words of this many Philox counters make one batch: 4 elements each.
constexpr int kBatch = 16;

struct PhiloxBatch {
    std::uint32_t word[4][kBatch];
};

// philox4x32 of the counters index, index + 1, ...
PhiloxBatch philox_batch(std::uint64_t seed, std::uint64_t index, std::uint64_t offset) {
    PhiloxBatch batch;
#pragma omp simd
    for (int lane = 0; lane < kBatch; ++lane) {
        const PhiloxWords words = philox4x32(seed, index + lane, offset);
        for (int j = 0; j < 4; ++j)
            batch.word[j][lane] = words.word[j];
    }
    return batch;
}

}  // namespace

void relu(std::int64_t size, const float* x, float* y, Stream) {
    element_wise(size, y, x == y, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        const V value = simd::load_as<V>(x + i);
        return simd::select(simd::less(value, V{}), V{}, value);
    });
}

void relu_grad(std::int64_t size, const float* dy, const float* y, float* dx, Stream) {
    element_wise(size, dx, dy == dx, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        return simd::select(simd::less(V{}, simd::load_as<V>(y + i)), simd::load_as<V>(dy + i),
                            V{});
    });
}

void dropout(std::int64_t size, const float* x, float probability, std::uint64_t seed,
             std::uint64_t offset, float* y, Stream) {
    const std::uint64_t threshold = dropout_threshold(probability);
    const float scale = 1.0f / (1.0f - probability);
    constexpr std::int64_t kElements = 4 * kBatch;
#pragma omp parallel for schedule(static) if (worth_threads(size))
    for (std::int64_t first = 0; first < size; first += kElements) {
        const PhiloxBatch batch = philox_batch(seed, static_cast<std::uint64_t>(first / 4), offset);
        const int count = static_cast<int>(std::min(kElements, size - first));
        for (int i = 0; i < count; ++i)
            y[first + i] = batch.word[i % 4][i / 4] < threshold ? 0.0f : x[first + i] * scale;
    }
}

}  // namespace zfcuda
