// Local response normalisation across channels, and its gradient (Krizhevsky et al. 2012, P1).
//
//   base[c] = k + alpha * sum of x[j]^2, j from c - size/2 to c + (size-1)/2 inside the row
//   y[c]    = x[c] * base[c]^-beta
//   dx[c]   = dy[c] * base[c]^-beta
//             - 2 * alpha * beta * x[c] * sum of dy[j] * x[j] * base[j]^(-beta-1),
//               j from c - (size-1)/2 to c + size/2: the windows that hold c
//
// Every sum is taken anew from its terms: a sliding sum would drift along the row.
//
// Work. The paper's window (size 5): a thread takes a 16-byte vector of neighbouring channels and
// reads the four channels left and right of it too, from the L1 cache, since their owners read them
// at the same time; these values of x, and of dy for the gradient, hold all that its results need.
// No shared memory, no barrier. Any other window: one element a thread; the gradient walks over the
// factors that its block needs, a tile at a time through shared memory, so that each factor is
// computed once per block. The power is a reciprocal square root and a square root for beta = 3/4,
// to 4e-7 of it on a GPU, else powf. Bound: memory, 8 bytes an element, 12 for the gradient, half of
// that in bfloat16 (powf may take longer).
#pragma once

#include "indexing.cuh"
#include "vector.cuh"

namespace zfcuda {

constexpr int kNormThreads = 256;
constexpr int kPaperNormSize = 5;

struct NormParameters {
    int size;
    float alpha, beta, k;
};

// base^-beta and its quotient by base.
struct NormScale {
    float power, quotient;
};

template <bool ThreeQuarters>
__device__ inline NormScale norm_scale(float base, float beta) {
    if constexpr (ThreeQuarters) {
        const float root = rsqrtf(base);
        const float power = root * simt::approximate_sqrt(root);
        return {power, power * root * root};
    } else {
        const float power = powf(base, -beta);
        return {power, power / base};
    }
}

// A thread's own channels, from at[kBefore] on, and kBefore more on either side; zero outside the
// row.
template <typename T>
struct Neighbours {
    static constexpr int kBefore = 2 * (kPaperNormSize / 2);
    static constexpr int kOwn = kVectorWidth<T>;

    float at[kBefore + kOwn + kBefore];

    __device__ Neighbours(const T* own, bool has_left, bool has_right) {
        const auto zero = Vector<float, kBefore>::filled(0.0f);
        const auto left = has_left ? to_floats(load<kBefore>(own - kBefore)) : zero;
        const auto middle = to_floats(load<kOwn>(own));
        const auto right = has_right ? to_floats(load<kBefore>(own + kOwn)) : zero;
#pragma unroll
        for (int j = 0; j < kBefore; ++j) {
            at[j] = left.at[j];
            at[kBefore + kOwn + j] = right.at[j];
        }
#pragma unroll
        for (int j = 0; j < kOwn; ++j)
            at[kBefore + j] = middle.at[j];
    }

    __device__ float sum_of_squares(int centre) const {
        float sum = 0.0f;
#pragma unroll
        for (int j = -(kPaperNormSize / 2); j <= kPaperNormSize / 2; ++j)
            sum += at[centre + j] * at[centre + j];
        return sum;
    }
};

// `vectors` per row, which has no other channels; size 5.
template <typename T, bool ThreeQuarters>
__global__ void norm_of_five_kernel(int total_vectors, FastDivisor vectors,
                                    NormParameters parameters, const T* __restrict__ x,
                                    T* __restrict__ y) {
    constexpr int kOwn = Neighbours<T>::kOwn;
    constexpr int kBefore = Neighbours<T>::kBefore;
    const int i = static_cast<int>(blockIdx.x * kNormThreads + threadIdx.x);
    if (i >= total_vectors) return;
    const int place = i % vectors;
    const Neighbours<T> in(x + kOwn * i, place > 0, place + 1 < vectors.divisor);

    Vector<float, kOwn> out;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
        const float base = parameters.k + parameters.alpha * in.sum_of_squares(kBefore + j);
        out.at[j] = in.at[kBefore + j] * norm_scale<ThreeQuarters>(base, parameters.beta).power;
    }
    store(y + kOwn * i, from_floats<T>(out));
}

