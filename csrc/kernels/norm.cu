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

}  // namespace

void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const float* x, float* y, Stream stream) {
    const NormParameters parameters{size, alpha, beta, k};
    const bool vectors = size == kPaperNormSize && channels % 4 == 0 && aligned_for_vectors(x, y);
    with_constant(beta == kPaperBeta, [&](auto three_quarters) {
        for_each_slab(rows, channels, [&](std::int64_t at, int total) {
            if (vectors) {
                simt::launch<norm_of_five_kernel<three_quarters>>(
                    norm_blocks(total / 4), kNormThreads, 0, stream, total / 4,
                    FastDivisor(channels / 4), parameters, x + at, y + at);
            } else {
                simt::launch<norm_kernel<three_quarters>>(norm_blocks(total), kNormThreads, 0,
                                                          stream, total, FastDivisor(channels),
                                                          parameters, x + at, y + at);
            }
        });
    });
}

void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const float* dy, const float* x, float* dx, Stream stream) {
    const NormParameters parameters{size, alpha, beta, k};
    const bool vectors =
        size == kPaperNormSize && channels % 4 == 0 && aligned_for_vectors(dy, x, dx);
    with_constant(beta == kPaperBeta, [&](auto three_quarters) {
        for_each_slab(rows, channels, [&](std::int64_t at, int total) {
            if (vectors) {
                simt::launch<norm_of_five_grad_kernel<three_quarters>>(
                    norm_blocks(total / 4), kNormThreads, 0, stream, total / 4,
                    FastDivisor(channels / 4), parameters, dy + at, x + at, dx + at);
            } else {
                simt::launch<norm_grad_kernel<three_quarters>>(
                    norm_blocks(total), kNormThreads, 0, stream, total, FastDivisor(channels),
                    parameters, dy + at, x + at, dx + at);
            }
        });
    });
}

}  // namespace zfcuda
