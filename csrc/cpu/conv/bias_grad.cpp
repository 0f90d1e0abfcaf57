// The gradient of a bias on the CPU: the sum of dy (rows, channels) over its rows. Bounded by reading
// dy once.
#include "../../ops.h"
#include "../columns.h"

namespace zfcuda {

std::size_t conv2d_bias_grad_workspace(std::int64_t rows, int channels) {
    return ColumnParts(1, rows, channels).workspace(1);
}

template <class T>
void conv2d_bias_grad(std::int64_t rows, int channels, const T* dy, float* db, void* workspace,
                      Stream) {
    sum_columns<1>(
        ColumnParts(1, rows, channels), workspace,
        [=](const auto& load, std::int64_t row, int c, simd::Vec* sum) {
            sum[0] += load(dy + row * channels + c);
        },
        [=](std::int64_t, int c, const float* sum) { db[c] = sum[0]; });
}

template decltype(conv2d_bias_grad<float>) conv2d_bias_grad<float>;

}  // namespace zfcuda
