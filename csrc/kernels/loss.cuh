// Softmax, cross-entropy and its gradient.
//
//   probabilities[i,j] = exp(x[i,j] - top[i]) / sum[i], sum[i] = sum over j of exp(x[i,j] - top[i])
//   row_losses[i]      = log(sum[i]) - (x[i,label[i]] - top[i]); loss = mean over i
//   dlogits[i,j]       = (probabilities[i,j] - (j == label[i])) / n
//
// Work: a row to each warp, or to each block where rows are long. Each thread walks over its
// columns three times (maximum, sum, quotient): the row stays in the L1 cache. The mean is a
// second kernel of one block, a fixed tree in double precision.
// Bound: memory, 8 bytes a logit, though with the few thousand rows of a batch it is the launches.
#pragma once

#include <cmath>
#include <cstdint>

#include "reduce.cuh"

namespace zfcuda {

constexpr int kRowThreads = 256;  // of a block

// `Threads` threads share a row: a warp, or the whole block.
template <int Threads>
struct RowTile {
    static constexpr int kThreads = Threads;
    static constexpr int kRows = kRowThreads / Threads;

    static dim3 grid(int rows) { return dim3(static_cast<unsigned>((rows - 1) / kRows + 1)); }
    static dim3 block() { return dim3(Threads, kRows); }

    __device__ static std::int64_t row() {
        return static_cast<std::int64_t>(blockIdx.x) * kRows + threadIdx.y;
    }
};

// `labels` and `row_losses` are null for the probabilities alone.
template <typename Tile>
__global__ void softmax_kernel(int n, int classes, const float* __restrict__ logits,
                               const std::int32_t* __restrict__ labels,
                               float* __restrict__ row_losses, float* __restrict__ probabilities) {
    SIMT_SHARED(float, scratch, kRowThreads / kWarp);
    const std::int64_t row = Tile::row();
    if (row >= n) return;
    const float* in = logits + row * classes;
    float* out = probabilities + row * classes;
    const int thread = static_cast<int>(threadIdx.x);

    float top = -INFINITY;
    for (std::int64_t j = thread; j < classes; j += Tile::kThreads)
        top = fmaxf(top, in[j]);
    top = reduce<Tile::kThreads>(top, Maximum(), scratch);

    float sum = 0.0f;
    for (std::int64_t j = thread; j < classes; j += Tile::kThreads)
        sum += expf(in[j] - top);
    sum = reduce<Tile::kThreads>(sum, Sum(), scratch);

    for (std::int64_t j = thread; j < classes; j += Tile::kThreads)
        out[j] = expf(in[j] - top) / sum;

    if (labels != nullptr && thread == 0) {
        const int label = labels[row];
        const bool valid = label >= 0 && label < classes;
        row_losses[row] = valid ? logf(sum) - (in[label] - top) : NAN;
    }
}

constexpr int kMeanThreads = 256;

__global__ void mean_kernel(int n, const float* __restrict__ values, float* __restrict__ mean) {
    SIMT_SHARED(double, scratch, kMeanThreads / kWarp);
    double sum = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kMeanThreads)
        sum += values[i];
    sum = reduce<kMeanThreads>(sum, Sum(), scratch);
    if (threadIdx.x == 0) mean[0] = static_cast<float>(sum / n);
}

template <typename Tile>
__global__ void softmax_cross_entropy_grad_kernel(int n, int classes,
                                                  const float* __restrict__ probabilities,
                                                  const std::int32_t* __restrict__ labels,
                                                  float* __restrict__ dlogits) {
    const std::int64_t row = Tile::row();
    if (row >= n) return;
    const int label = labels[row];
    for (std::int64_t j = threadIdx.x; j < classes; j += Tile::kThreads) {
        const std::int64_t at = row * classes + j;
        dlogits[at] = (probabilities[at] - (j == label ? 1.0f : 0.0f)) / static_cast<float>(n);
    }
}

}  // namespace zfcuda
