// Sums, ReLU, clipping, their gradients, dropout and casts.
//
//   add        y = a + b, or max(a + b, 0)
//   relu       y = max(x, 0); NaN stays NaN
//   relu_grad  dx = y > 0 ? dy : 0
//   clip       y = min(max(x, low), high); NaN stays NaN
//   clip_grad  dx = low < x && x < high ? dy : 0
//   dropout    y = x / (1 - probability) where the element's Philox word keeps it, else 0
//   cast       y = x, between float32 and bfloat16
//
// Work: a vector of 16 bytes a thread, loaded and stored with one access; each group of four
// elements takes the four words of one Philox counter. Bound: memory, as many times the size of an
// element (4 bytes, or 2 in bfloat16) as there are arrays. At 256 threads a block and full occupancy an SM has 32 KB
// of loads in flight, more than its share of bandwidth times latency.
#pragma once

#include "philox.h"
#include "vector.cuh"

namespace zfcuda {

// y may be x.
template <typename T, bool Aligned>
__global__ void relu_kernel(std::int64_t size, const T* x, T* y) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    auto value = run.load(x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
        value.at[j] = value.at[j] < 0.0f ? 0.0f : value.at[j];
    run.store(y, value);
}

// dx may be dy.
template <typename T, bool Aligned>
__global__ void relu_grad_kernel(std::int64_t size, const T* dy, const T* y, T* dx) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    auto gradient = run.load(dy);
    const auto output = run.load(y);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
        gradient.at[j] = output.at[j] > 0.0f ? gradient.at[j] : 0.0f;
    run.store(dx, gradient);
}

// y may be x.
template <typename T, bool Aligned>
__global__ void clip_kernel(std::int64_t size, const T* x, float low, float high, T* y) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    auto value = run.load(x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
        value.at[j] = value.at[j] < low ? low : value.at[j];
        value.at[j] = value.at[j] > high ? high : value.at[j];
    }
    run.store(y, value);
}

// dx may be dy.
template <typename T, bool Aligned>
__global__ void clip_grad_kernel(std::int64_t size, const T* dy, const T* x, float low, float high,
                                 T* dx) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    auto gradient = run.load(dy);
    const auto input = run.load(x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
        gradient.at[j] = low < input.at[j] && input.at[j] < high ? gradient.at[j] : 0.0f;
    run.store(dx, gradient);
}

// y may be a or b.
template <typename T, bool Relu, bool Aligned>
__global__ void add_kernel(std::int64_t size, const T* a, const T* b, T* y) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    auto value = run.load(a);
    const auto other = run.load(b);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
        value.at[j] += other.at[j];
        if (Relu) value.at[j] = value.at[j] < 0.0f ? 0.0f : value.at[j];
    }
    run.store(y, value);
}

// y may be x.
template <typename T, bool Aligned>
__global__ void dropout_kernel(std::int64_t size, const T* x, std::uint32_t threshold, float scale,
                               std::uint64_t seed, const std::uint64_t* __restrict__ offset, T* y) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    const std::uint64_t step = *offset;
    auto value = run.load(x);
#pragma unroll
    for (int group = 0; group < kWidth; group += 4) {
        const auto index = static_cast<std::uint64_t>((run.first + group) / 4);
        const PhiloxWords words = philox4x32(seed, index, step);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float& element = value.at[group + j];
            element = words.word[j] < threshold ? 0.0f : element * scale;
        }
    }
    run.store(y, value);
}

// `From` and `To`: float and BFloat16, or BFloat16 and float.
template <typename From, typename To, bool Aligned>
__global__ void cast_kernel(std::int64_t size, const From* __restrict__ x, To* __restrict__ y) {
    const Run<kVectorWidth<float>, Aligned> run(size);
    if (run.count > 0) run.store(y, run.load(x));
}

}  // namespace zfcuda
