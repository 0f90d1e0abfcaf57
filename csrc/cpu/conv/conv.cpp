// conv2d, its transpose and its weight gradient on the CPU, each by the method that methods.cpp
// chooses.
#include "../../ops.h"
#include "methods.h"

namespace zfcuda {
namespace {

using namespace conv;

std::size_t workspace_bytes(const ConvShape& shape, Direction direction) {
    return sizeof(float) * choose(shape, direction).workspace(shape, nullptr);
}

}  // namespace

template <class Precision>
std::size_t conv2d_workspace(const ConvShape& s) {
    return workspace_bytes(s, Direction::kFprop);
}

template <class Precision>
void conv2d(const ConvShape& s, const Element<Precision>* x, const Element<Precision>* w,
            const float* b, const float* scale, const Element<Precision>* add, bool relu,
            int y_pitch, Element<Precision>* y, void* workspace, Stream) {
    choose(s, Direction::kFprop)
        .compute({s, s.n, x, w, nullptr, y, static_cast<float*>(workspace), b, scale, add, relu,
                  y_pitch});
}

template <class Precision>
std::size_t conv_transpose2d_workspace(const ConvShape& s) {
    return workspace_bytes(s, Direction::kDgrad);
}

template <class Precision>
void conv_transpose2d(const ConvShape& s, const Element<Precision>* y, const Element<Precision>* w,
                      Element<Precision>* x, void* workspace, Stream) {
    choose(s, Direction::kDgrad)
        .compute({s, s.n, nullptr, w, y, x, static_cast<float*>(workspace)});
}

template <class Precision>
std::size_t conv2d_weight_grad_workspace(const ConvShape& s) {
    return workspace_bytes(s, Direction::kWgrad);
}

template <class Precision>
void conv2d_weight_grad(const ConvShape& s, const Element<Precision>* x,
                        const Element<Precision>* dy, float* dw, void* workspace, Stream) {
    choose(s, Direction::kWgrad)
        .compute({s, s.n, x, nullptr, dy, dw, static_cast<float*>(workspace)});
}

template decltype(conv2d_workspace<Fp32>) conv2d_workspace<Fp32>;
template decltype(conv2d<Fp32>) conv2d<Fp32>;
template decltype(conv_transpose2d_workspace<Fp32>) conv_transpose2d_workspace<Fp32>;
template decltype(conv_transpose2d<Fp32>) conv_transpose2d<Fp32>;
template decltype(conv2d_weight_grad_workspace<Fp32>) conv2d_weight_grad_workspace<Fp32>;
template decltype(conv2d_weight_grad<Fp32>) conv2d_weight_grad<Fp32>;

}  // namespace zfcuda