template <typename T, bool ThreeQuarters>
__global__ void norm_of_five_grad_kernel(int total_vectors, FastDivisor vectors,
                                         NormParameters parameters, const T* __restrict__ dy,
                                         const T* __restrict__ x, T* __restrict__ dx) {
    constexpr int kOwn = Neighbours<T>::kOwn;
    constexpr int kBefore = Neighbours<T>::kBefore;
    constexpr int kHalf = kPaperNormSize / 2;
    const int i = static_cast<int>(blockIdx.x * kNormThreads + threadIdx.x);
    if (i >= total_vectors) return;
    const int place = i % vectors;
    const bool has_left = place > 0;
    const bool has_right = place + 1 < vectors.divisor;
    const Neighbours<T> in(x + kOwn * i, has_left, has_right);
    const Neighbours<T> gradient(dy + kOwn * i, has_left, has_right);

    float power[kOwn], factor[kOwn + 2 * kHalf];
#pragma unroll
    for (int j = 0; j < kOwn + 2 * kHalf; ++j) {
        const int at = kBefore - kHalf + j;
        const bool inside = at < kBefore ? has_left : at < kBefore + kOwn || has_right;
        const float base = parameters.k + parameters.alpha * in.sum_of_squares(at);
        const NormScale scale = norm_scale<ThreeQuarters>(base, parameters.beta);
        factor[j] = inside ? gradient.at[at] * in.at[at] * scale.quotient : 0.0f;
        if (at >= kBefore && at < kBefore + kOwn) power[at - kBefore] = scale.power;
    }
    const float twice = 2.0f * parameters.alpha * parameters.beta;
    Vector<float, kOwn> out;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
        float sum = 0.0f;
#pragma unroll
        for (int m = 0; m < kPaperNormSize; ++m)
            sum += factor[j + m];
        out.at[j] = gradient.at[kBefore + j] * power[j] - twice * in.at[kBefore + j] * sum;
    }
    store(dx + kOwn * i, from_floats<T>(out));
}

// base of the element in channel c, which `own` points to.
template <typename T>
__device__ inline float norm_base(const T* own, int c, int channels,
                                  const NormParameters& parameters) {
    const int before = min(parameters.size / 2, c);
    const int after = min((parameters.size - 1) / 2, channels - 1 - c);
    float sum = 0.0f;
    for (int j = -before; j <= after; ++j) {
        const float value = to_float(own[j]);
        sum += value * value;
    }
    return parameters.k + parameters.alpha * sum;
}

template <typename T, bool ThreeQuarters>
__global__ void norm_kernel(int total, FastDivisor channels, NormParameters parameters,
                            const T* __restrict__ x, T* __restrict__ y) {
    const int i = static_cast<int>(blockIdx.x * kNormThreads + threadIdx.x);
    if (i >= total) return;
    const int c = i % channels;
    const float base = norm_base(x + i, c, channels.divisor, parameters);
    y[i] = from_float<T>(to_float(x[i]) * norm_scale<ThreeQuarters>(base, parameters.beta).power);
}

template <typename T, bool ThreeQuarters>
__global__ void norm_grad_kernel(int total, FastDivisor channels, NormParameters parameters,
                                 const T* __restrict__ dy, const T* __restrict__ x,
                                 T* __restrict__ dx) {
    SIMT_SHARED(float, factors, kNormThreads);
    const int thread = static_cast<int>(threadIdx.x);
    const int first = static_cast<int>(blockIdx.x) * kNormThreads;
    const int last = min(total - first, kNormThreads) - 1 + first;
    const auto channel = [&](int i) { return i % channels; };
    const int before = (parameters.size - 1) / 2;
    const int after = parameters.size / 2;

    // The windows of this thread's element and of the whole block, cut off at the ends of rows.
    const int own = min(first + thread, last);
    const int c = channel(own);
    const int own_begin = own - min(before, c);
    const int own_end = own + min(after, channels.divisor - 1 - c) + 1;
    const int begin = first - min(before, channel(first));
    const int end = last + min(after, channels.divisor - 1 - channel(last)) + 1;

    float sum = 0.0f;
    for (int tile = begin; tile < end; tile += kNormThreads) {
        const int tile_end = min(end - tile, kNormThreads) + tile;
        const int i = tile + thread;
        if (i < tile_end) {
            const float base = norm_base(x + i, channel(i), channels.divisor, parameters);
            factors[thread] = to_float(dy[i]) * to_float(x[i]) *
                              norm_scale<ThreeQuarters>(base, parameters.beta).quotient;
        }
        __syncthreads();
        for (int j = max(own_begin, tile); j < min(own_end, tile_end); ++j)
            sum += factors[j - tile];
        __syncthreads();
    }
    if (first + thread > last) return;
    const float base = norm_base(x + own, c, channels.divisor, parameters);
    const float power = norm_scale<ThreeQuarters>(base, parameters.beta).power;
    dx[own] = from_float<T>(to_float(dy[own]) * power -
                            2.0f * parameters.alpha * parameters.beta * to_float(x[own]) * sum);
}

}  // namespace zfcuda
