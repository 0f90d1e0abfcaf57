// The weight gradient of a convolution: see conv_wgrad.cuh.
#include "conv_wgrad.cuh"

namespace zfcuda {

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    shape.check();
    const std::size_t size = static_cast<std::size_t>(shape.k) * shape.r * shape.s * shape.c;
    return conv::partial_sums_bytes(conv::plan_wgrad(shape), size);
}

void conv2d_weight_grad(const ConvShape& shape, const float* x, const float* dy, float* dw,
                        void* workspace, Stream stream) {
    const bool wide_dy = shape.k % 4 == 0 && aligned_for_vectors(dy);
    conv::weight_grad<conv::Pixels>(shape, x, dy, wide_dy, dw, workspace, stream);
}

}  // namespace zfcuda
