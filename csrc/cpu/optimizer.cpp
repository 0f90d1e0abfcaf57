// SGD with momentum, and filter renormalisation, on the CPU.
//
// v = momentum * v - *lr * (g + weight_decay * w); w = w + v: one pass, three reads and two writes,
// bound by memory.
#include <cmath>

#include "../ops.h"
#include "parallel.h"

namespace zfcuda {

void sgd_step(std::int64_t size, float* w, const float* g, float* v, const float* lr,
              float momentum, float weight_decay, const float* guard, Stream) {
    if (guard != nullptr && !std::isfinite(*guard)) return;
    const float rate = *lr;
#pragma omp parallel for simd schedule(static) if (parallel : worth_threads(size))
    for (std::int64_t i = 0; i < size; ++i) {
        v[i] = momentum * v[i] - rate * (g[i] + weight_decay * w[i]);
        w[i] += v[i];
    }
}

void renormalize_filters(int filters, int filter_size, float max_rms, float* w, const float* guard,
                         Stream) {
    if (guard != nullptr && !std::isfinite(*guard)) return;
#pragma omp parallel for schedule( \
        static) if (worth_threads(static_cast<std::int64_t>(filters) * filter_size))
    for (int k = 0; k < filters; ++k) {
        float* filter = w + static_cast<std::int64_t>(k) * filter_size;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
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
