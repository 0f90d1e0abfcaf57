// Sums, ReLU, clipping and dropout on the CPU.
//
// All but dropout are bound by memory: a pass in vectors. Dropout is bound by the ten rounds of Philox, which the compiler
// vectorises across counters.
#include <algorithm>

#include "../ops.h"
#include "../philox.h"
#include "element_wise.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

// Philox counters of one batch, each good for 4 elements.
constexpr int kCounters = 16;
constexpr int kBatch = 4 * kCounters;

// The words of philox4x32 for the counters index, index + 1, ...
void philox_batch(std::uint64_t seed, std::uint64_t index, std::uint64_t offset,
                  std::uint32_t (&words)[kBatch]) {
#pragma omp simd
    for (int i = 0; i < kCounters; ++i) {
        const PhiloxWords four = philox4x32(seed, index + i, offset);
        words[4 * i] = four.word[0];
        words[4 * i + 1] = four.word[1];
        words[4 * i + 2] = four.word[2];
        words[4 * i + 3] = four.word[3];
    }
}

}  // namespace

template <class T>
void relu(std::int64_t size, const T* x, T* y, Stream) {
    element_wise(size, y, x == y, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        const V value = simd::load_as<V>(x + i);
        return simd::select(simd::less(value, V{}), V{}, value);
    });
}

template <class T>
void relu_grad(std::int64_t size, const T* dy, const T* y, T* dx, Stream) {
    element_wise(size, dx, dy == dx, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        return simd::select(simd::less(V{}, simd::load_as<V>(y + i)), simd::load_as<V>(dy + i),
                            V{});
    });
}

template <class T>
void clip(std::int64_t size, const T* x, float low, float high, T* y, Stream) {
    element_wise(size, y, x == y, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        const V least = V{} + low, most = V{} + high;
        V value = simd::load_as<V>(x + i);
        value = simd::select(simd::less(value, least), least, value);
        return simd::select(simd::less(most, value), most, value);
    });
}

template <class T>
void clip_grad(std::int64_t size, const T* dy, const T* x, float low, float high, T* dx, Stream) {
    element_wise(size, dx, dy == dx, [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        const V value = simd::load_as<V>(x + i), gradient = simd::load_as<V>(dy + i);
        const V above = simd::select(simd::less(V{} + low, value), gradient, V{});
        return simd::select(simd::less(value, V{} + high), above, V{});
    });
}

template <class T>
void add(std::int64_t size, const T* a, const T* b, bool relu, T* y, Stream) {
    const bool in_place = a == y || b == y;
    const auto sum = [=](auto vector, std::int64_t i) {
        using V = decltype(vector);
        return simd::load_as<V>(a + i) + simd::load_as<V>(b + i);
    };
    if (relu)
        element_wise(size, y, in_place, [=](auto vector, std::int64_t i) {
            const auto value = sum(vector, i);
            return simd::select(simd::less(value, vector), vector, value);
        });
    else
        element_wise(size, y, in_place, sum);
}

template <class T>
void dropout(std::int64_t size, const T* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, T* y, Stream) {
    const auto threshold = static_cast<std::uint32_t>(dropout_threshold(probability));
    const float scale = 1.0f / (1.0f - probability);
    const std::uint64_t step = *offset;
#pragma omp parallel for schedule(static) if (worth_threads(size))
    for (std::int64_t first = 0; first < size; first += kBatch) {
        std::uint32_t words[kBatch];
        philox_batch(seed, static_cast<std::uint64_t>(first / 4), step, words);
        const float* from = x + first;
        float* to = y + first;
        const int count = static_cast<int>(std::min<std::int64_t>(kBatch, size - first));
#pragma omp simd
        for (int i = 0; i < count; ++i)
            to[i] = words[i] < threshold ? 0.0f : from[i] * scale;
    }
}

template decltype(relu<float>) relu<float>;
template decltype(relu_grad<float>) relu_grad<float>;
template decltype(add<float>) add<float>;
template decltype(clip<float>) clip<float>;
template decltype(clip_grad<float>) clip_grad<float>;
template decltype(dropout<float>) dropout<float>;

}  // namespace zfcuda
