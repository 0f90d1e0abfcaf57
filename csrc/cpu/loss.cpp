// Softmax and cross-entropy on the CPU.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../ops.h"

namespace zfcuda {

void softmax(int n, int classes, const float* logits, float* probabilities, Stream) {
#pragma omp parallel for
    for (int i = 0; i < n; ++i) {
        const float* in = logits + (std::int64_t)i * classes;
        float* out = probabilities + (std::int64_t)i * classes;
        const float top = *std::max_element(in, in + classes);
        float sum = 0;
        for (int j = 0; j < classes; ++j)
            sum += out[j] = std::exp(in[j] - top);
        for (int j = 0; j < classes; ++j)
            out[j] /= sum;
    }
}

std::size_t softmax_cross_entropy_workspace(int, int) {
    return 0;
}

void softmax_cross_entropy(int n, int classes, const float* logits, const std::int32_t* labels,
                           float* loss, float* probabilities, void*, Stream stream) {
    softmax(n, classes, logits, probabilities, stream);
    double total = 0;
    for (int i = 0; i < n; ++i) {
        const float* in = logits + (std::int64_t)i * classes;
        if (labels[i] < 0 || labels[i] >= classes) {
            total = std::numeric_limits<double>::quiet_NaN();
            break;
        }
        const float top = *std::max_element(in, in + classes);
        double sum = 0;
        for (int j = 0; j < classes; ++j)
            sum += std::exp(in[j] - top);
        total += std::log(sum) - (in[labels[i]] - top);
    }
    loss[0] = static_cast<float>(total / n);
}

void softmax_cross_entropy_grad(int n, int classes, const float* probabilities,
                                const std::int32_t* labels, float* dlogits, Stream) {
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < classes; ++j) {
            const std::int64_t at = (std::int64_t)i * classes + j;
            dlogits[at] = (probabilities[at] - (labels[i] == j ? 1.0f : 0.0f)) / n;
        }
}

}  // namespace zfcuda
