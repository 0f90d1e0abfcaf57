// Batch normalisation, its statistics and its gradient on the CPU: bound by memory.
//
// x - mean is computed as such: x * scale + shift would cancel where the mean is large beside the
// deviation. Nor is the variance E[x^2] - E[x]^2: a few rows at a time, which stay in the caches,
// are gone over twice, for their mean and for their squared deviations from it, and such moments
// join as in Chan, Golub and LeVeque (1983), in double precision. They are counted from the first of
// these rows, so that a large mean does not cost the sums their last digits.
#include <cmath>
#include <vector>

#include "../ops.h"
#include "blocking.h"
#include "columns.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

using simd::kLanes;
using simd::Vec;

// Of the parts of the rows: mean and sum of squared deviations by channel, and the two of a block.
class Moments {
  public:
    Moments(std::int64_t rows, int channels)
        : cut_(1, rows, channels), pitch_(sum_pitch(channels)) {}

    std::size_t workspace() const { return cut_.parts * bytes(); }

    void of_part(int part, const float* x, void* workspace) const {
        const int C = cut_.channels;
        double* const mean = means(workspace, part);
        double* const squares = mean + pitch_;
        float* const block_mean = reinterpret_cast<float*>(squares + pitch_);
        float* const block_squares = block_mean + pitch_;
        std::fill(mean, mean + 2 * pitch_, 0.0);
        const std::int64_t begin = part_begin(cut_.rows, cut_.parts, part);
        const std::int64_t end = part_begin(cut_.rows, cut_.parts, part + 1);
        const std::int64_t rows = std::clamp<std::int64_t>(kMomentFloats / C, 16, kSumRows);
        for (std::int64_t row = begin; row < end; row += rows) {
            const std::int64_t block_end = std::min(end, row + rows);
            const float* const origin = x + row * C;
            simd::clear(block_mean, 2 * pitch_);
            add_rows<1>(row, block_end, C, block_mean,
                        [=](const auto& load, std::int64_t row, int c, Vec* sum) {
                            sum[0] += load(x + row * C + c) - load(origin + c);
                        });
            const float share = 1.0f / static_cast<float>(block_end - row);
            for (std::int64_t c = 0; c < C; c += kLanes)
                simd::store(block_mean + c, simd::load(block_mean + c) * share);
            add_rows<1>(row, block_end, C, block_squares,
                        [=](const auto& load, std::int64_t row, int c, Vec* sum) {
                            const Vec value = load(x + row * C + c) - load(origin + c);
                            const Vec deviation = value - load(block_mean + c);
                            sum[0] += deviation * deviation;
                        });
            const auto before = static_cast<double>(row - begin);
            join(mean, squares, before, static_cast<double>(block_end - row), [=](int c) {
                return std::pair<double, double>(double{origin[c]} + block_mean[c],
                                                 block_squares[c]);
            });
        }
    }

    void finish(void* workspace, float* mean, float* variance) const {
        double* const means_of_all = means(workspace, 0);
        double* const squares = means_of_all + pitch_;
        for (int part = 1; part < cut_.parts; ++part) {
            const double* const of_part = means(workspace, part);
            const std::int64_t begin = part_begin(cut_.rows, cut_.parts, part);
            const std::int64_t end = part_begin(cut_.rows, cut_.parts, part + 1);
            join(means_of_all, squares, static_cast<double>(begin),
                 static_cast<double>(end - begin), [=, pitch = pitch_](int c) {
                     return std::pair<double, double>(of_part[c], of_part[pitch + c]);
                 });
        }
        for (int c = 0; c < cut_.channels; ++c) {
            mean[c] = static_cast<float>(means_of_all[c]);
            variance[c] = static_cast<float>(squares[c] / static_cast<double>(cut_.rows));
        }
    }

    int parts() const { return cut_.parts; }

  private:
    std::size_t bytes() const { return 2 * (sizeof(double) + sizeof(float)) * pitch_; }
    double* means(void* workspace, int part) const {
        return reinterpret_cast<double*>(static_cast<char*>(workspace) + part * bytes());
    }

