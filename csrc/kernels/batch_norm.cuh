// Batch normalisation (Ioffe and Szegedy 2015), the statistics that it takes, and its gradient
// through them. Channels are the last axis, and all else is rows.
//
//   batch_norm             y = (x - mean) * weight / sqrt(variance + eps) + bias, or its ReLU
//   batch_norm_statistics  mean and variance of each channel
//   batch_norm_grad        dbias = sum of dy, dweight = sum of dy * x', x' the normalised x,
//                          dx = weight * scale * (dy - dbias / rows - x' * dweight / rows)
//
// Numbers. x - mean is computed as such: x * scale + shift would cancel where the mean is large
// beside the deviation. The variance is not E[x^2] - E[x]^2, either: a thread finds mean and sum of
// squared deviations of a few rows that it holds in registers, counted from the mean so far, and
// such pairs join as in Chan, Golub and LeVeque (1983). Means are kept in double precision (in
// float32 their rounding errors would grow with the rows), which costs a few operations for every
// eight rows.
//
// Work: columns.cuh. Bound: memory; x is read once for the statistics, x and dy twice for the
// gradient.
#pragma once

#include "columns.cuh"
#include "vector.cuh"

namespace zfcuda {

// ---- Statistics ---------------------------------------------------------------------------------

// Count, mean as the sum of two floats, and sum of squared deviations from it.
struct JoinMoments {
    using Join = JoinMoments;
    static constexpr int kParts = 4;

    // mean and squares of `na` rows become those of nb more, whose mean is `difference` more.
    // `share`: nb / (na + nb).
    __device__ static void join(double& mean, float& squares, double difference, float squares_b,
                                float na, float share) {
        mean += difference * share;
        squares += squares_b + static_cast<float>(difference * difference) * na * share;
    }

    template <int Width>
    __device__ static double mean(const ColumnParts<4, Width>& of, int j) {
        return static_cast<double>(of.part[1].at[j]) + of.part[2].at[j];
    }
    template <int Width>
    __device__ static void set_mean(ColumnParts<4, Width>& of, int j, double mean) {
        of.part[1].at[j] = static_cast<float>(mean);
        of.part[2].at[j] = static_cast<float>(mean - of.part[1].at[j]);
    }

    template <int Width>
    __device__ static void join(ColumnParts<4, Width>& a, const ColumnParts<4, Width>& b) {
        const float na = a.part[0].at[0], nb = b.part[0].at[0];  // of all channels
        if (nb == 0.0f) return;
        const float share = nb / (na + nb);
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            double joint = mean(a, j);
            join(joint, a.part[3].at[j], mean(b, j) - joint, b.part[3].at[j], na, share);
            set_mean(a, j, joint);
            a.part[0].at[j] = na + nb;
        }
    }
};

template <typename T>
struct MomentColumns : JoinMoments {
    const T* x;
    int channels;

    MomentColumns(const T* x_, int channels_) : x(x_), channels(channels_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int c,
                           ColumnParts<4, Width>& result) const {
        constexpr int kRows = Width == 8 ? 4 : 8;  // at a time, in at most 32 registers
        if (first >= last) return;
        const auto start = to_floats(load<Width>(x + first * channels + c));
        double mean[Width];
#pragma unroll
        for (int j = 0; j < Width; ++j)
            mean[j] = start.at[j];
        float count = 0.0f;
        for (std::int64_t row = first; row < last; row += kRows * step) {
            Vector<float, Width> value[kRows];
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                value[r] = row + r * step < last
                               ? to_floats(load<Width>(x + (row + r * step) * channels + c))
                               : Vector<float, Width>::filled(0.0f);
            }
            float rows = 0.0f;
#pragma unroll
            for (int r = 0; r < kRows; ++r)
                rows += row + r * step < last ? 1.0f : 0.0f;
            const float share = rows / (count + rows);
#pragma unroll
            for (int j = 0; j < Width; ++j) {
                const auto origin = static_cast<float>(mean[j]);
                float sum = 0.0f, squares = 0.0f;
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    value[r].at[j] -= origin;
                    sum += static_cast<float>(r) < rows ? value[r].at[j] : 0.0f;
                }
                const float centre = sum / rows;
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    const float deviation = value[r].at[j] - centre;
                    squares += static_cast<float>(r) < rows ? deviation * deviation : 0.0f;
                }
                join(mean[j], result.part[3].at[j], centre + (origin - mean[j]), squares, count,
                     share);
            }
            count += rows;
        }
        result.part[0] = Vector<float, Width>::filled(count);
#pragma unroll
        for (int j = 0; j < Width; ++j)
            set_mean(result, j, mean[j]);
    }
};

struct FinishMoments {
    float *mean, *variance;

    template <int Width>
    __device__ void operator()(int, int c, const ColumnParts<4, Width>& moments) const {
        auto spread = moments.part[3];
#pragma unroll
        for (int j = 0; j < Width; ++j)
            spread.at[j] /= moments.part[0].at[j];
        store(mean + c, moments.part[1]);
        store(variance + c, spread);
    }
};

