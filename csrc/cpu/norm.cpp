// Local response normalisation on the CPU.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../ops.h"

namespace zfcuda {

void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const float* x, float* y, Stream) {
#pragma omp parallel for
    for (std::int64_t row = 0; row < rows; ++row) {
        const float* in = x + row * channels;
        for (int c = 0; c < channels; ++c) {
            float sum = 0;
            for (int j = std::max(0, c - size / 2); j <= std::min(channels - 1, c + (size - 1) / 2);
                 ++j)
                sum += in[j] * in[j];
            y[row * channels + c] = in[c] * std::pow(k + alpha * sum, -beta);
        }
    }
}

void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const float* dy, const float* x, float* dx, Stream) {
#pragma omp parallel
    {
        std::vector<float> scale(channels), product(channels);
#pragma omp for
        for (std::int64_t row = 0; row < rows; ++row) {
            const float* in = x + row * channels;
            const float* g = dy + row * channels;
            for (int c = 0; c < channels; ++c) {
                float sum = 0;
                for (int j = std::max(0, c - size / 2);
                     j <= std::min(channels - 1, c + (size - 1) / 2); ++j)
                    sum += in[j] * in[j];
                const float base = k + alpha * sum;
                scale[c] = std::pow(base, -beta);
                product[c] = g[c] * in[c] * scale[c] / base;
            }
            // x[c] stands in the sums of the channels from c - (size-1)/2 to c + size/2.
            for (int c = 0; c < channels; ++c) {
                float sum = 0;
                for (int j = std::max(0, c - (size - 1) / 2);
                     j <= std::min(channels - 1, c + size / 2); ++j)
                    sum += product[j];
                dx[row * channels + c] = g[c] * scale[c] - 2 * alpha * beta * in[c] * sum;
            }
        }
    }
}

}  // namespace zfcuda