    // The moments of `before` rows become those of `count` more; of(c): mean and squares of these.
    template <typename Of>
    void join(double* mean, double* squares, double before, double count, const Of& of) const {
        const double share = count / (before + count);
        for (int c = 0; c < cut_.channels; ++c) {
            const auto [other_mean, other_squares] = of(c);
            const double difference = other_mean - mean[c];
            mean[c] += difference * share;
            squares[c] += other_squares + difference * difference * before * share;
        }
    }

    ColumnParts cut_;
    std::int64_t pitch_;
};

// 1 / sqrt(variance + eps) of each channel.
std::vector<float> scales(int channels, const float* variance, float eps) {
    std::vector<float> scale(channels);
    for (int c = 0; c < channels; ++c)
        scale[c] = 1.0f / std::sqrt(variance[c] + eps);
    return scale;
}

}  // namespace

std::size_t batch_norm_statistics_workspace(std::int64_t rows, int channels) {
    return Moments(rows, channels).workspace();
}

template <class T>
void batch_norm_statistics(std::int64_t rows, int channels, const T* x, float* mean,
                           float* variance, void* workspace, Stream) {
    const Moments moments(rows, channels);
#pragma omp parallel for schedule(static) if (worth_threads(rows * channels))
    for (int part = 0; part < moments.parts(); ++part)
        moments.of_part(part, x, workspace);
    moments.finish(workspace, mean, variance);
}

template <class T>
void batch_norm(std::int64_t rows, int channels, int x_pitch, const T* x, const float* mean,
                const float* variance, const float* weight, const float* bias, float eps, bool relu,
                T* y, Stream) {
    std::vector<float> factor = scales(channels, variance, eps);
    for (int c = 0; c < channels; ++c)
        factor[c] *= weight[c];
    const int merged = x_pitch == channels ? merged_rows(rows, channels) : 1;
    const auto normalise = [&](const auto& activation) {
        by_channel<3>(rows, channels, merged, y, false, {mean, factor.data(), bias},
                      [=](const auto& load, std::int64_t row, int c, const Vec* of) {
                          return activation((load(x + row * x_pitch + c) - of[0]) * of[1] + of[2]);
                      });
    };
    if (relu)
        normalise([](Vec v) { return simd::relu(v); });
    else
        normalise([](Vec v) { return v; });
}

std::size_t batch_norm_grad_workspace(std::int64_t rows, int channels) {
    return ColumnParts(1, rows, channels).workspace(2);
}

template <class T>
void batch_norm_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* mean,
                     const float* variance, const float* weight, float eps, T* dx, float* dweight,
                     float* dbias, void* workspace, Stream) {
    const std::vector<float> scale = scales(channels, variance, eps);
    sum_columns<2>(
        ColumnParts(1, rows, channels), workspace,
        [=](const auto& load, std::int64_t row, int c, Vec* sum) {
            const Vec gradient = load(dy + row * channels + c);
            sum[0] += gradient;
            sum[1] += gradient * (load(x + row * channels + c) - load(mean + c));
        },
        [&](std::int64_t, int c, const float* sum) {
            dbias[c] = sum[0];
            dweight[c] = sum[1] * scale[c];
        });

    std::vector<float> factor(channels), level(channels), slope(channels);
    for (int c = 0; c < channels; ++c) {
        factor[c] = weight[c] * scale[c];
        level[c] = dbias[c] / static_cast<float>(rows);
        slope[c] = dweight[c] * scale[c] / static_cast<float>(rows);
    }
    by_channel<4>(rows, channels, merged_rows(rows, channels), dx, false,
                  {mean, level.data(), slope.data(), factor.data()},
                  [=](const auto& load, std::int64_t row, int c, const Vec* of) {
                      const std::int64_t at = row * channels + c;
                      const Vec deviation = load(x + at) - of[0];
                      return (load(dy + at) - of[1] - deviation * of[2]) * of[3];
                  });
}

template decltype(batch_norm<float>) batch_norm<float>;
template decltype(batch_norm_statistics<float>) batch_norm_statistics<float>;
template decltype(batch_norm_grad<float>) batch_norm_grad<float>;

}  // namespace zfcuda
