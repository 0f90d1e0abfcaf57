// SGD with momentum and weight decay, and filter renormalisation (P2).
//
//   sgd_step              v = momentum * v - *lr * (g + weight_decay * w); w = w + v
//   renormalize_filters   w = w * max_rms / rms for each row of w whose rms exceeds max_rms
//
// Work: sgd_step moves four elements a thread; bound: memory, 20 bytes a parameter (reads w, g,
// v, writes w, v). renormalize_filters gives a block to each filter; the sum of squares is a
// fixed tree in double precision. Bound: memory, 4 bytes a weight, and 4 more of a filter that is
// scaled (its second reading comes from the cache).
#pragma once

#include <cmath>

#include "reduce.cuh"
#include "vector.cuh"

namespace zfcuda {

// Whether an update may go on: `guard` is null or points to a finite number.
__device__ inline bool permits(const float* guard) {
    return guard == nullptr || fabsf(*guard) < INFINITY;
}

template <bool Aligned>
__global__ void sgd_step_kernel(std::int64_t size, float* __restrict__ w,
                                const float* __restrict__ g, float* __restrict__ v,
                                const float* __restrict__ lr, float momentum, float weight_decay,
                                const float* __restrict__ guard) {
    if (!permits(guard)) return;
    const Run<kVectorWidth<float>, Aligned> run(size);
    if (run.count == 0) return;
    const float rate = *lr;
    auto weight = run.load(w);
    const auto gradient = run.load(g);
    auto velocity = run.load(v);
#pragma unroll
    for (int j = 0; j < kVectorWidth<float>; ++j) {
        velocity.at[j] =
            momentum * velocity.at[j] - rate * (gradient.at[j] + weight_decay * weight.at[j]);
        weight.at[j] += velocity.at[j];
    }
    run.store(v, velocity);
    run.store(w, weight);
}

constexpr int kRenormalizeThreads = 256;

__global__ void renormalize_filters_kernel(int filter_size, float max_rms, float* w,
                                           const float* __restrict__ guard) {
    SIMT_SHARED(double, scratch, kRenormalizeThreads / kWarp);
    if (!permits(guard)) return;
    float* filter = w + static_cast<std::int64_t>(blockIdx.x) * filter_size;

    double sum = 0;
    for (std::int64_t i = threadIdx.x; i < filter_size; i += kRenormalizeThreads)
        sum += static_cast<double>(filter[i]) * filter[i];
    sum = reduce<kRenormalizeThreads>(sum, Sum(), scratch);

    const double rms = sqrt(sum / filter_size);
    if (rms <= max_rms) return;
    const float scale = static_cast<float>(max_rms / rms);
    for (std::int64_t i = threadIdx.x; i < filter_size; i += kRenormalizeThreads)
        filter[i] *= scale;
}

}  // namespace zfcuda
