// Local response normalisation: the choice of kernel.
#include "norm.cuh"

#include <algorithm>

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

constexpr float kPaperBeta = 0.75f;

unsigned norm_blocks(int threads) {
    return (static_cast<unsigned>(threads) + kNormThreads - 1) / kNormThreads;
}

// Calls `use(first element, elements)` for slabs of whole rows that 32-bit indices can address.
template <typename Use>
void for_each_slab(std::int64_t rows, int channels, Use use) {
    const std::int64_t slab = 0x7fffffff / channels;
    for (std::int64_t row = 0; row < rows; row += slab)
        use(row * channels, static_cast<int>(std::min(slab, rows - row) * channels));
}

template <typename T, typename... Others>
bool is_norm_of_five(int size, int channels, const T* array, const Others*... others) {
    return size == kPaperNormSize && channels % kVectorWidth<T> == 0 &&
           aligned_for_vectors<kVectorWidth<T>>(array, others...);
}

}  // namespace

template <typename T>
void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const T* x, T* y, Stream stream) {
    const NormParameters parameters{size, alpha, beta, k};
    constexpr int kWidth = kVectorWidth<T>;
    const bool vectors = is_norm_of_five(size, channels, x, y);
    with_constant(beta == kPaperBeta, [&](auto three_quarters) {
        for_each_slab(rows, channels, [&](std::int64_t at, int total) {
            if (vectors) {
                simt::launch<norm_of_five_kernel<T, three_quarters>>(
                    norm_blocks(total / kWidth), kNormThreads, 0, stream, total / kWidth,
                    FastDivisor(channels / kWidth), parameters, x + at, y + at);
            } else {
                simt::launch<norm_kernel<T, three_quarters>>(norm_blocks(total), kNormThreads, 0,
                                                             stream, total, FastDivisor(channels),
                                                             parameters, x + at, y + at);
            }
        });
    });
}

template <typename T>
void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const T* dy, const T* x, T* dx, Stream stream) {
    const NormParameters parameters{size, alpha, beta, k};
    constexpr int kWidth = kVectorWidth<T>;
    const bool vectors = is_norm_of_five(size, channels, dy, x, dx);
    with_constant(beta == kPaperBeta, [&](auto three_quarters) {
        for_each_slab(rows, channels, [&](std::int64_t at, int total) {
            if (vectors) {
                simt::launch<norm_of_five_grad_kernel<T, three_quarters>>(
                    norm_blocks(total / kWidth), kNormThreads, 0, stream, total / kWidth,
                    FastDivisor(channels / kWidth), parameters, dy + at, x + at, dx + at);
            } else {
                simt::launch<norm_grad_kernel<T, three_quarters>>(
                    norm_blocks(total), kNormThreads, 0, stream, total, FastDivisor(channels),
                    parameters, dy + at, x + at, dx + at);
            }
        });
    });
}

template decltype(local_response_norm<float>) local_response_norm<float>;
template decltype(local_response_norm<BFloat16>) local_response_norm<BFloat16>;
template decltype(local_response_norm_grad<float>) local_response_norm_grad<float>;
template decltype(local_response_norm_grad<BFloat16>) local_response_norm_grad<BFloat16>;

}  // namespace zfcuda
