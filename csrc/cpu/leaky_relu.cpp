// Leaky ReLU with one slope or one for each channel, and its gradients, on the CPU: bound by memory.
//
// y = x > 0 ? x : x * slope is the gradient dx = x > 0 ? dy : dy * slope with dy = x.
#include "../ops.h"
#include "columns.h"
#include "element_wise.h"
#include "simd.h"

namespace zfcuda {
namespace {

// The bytes of sums by channel, before the workspace of the parts.
std::size_t channel_bytes(int channels) {
    return sizeof(float) * round_up(channels, 16);
}

}  // namespace

template <class T>
void leaky_relu_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* slopes,
                     float slope, T* dx, Stream) {
    const auto leak = [](auto input, auto gradient, auto slope) {
        return simd::select(simd::less(decltype(input){}, input), gradient, gradient * slope);
    };
    if (slopes == nullptr || channels == 1) {
        const float only = slopes == nullptr ? slope : *slopes;
        element_wise(rows * channels, dx, dy == dx, [=](auto vector, std::int64_t i) {
            using V = decltype(vector);
            return leak(simd::load_as<V>(x + i), simd::load_as<V>(dy + i), V{} + only);
        });
        return;
    }
    by_channel<1>(rows, channels, merged_rows(rows, channels), dx, dy == dx, {slopes},
                  [=](const auto& load, std::int64_t row, int c, const simd::Vec* of) {
                      const std::int64_t at = row * channels + c;
                      return leak(load(x + at), load(dy + at), of[0]);
                  });
}

template <class T>
void leaky_relu(std::int64_t rows, int channels, const T* x, const float* slopes, float slope, T* y,
                Stream stream) {
    leaky_relu_grad(rows, channels, x, x, slopes, slope, y, stream);
}

std::size_t prelu_weight_grad_workspace(std::int64_t rows, int channels) {
    return channel_bytes(channels) + ColumnParts(1, rows, channels).workspace(1);
}

template <class T>
void prelu_weight_grad(std::int64_t rows, int channels, bool shared, const T* dy, const T* x,
                       float* dslope, void* workspace, Stream) {
    float* const sums = shared ? static_cast<float*>(workspace) : dslope;
    sum_columns<1>(
        ColumnParts(1, rows, channels), static_cast<char*>(workspace) + channel_bytes(channels),
        [=](const auto& load, std::int64_t row, int c, simd::Vec* sum) {
            const simd::Vec input = load(x + row * channels + c);
            const simd::Vec product = load(dy + row * channels + c) * input;
            sum[0] += simd::select(simd::less(simd::Vec{}, input), simd::Vec{}, product);
        },
        [=](std::int64_t, int c, const float* sum) { sums[c] = sum[0]; });
    if (!shared) return;
    double total = 0;
    for (int c = 0; c < channels; ++c)
        total += sums[c];
    dslope[0] = static_cast<float>(total);
}

template decltype(leaky_relu<float>) leaky_relu<float>;
template decltype(leaky_relu_grad<float>) leaky_relu_grad<float>;
template decltype(prelu_weight_grad<float>) prelu_weight_grad<float>;

}  // namespace zfcuda
