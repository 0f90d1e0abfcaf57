// ReLU and dropout on the CPU.
#include "../ops.h"
#include "../philox.h"

namespace zfcuda {

void relu(std::int64_t size, const float* x, float* y, Stream) {
#pragma omp parallel for simd
    for (std::int64_t i = 0; i < size; ++i)
        y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

void relu_grad(std::int64_t size, const float* dy, const float* y, float* dx, Stream) {
#pragma omp parallel for simd
    for (std::int64_t i = 0; i < size; ++i)
        dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
}

void dropout(std::int64_t size, const float* x, float probability, std::uint64_t seed,
             std::uint64_t offset, float* y, Stream) {
    const std::uint64_t threshold = dropout_threshold(probability);
    const float scale = 1.0f / (1.0f - probability);
#pragma omp parallel for
    for (std::int64_t block = 0; block < (size + 3) / 4; ++block) {
        const PhiloxWords words = philox4x32(seed, static_cast<std::uint64_t>(block), offset);
        for (int j = 0; j < 4 && block * 4 + j < size; ++j)
            y[block * 4 + j] = words.word[j] < threshold ? 0.0f : x[block * 4 + j] * scale;
    }
}

}  // namespace zfcuda
