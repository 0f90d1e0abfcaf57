// conv2d_weight_grad: see wgrad.cuh.
#include "wgrad.cuh"

#include "wgrad_patch.cuh"

namespace zfcuda {

template <class Math>
std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    shape.check();
    std::size_t bytes = conv::product_workspace(typename conv::Tiles<Math>::Wgrad{},
                                                conv::wgrad_product<Math>(shape));
    // Arrays that are not aligned go by the former.
    if (const auto plan = conv::wgrad_patch_plan<Math>(shape))
        bytes = std::max(bytes, conv::wgrad_patch_workspace<Math>(shape, *plan));
    return bytes;
}

template <class Math>
void conv2d_weight_grad(const ConvShape& shape, const Element<Math>* x, const Element<Math>* dy,
                        float* dw, void* workspace, Stream stream) {
    using namespace conv;
    if (const auto plan = wgrad_patch_plan<Math>(shape); plan && is_vectorisable(shape.k, dy))
        return wgrad_patch<Math>(shape, *plan, x, dy, dw, workspace, stream);
    const PixelIndex pixel_index{FastDivisor(shape.q()), FastDivisor(shape.p())};
    run_wgrad<Math, Pixels>(typename Tiles<Math>::Wgrad{}, wgrad_product<Math>(shape), x, dy,
                            pixel_index, is_vectorisable(shape.group_k(), dy), dw, workspace,
                            stream);
}

template decltype(conv2d_weight_grad<Fp32>) conv2d_weight_grad<Fp32>;
template decltype(conv2d_weight_grad<Tf32>) conv2d_weight_grad<Tf32>;
template decltype(conv2d_weight_grad<Bf16>) conv2d_weight_grad<Bf16>;
template decltype(conv2d_weight_grad_workspace<Fp32>) conv2d_weight_grad_workspace<Fp32>;
template decltype(conv2d_weight_grad_workspace<Tf32>) conv2d_weight_grad_workspace<Tf32>;
template decltype(conv2d_weight_grad_workspace<Bf16>) conv2d_weight_grad_workspace<Bf16>;

}  // namespace zfcuda