// ---- Normalisation ------------------------------------------------------------------------------

struct BatchNormParameters {
    const float *mean, *variance, *weight;
    float eps;

    // 1 / sqrt(variance + eps).
    template <int Width>
    __device__ Vector<float, Width> scale(int c) const {
        auto result = load<Width>(variance + c);
#pragma unroll
        for (int j = 0; j < Width; ++j)
            result.at[j] = rsqrtf(result.at[j] + eps);
        return result;
    }
};

template <typename T, int Width, bool Relu>
__global__ void batch_norm_kernel(RowGroups<Width> groups, BatchNormParameters parameters,
                                  const float* __restrict__ bias, int x_pitch,
                                  const T* __restrict__ x, T* __restrict__ y) {
    const auto at = groups.place();
    if (!at.inside) return;
    Vector<T, Width> value[RowGroups<Width>::kRows];
    groups.for_each_row(at, x_pitch,
                        [&](int r, int element) { value[r] = load<Width>(x + element); });

    const auto mean = load<Width>(parameters.mean + at.c);
    const auto weight = load<Width>(parameters.weight + at.c);
    const auto shift = load<Width>(bias + at.c);
    auto scale = parameters.scale<Width>(at.c);
#pragma unroll
    for (int j = 0; j < Width; ++j)
        scale.at[j] *= weight.at[j];
    groups.for_each_row(at, [&](int r, int element) {
        auto out = to_floats(value[r]);
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            out.at[j] = (out.at[j] - mean.at[j]) * scale.at[j] + shift.at[j];
            if (Relu) out.at[j] = out.at[j] < 0.0f ? 0.0f : out.at[j];
        }
        store(y + element, from_floats<T>(out));
    });
}

// ---- Gradient -----------------------------------------------------------------------------------

// The sums of dy and of dy * (x - mean).
template <typename T>
struct BatchNormGradColumns : JoinSums<2> {
    const T *dy, *x;
    const float* mean;
    int channels;

    BatchNormGradColumns(const T* dy_, const T* x_, const float* mean_, int channels_)
        : dy(dy_), x(x_), mean(mean_), channels(channels_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int c,
                           ColumnParts<2, Width>& sums) const {
        const auto centre = load<Width>(mean + c);
#pragma unroll 4
        for (std::int64_t row = first; row < last; row += step) {
            const auto gradient = to_floats(load<Width>(dy + row * channels + c));
            const auto value = to_floats(load<Width>(x + row * channels + c));
#pragma unroll
            for (int j = 0; j < Width; ++j) {
                sums.part[0].at[j] += gradient.at[j];
                sums.part[1].at[j] += gradient.at[j] * (value.at[j] - centre.at[j]);
            }
        }
    }
};

struct FinishBatchNormGrad {
    BatchNormParameters parameters;
    float *dweight, *dbias;

    template <int Width>
    __device__ void operator()(int, int c, const ColumnParts<2, Width>& sums) const {
        auto product = parameters.scale<Width>(c);
#pragma unroll
        for (int j = 0; j < Width; ++j)
            product.at[j] *= sums.part[1].at[j];
        store(dbias + c, sums.part[0]);
        store(dweight + c, product);
    }
};

// `share`: 1 / rows.
template <typename T, int Width>
__global__ void batch_norm_grad_kernel(RowGroups<Width> groups, BatchNormParameters parameters,
                                       const float* __restrict__ dweight,
                                       const float* __restrict__ dbias, float share,
                                       const T* __restrict__ dy, const T* __restrict__ x,
                                       T* __restrict__ dx) {
    const auto at = groups.place();
    if (!at.inside) return;
    Vector<T, Width> gradient[RowGroups<Width>::kRows], value[RowGroups<Width>::kRows];
    groups.for_each_row(at, [&](int r, int element) {
        gradient[r] = load<Width>(dy + element);
        value[r] = load<Width>(x + element);
    });

    const auto mean = load<Width>(parameters.mean + at.c);
    const auto weight = load<Width>(parameters.weight + at.c);
    const auto scale = parameters.scale<Width>(at.c);
    auto slope = load<Width>(dweight + at.c), level = load<Width>(dbias + at.c);
#pragma unroll
    for (int j = 0; j < Width; ++j) {
        slope.at[j] *= scale.at[j] * share;
        level.at[j] *= share;
    }
    groups.for_each_row(at, [&](int r, int element) {
        auto out = to_floats(gradient[r]);
        const auto in = to_floats(value[r]);
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            const float centred = out.at[j] - level.at[j] - (in.at[j] - mean.at[j]) * slope.at[j];
            out.at[j] = centred * (weight.at[j] * scale.at[j]);
        }
        store(dx + element, from_floats<T>(out));
    });
}

}  // namespace zfcuda
