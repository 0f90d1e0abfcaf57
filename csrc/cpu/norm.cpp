// Local response normalisation on the CPU.
//
// y[c] = x[c] * scale[c], scale = base^-beta, base[c] = k + alpha * sum of x^2 over the window of
// channels around c; the gradient is dx[c] = dy[c] * scale[c] - 2 alpha beta x[c] * sum of
// dy * x * scale / base over the mirrored window.
//
// Rows go in small groups that stay in the first-level cache: one pass over a group puts the
// values to be summed into rows with zeros on either side, a second one adds `size` shifted
// vectors. Both are bound by memory for beta = 0.5 and 0.75, where one or two reciprocal square roots
// do for the power.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../ops.h"
#include "blocking.h"
#include "parallel.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {
namespace {

using simd::kLanes;
using simd::Vec;

// Rows of `channels` floats, each with room for the window's zeros before and after.
class PaddedRows {
  public:
    PaddedRows(int rows, int channels, int size)
        : before_((size + kLanes - 1) / kLanes * kLanes),
          pitch_(2 * before_ + (channels + kLanes - 1) / kLanes * kLanes),
          values_(static_cast<std::size_t>(rows) * pitch_, 0.0f) {}

    float* row(int i) { return values_.data() + static_cast<std::size_t>(i) * pitch_ + before_; }

  private:
    int before_, pitch_;
    std::vector<float> values_;
};

inline void store_some(float* to, Vec value, int count, bool stream) {
    if (stream && count >= kLanes)
        simd::stream(to, value);
    else
        simd::store_up_to(to, value, count);
}

// Sums of `size` neighbours, the first of them `before` places back. The usual 5 without a loop.
inline Vec window_sum(const float* center, int before, int size) {
    const float* from = center - before;
    if (size == 5)
        return simd::load(from) + simd::load(from + 1) + simd::load(from + 2) +
               simd::load(from + 3) + simd::load(from + 4);
    Vec sum = simd::load(from);
    for (int j = 1; j < size; ++j)
        sum += simd::load(from + j);
    return sum;
}

// For beta = Quarters / 4, by r = 1/sqrt(base): base^-1/2 = r, base^-3/4 = r * r * 1/sqrt(r), and 1/base
// = r * r. Of infinity all are 0.
template <int Quarters>
struct RootPower {
    static_assert(Quarters == 2 || Quarters == 3);

    static void powers(Vec base, float, Vec& scale, Vec& inverse) {
        const Vec largest = simd::broadcast(std::numeric_limits<float>::max());
        const auto infinite = simd::less(largest, base);
        const Vec root = simd::reciprocal_sqrt(simd::select(infinite, largest, base));
        inverse = simd::select(infinite, Vec{}, root * root);
        if constexpr (Quarters == 2)
            scale = simd::select(infinite, Vec{}, root);
        else
            scale = inverse * simd::reciprocal_sqrt(root);
    }
};

struct AnyPower {
    static void powers(Vec base, float beta, Vec& scale, Vec& inverse) {
        inverse = 1.0f / base;
        for (int i = 0; i < kLanes; ++i)
            scale[i] = std::pow(base[i], -beta);
    }
};

// body(Power()) for the fastest that has this beta.
template <typename Body>
void with_power(float beta, const Body& body) {
    if (beta == 0.5f)
        body(RootPower<2>());
    else if (beta == 0.75f)
        body(RootPower<3>());
    else
        body(AnyPower());
}

struct Norm {
    std::int64_t rows;
    int channels, size;
    float alpha, beta, k;

    Norm(std::int64_t rows, int channels, int size, float alpha, float beta, float k)
        : rows(rows),
          channels(channels),
          // A window of twice the channels covers them all wherever it stands.
          size(std::min<std::int64_t>(size, 2LL * channels)),
          alpha(alpha),
          beta(beta),
          k(k) {}

