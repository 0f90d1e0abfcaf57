// Softmax and cross-entropy on the CPU.
//
// p = exp(x - max) / sum, loss = mean of log(sum) - (x[label] - max). A few thousand numbers: one
// pass for the maximum, one for exponentials and their sum, one for the division.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../ops.h"
#include "parallel.h"

namespace zfcuda {
namespace {

// Writes one row of probabilities and returns log(sum of exp(logits)).
double softmax_row(int classes, const float* logits, float* probabilities) {
    const float top = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (int j = 0; j < classes; ++j)
        sum += probabilities[j] = std::exp(logits[j] - top);
    const float scale = static_cast<float>(1 / sum);
    for (int j = 0; j < classes; ++j)
        probabilities[j] *= scale;
    return top + std::log(sum);
}

}  // namespace

void softmax(int n, int classes, const float* logits, float* probabilities, Stream) {
#pragma omp parallel for if (worth_threads(static_cast<std::int64_t>(n) * classes))
    for (int i = 0; i < n; ++i) {
        const std::int64_t row = static_cast<std::int64_t>(i) * classes;
        softmax_row(classes, logits + row, probabilities + row);
    }
}

std::size_t softmax_cross_entropy_workspace(int n, int) {
    return n * sizeof(double);
}

void softmax_cross_entropy(int n, int classes, const float* logits, const std::int32_t* labels,
                           float* loss, float* probabilities, void* workspace, Stream) {
    double* losses = static_cast<double*>(workspace);
#pragma omp parallel for if (worth_threads(static_cast<std::int64_t>(n) * classes))
    for (int i = 0; i < n; ++i) {
        const std::int64_t row = static_cast<std::int64_t>(i) * classes;
        const double log_sum = softmax_row(classes, logits + row, probabilities + row);
        const bool valid = labels[i] >= 0 && labels[i] < classes;
        losses[i] =
            valid ? log_sum - logits[row + labels[i]] : std::numeric_limits<double>::quiet_NaN();
    }
    double total = 0;
    for (int i = 0; i < n; ++i)
        total += losses[i];
    loss[0] = static_cast<float>(total / n);
}

void softmax_cross_entropy_grad(int n, int classes, const float* probabilities,
                                const std::int32_t* labels, float* dlogits, Stream) {
    const float scale = 1.0f / n;
#pragma omp parallel for if (worth_threads(static_cast<std::int64_t>(n) * classes))
    for (int i = 0; i < n; ++i) {
        const float* from = probabilities + static_cast<std::int64_t>(i) * classes;
        float* to = dlogits + static_cast<std::int64_t>(i) * classes;
        for (int j = 0; j < classes; ++j)
            to[j] = from[j] * scale;
        if (labels[i] >= 0 && labels[i] < classes) to[labels[i]] = (from[labels[i]] - 1.0f) * scale;
    }
}

}  // namespace zfcuda
