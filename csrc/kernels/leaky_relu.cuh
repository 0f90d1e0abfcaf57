// Leaky ReLU with one slope or one for each channel (PReLU, He et al. 2015), and its gradients.
//
//   leaky_relu         y = x > 0 ? x : x * slope
//   leaky_relu_grad    dx = x > 0 ? dy : dy * slope
//   prelu_weight_grad  dslope = sum over rows of x > 0 ? 0 : dy * x
//
// The first is the second with dy = x, and both are one kernel. Work: a vector of 16 bytes a thread
// where there is one slope, else columns.cuh. Bound: memory, the arrays once (x as dy is read from
// the L1 cache the second time).
#pragma once

#include "columns.cuh"
#include "vector.cuh"

namespace zfcuda {

// One slope: *slopes, or `slope` where that is null. dx may be dy.
template <typename T, bool Aligned>
__global__ void leaky_relu_kernel(std::int64_t size, const float* slopes, float slope, const T* dy,
                                  const T* x, T* dx) {
    constexpr int kWidth = kVectorWidth<T>;
    const Run<kWidth, Aligned> run(size);
    if (run.count == 0) return;
    if (slopes != nullptr) slope = *slopes;
    auto gradient = run.load(dy);
    const auto input = run.load(x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
        gradient.at[j] = input.at[j] > 0.0f ? gradient.at[j] : gradient.at[j] * slope;
    run.store(dx, gradient);
}

// A slope for each channel. dx may be dy.
template <typename T, int Width>
__global__ void leaky_relu_by_channel_kernel(RowGroups<Width> groups, const float* slopes,
                                             const T* dy, const T* x, T* dx) {
    const auto at = groups.place();
    if (!at.inside) return;
    Vector<T, Width> gradient[RowGroups<Width>::kRows], value[RowGroups<Width>::kRows];
    groups.for_each_row(at, [&](int r, int element) {
        gradient[r] = load<Width>(dy + element);
        value[r] = load<Width>(x + element);
    });
    const auto slope = load<Width>(slopes + at.c);
    groups.for_each_row(at, [&](int r, int element) {
        auto out = to_floats(gradient[r]);
        const auto in = to_floats(value[r]);
#pragma unroll
        for (int j = 0; j < Width; ++j)
            out.at[j] = in.at[j] > 0.0f ? out.at[j] : out.at[j] * slope.at[j];
        store(dx + element, from_floats<T>(out));
    });
}

template <typename T>
struct SlopeGradColumns : JoinSums<1> {
    const T *dy, *x;
    int channels;

    SlopeGradColumns(const T* dy_, const T* x_, int channels_)
        : dy(dy_), x(x_), channels(channels_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int c,
                           ColumnParts<1, Width>& sum) const {
#pragma unroll 4
        for (std::int64_t row = first; row < last; row += step) {
            const auto gradient = to_floats(load<Width>(dy + row * channels + c));
            const auto value = to_floats(load<Width>(x + row * channels + c));
#pragma unroll
            for (int j = 0; j < Width; ++j)
                sum.part[0].at[j] += value.at[j] > 0.0f ? 0.0f : gradient.at[j] * value.at[j];
        }
    }
};

}  // namespace zfcuda