    int group() const { return std::max(1, kNormFloats / channels); }
    bool streams(const float* result) const {
        return zfcuda::streams(rows * channels, channels, result);
    }
};

void square_rows(const float* x, int rows, int channels, PaddedRows& squares) {
    for (int i = 0; i < rows; ++i, x += channels) {
        float* square = squares.row(i);
        for (int c = 0; c < channels; c += kLanes) {
            const Vec value = simd::load_up_to(x + c, channels - c);
            simd::store(square + c, value * value);
        }
    }
}

template <typename Power>
void forward(const Norm& norm, const float* x, float* y) {
    const int C = norm.channels, group = norm.group();
    const bool stream = norm.streams(y);
#pragma omp parallel if (worth_threads(norm.rows * C))
    {
        PaddedRows squares(group, C, norm.size);
#pragma omp for schedule(static) nowait
        for (std::int64_t first = 0; first < norm.rows; first += group) {
            const int rows = static_cast<int>(std::min<std::int64_t>(group, norm.rows - first));
            square_rows(x + first * C, rows, C, squares);
            for (int i = 0; i < rows; ++i) {
                const float* in = x + (first + i) * C;
                const float* square = squares.row(i);
                for (int c = 0; c < C; c += kLanes) {
                    const Vec base =
                        norm.k + norm.alpha * window_sum(square + c, norm.size / 2, norm.size);
                    Vec scale, inverse;
                    Power::powers(base, norm.beta, scale, inverse);
                    store_some(y + (first + i) * C + c, simd::load_up_to(in + c, C - c) * scale,
                               C - c, stream);
                }
            }
        }
        simd::stream_fence();
    }
}

template <typename Power>
void backward(const Norm& norm, const float* dy, const float* x, float* dx) {
    const int C = norm.channels, group = norm.group();
    const float factor = -2 * norm.alpha * norm.beta;
    const bool stream = norm.streams(dx);
#pragma omp parallel if (worth_threads(norm.rows * C))
    {
        PaddedRows squares(group, C, norm.size), products(group, C, norm.size),
            scaled(group, C, norm.size);
#pragma omp for schedule(static) nowait
        for (std::int64_t first = 0; first < norm.rows; first += group) {
            const int rows = static_cast<int>(std::min<std::int64_t>(group, norm.rows - first));
            square_rows(x + first * C, rows, C, squares);
            for (int i = 0; i < rows; ++i) {
                const float* in = x + (first + i) * C;
                const float* grad = dy + (first + i) * C;
                for (int c = 0; c < C; c += kLanes) {
                    const Vec base = norm.k + norm.alpha * window_sum(squares.row(i) + c,
                                                                      norm.size / 2, norm.size);
                    Vec scale, inverse;
                    Power::powers(base, norm.beta, scale, inverse);
                    const Vec g = simd::load_up_to(grad + c, C - c) * scale;
                    simd::store(scaled.row(i) + c, g);
                    simd::store(products.row(i) + c, g * simd::load_up_to(in + c, C - c) * inverse);
                }
            }
            // x[c] stands in the sums of the channels from c - (size - 1) / 2 to c + size / 2.
            for (int i = 0; i < rows; ++i) {
                const float* in = x + (first + i) * C;
                for (int c = 0; c < C; c += kLanes) {
                    const Vec sum = window_sum(products.row(i) + c, (norm.size - 1) / 2, norm.size);
                    const Vec value = simd::load(scaled.row(i) + c) +
                                      factor * simd::load_up_to(in + c, C - c) * sum;
                    store_some(dx + (first + i) * C + c, value, C - c, stream);
                }
            }
        }
        simd::stream_fence();
    }
}

}  // namespace

template <class T>
void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const T* x, T* y, Stream) {
    const Norm norm(rows, channels, size, alpha, beta, k);
    with_power(beta, [&](auto power) { forward<decltype(power)>(norm, x, y); });
}

template <class T>
void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const T* dy, const T* x, T* dx, Stream) {
    const Norm norm(rows, channels, size, alpha, beta, k);
    with_power(beta, [&](auto power) { backward<decltype(power)>(norm, dy, x, dx); });
}

template decltype(local_response_norm<float>) local_response_norm<float>;
template decltype(local_response_norm_grad<float>) local_response_norm_grad<float>;

}  // namespace zfcuda
