// Local response normalisation: the choice of kernel.
#include "norm.cuh"

#include <algorithm>

#include "dispatch.h"
#include "ops_bf16.h"

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

template <typename T>
void launch_norm(std::int64_t rows, int channels, const NormParameters& parameters, const T* x,
                 T* y, Stream stream) {
    constexpr int kWidth = kVectorWidth<T>;
    const bool vectors = is_norm_of_five(parameters.size, channels, x, y);
    with_constant(parameters.beta == kPaperBeta, [&](auto three_quarters) {
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
void launch_norm_grad(std::int64_t rows, int channels, const NormParameters& parameters,
                      const T* dy, const T* x, T* dx, Stream stream) {
    constexpr int kWidth = kVectorWidth<T>;
    const bool vectors = is_norm_of_five(parameters.size, channels, dy, x, dx);
    with_constant(parameters.beta == kPaperBeta, [&](auto three_quarters) {
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

}  // namespace

void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const float* x, float* y, Stream stream) {
    launch_norm(rows, channels, {size, alpha, beta, k}, x, y, stream);
}
void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const Bf16* x, Bf16* y, Stream stream) {
    launch_norm(rows, channels, {size, alpha, beta, k}, x, y, stream);
}

void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const float* dy, const float* x, float* dx, Stream stream) {
    launch_norm_grad(rows, channels, {size, alpha, beta, k}, dy, x, dx, stream);
}
void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const Bf16* dy, const Bf16* x, Bf16* dx, Stream stream) {
    launch_norm_grad(rows, channels, {size, alpha, beta, k}, dy, x, dx, stream);
}

}  // namespace zfcuda
