// ReLU and dropout: the choice of kernel.
#include "activation.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

void relu(std::int64_t size, const float* x, float* y, Stream stream) {
    with_constant(aligned_for_vectors(x, y), [&](auto aligned) {
        simt::launch<relu_kernel<aligned>>(quad_grid(size), kQuadThreads, 0, stream, size, x, y);
    });
}

void relu_grad(std::int64_t size, const float* dy, const float* y, float* dx, Stream stream) {
    with_constant(aligned_for_vectors(dy, y, dx), [&](auto aligned) {
        simt::launch<relu_grad_kernel<aligned>>(quad_grid(size), kQuadThreads, 0, stream, size, dy,
                                                y, dx);
    });
}

void dropout(std::int64_t size, const float* x, float probability, std::uint64_t seed,
             std::uint64_t offset, float* y, Stream stream) {
    // Below 2^32, since the probability is below 1.
    const auto threshold = static_cast<std::uint32_t>(dropout_threshold(probability));
    const float scale = 1.0f / (1.0f - probability);
    with_constant(aligned_for_vectors(x, y), [&](auto aligned) {
        simt::launch<dropout_kernel<aligned>>(quad_grid(size), kQuadThreads, 0, stream, size, x,
                                              threshold, scale, seed, offset, y);
    });
}

}  // namespace zfcuda
