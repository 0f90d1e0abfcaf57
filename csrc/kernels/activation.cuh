// ReLU, its gradient, and dropout.
//
//   relu       y = max(x, 0); NaN stays NaN
//   relu_grad  dx = y > 0 ? dy : 0
//   dropout    y = x / (1 - probability) where the element's Philox word keeps it, else 0
//
// Work: four elements a thread (the four words of one Philox counter), each loaded and stored
// with one 16-byte access. Bound: memory, 8, 12 and 8 bytes an element. At 256 threads a block
// and full occupancy an SM has 32 KB of loads in flight, more than its share of bandwidth times
// latency.
#pragma once

#include "philox.h"
#include "vector.cuh"

namespace zfcuda {

// y may be x.
template <bool Aligned>
__global__ void relu_kernel(std::int64_t size, const float* x, float* y) {
    const Quad<Aligned> quad(size);
    if (quad.count == 0) return;
    auto value = quad.load(x);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        value.at[j] = value.at[j] < 0.0f ? 0.0f : value.at[j];
    quad.store(y, value);
}

// dx may be dy.
template <bool Aligned>
__global__ void relu_grad_kernel(std::int64_t size, const float* dy, const float* y, float* dx) {
    const Quad<Aligned> quad(size);
    if (quad.count == 0) return;
    auto gradient = quad.load(dy);
    const auto output = quad.load(y);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        gradient.at[j] = output.at[j] > 0.0f ? gradient.at[j] : 0.0f;
    quad.store(dx, gradient);
}

// y may be x.
template <bool Aligned>
__global__ void dropout_kernel(std::int64_t size, const float* x, std::uint32_t threshold,
                               float scale, std::uint64_t seed, std::uint64_t offset, float* y) {
    const Quad<Aligned> quad(size);
    if (quad.count == 0) return;
    auto value = quad.load(x);
    const PhiloxWords words = philox4x32(seed, static_cast<std::uint64_t>(quad.first / 4), offset);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        value.at[j] = words.word[j] < threshold ? 0.0f : value.at[j] * scale;
    quad.store(y, value);
}

}  // namespace zfcuda
