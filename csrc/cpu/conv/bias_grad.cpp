// The gradient of a bias on the CPU: the sum of dy (rows, channels) over its rows.
//
// Rows are cut into a fixed number of parts, whose sums are added in order, so that the bits do not
// depend on the threads. Within a part the sum is taken in blocks of kBiasRows rows, which
// keeps float32 accurate however many rows there are. Bounded by reading dy once.
#include <algorithm>

#include "../../ops.h"
#include "../blocking.h"
#include "../parallel.h"

namespace zfcuda {
std::size_t conv2d_bias_grad_workspace(std::int64_t, int channels) {
    return sizeof(float) * 2 * kBiasParts * static_cast<std::size_t>(channels);
}

template <class T>
void conv2d_bias_grad(std::int64_t rows, int channels, const T* dy, float* db, void* workspace,
                      Stream) {
    float* sums = static_cast<float*>(workspace);
    const int parts = std::clamp(ceil_div(rows, kBiasRows), 1, kBiasParts);
#pragma omp parallel num_threads(threads()) if (worth_threads(rows * channels))
    {
#pragma omp for
        for (int part = 0; part < parts; ++part) {
            float* sum = sums + 2 * static_cast<std::int64_t>(part) * channels;
            float* block_sum = sum + channels;
            std::fill(sum, sum + channels, 0.0f);
            const std::int64_t end = part_begin(rows, parts, part + 1);
            for (std::int64_t row = part_begin(rows, parts, part); row < end;) {
                const std::int64_t block_end = std::min(end, row + kBiasRows);
                std::fill(block_sum, block_sum + channels, 0.0f);
                for (; row < block_end; ++row) {
                    const float* from = dy + row * channels;
#pragma omp simd
                    for (int k = 0; k < channels; ++k)
                        block_sum[k] += from[k];
                }
                for (int k = 0; k < channels; ++k)
                    sum[k] += block_sum[k];
            }
        }
#pragma omp for
        for (int k = 0; k < channels; ++k) {
            float total = 0;
            for (int part = 0; part < parts; ++part)
                total += sums[2 * static_cast<std::int64_t>(part) * channels + k];
            db[k] = total;
        }
    }
}

template decltype(conv2d_bias_grad<float>) conv2d_bias_grad<float>;

}  // namespace zfcuda
