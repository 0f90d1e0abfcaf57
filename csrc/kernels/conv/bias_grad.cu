// Bias gradient of a convolution: db[k] = sum over rows of dy[row, k]. Bound: memory, the bytes of dy.
#include "kernels/columns.cuh"
#include "kernels/dispatch.h"
#include "kernels/vector.cuh"
#include "ops.h"

namespace zfcuda {

std::size_t conv2d_bias_grad_workspace(std::int64_t rows, int channels) {
    return ColumnRanges(1, rows, channels).workspace(1);
}

template <class T>
void conv2d_bias_grad(std::int64_t rows, int channels, const T* dy, float* db, void* workspace,
                      Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors =
        channels % kVector == 0 && aligned_for_vectors<kVector>(dy) && aligned_for_vectors(db);
    with_constant(in_vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        reduce_columns<kWidth>({1, rows, channels}, SumColumns<T>(dy, channels), FinishSum{db},
                               workspace, stream);
    });
}

template decltype(conv2d_bias_grad<float>) conv2d_bias_grad<float>;
template decltype(conv2d_bias_grad<BFloat16>) conv2d_bias_grad<BFloat16>;

}  // namespace zfcuda
