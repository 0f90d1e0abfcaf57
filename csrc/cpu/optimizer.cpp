// SGD with momentum, and filter renormalisation, on the CPU.
#include <cmath>

#include "../ops.h"

namespace zfcuda {

void sgd_step(std::int64_t size, float* w, const float* g, float* v, float lr, float momentum,
              float weight_decay, Stream) {
#pragma omp parallel for simd
    for (std::int64_t i = 0; i < size; ++i) {
        v[i] = momentum * v[i] - lr * (g[i] + weight_decay * w[i]);
        w[i] += v[i];
    }
}

void renormalize_filters(int filters, int filter_size, float max_rms, float* w, Stream) {
#pragma omp parallel for
    for (int k = 0; k < filters; ++k) {
        float* filter = w + (std::int64_t)k * filter_size;
        double sum = 0;
        for (int i = 0; i < filter_size; ++i)
            sum += static_cast<double>(filter[i]) * filter[i];
        const double rms = std::sqrt(sum / filter_size);
        if (rms <= max_rms) continue;
        const float scale = static_cast<float>(max_rms / rms);
        for (int i = 0; i < filter_size; ++i)
            filter[i] *= scale;
    }
}

}  // namespace zfcuda
