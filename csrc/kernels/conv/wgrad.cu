// conv2d_weight_grad: see wgrad.cuh.
#include "wgrad.cuh"

namespace zfcuda {

template <class Math>
std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    shape.check();
    return conv::product_workspace(typename conv::Tiles<Math>::Wgrad{},
                                   conv::wgrad_product<Math>(shape));
}

template <class Math>
void conv2d_weight_grad(const ConvShape& shape, const Element<Math>* x, const Element<Math>* dy,
                        float* dw, void* workspace, Stream stream) {
    using namespace conv;
    const PixelIndex pixel_index{FastDivisor(shape.q()), FastDivisor(shape.p())};
    run_wgrad<Math, Pixels>(wgrad_product<Math>(shape), x, dy, pixel_index,
                            is_vectorisable(shape.group_k(), dy), dw, workspace, stream);
}

template decltype(conv2d_weight_grad<Fp32>) conv2d_weight_grad<Fp32>;
template decltype(conv2d_weight_grad<Tf32>) conv2d_weight_grad<Tf32>;
template decltype(conv2d_weight_grad<Bf16>) conv2d_weight_grad<Bf16>;
template decltype(conv2d_weight_grad_workspace<Fp32>) conv2d_weight_grad_workspace<Fp32>;
template decltype(conv2d_weight_grad_workspace<Tf32>) conv2d_weight_grad_workspace<Tf32>;
template decltype(conv2d_weight_grad_workspace<Bf16>) conv2d_weight_grad_workspace<Bf16>;

}  // namespace zfcuda
