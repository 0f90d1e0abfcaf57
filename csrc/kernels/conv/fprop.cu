// conv2d: see fprop.cuh.
#include "fprop.cuh"

#include "conv_tma.h"
#include "fprop_patch.cuh"

namespace zfcuda {

template <class Math>
std::size_t conv2d_workspace(const ConvShape& shape) {
    shape.check();
    if (const auto plan = conv::fprop_patch_plan<Math>(shape))
        return conv::fprop_patch_workspace<Math>(shape, *plan);
    std::size_t bytes = 0;
    conv::with_fprop_tiles<Math>(shape, [&](auto lists) {
        bytes = conv::product_workspace(lists, conv::fprop_product<Math>(shape));
    });
    return bytes;
}

template <class Math>
void conv2d(const ConvShape& shape, const Element<Math>* x, const Element<Math>* w, const float* b,
            const float* scale, const Element<Math>* add, bool relu, int y_pitch, Element<Math>* y,
            void* workspace, Stream stream) {
    using namespace conv;
    if (const auto plan = fprop_patch_plan<Math>(shape)) {
        const bool vectorised = shape.k % 4 == 0 && y_pitch % 4 == 0 && aligned_for_vectors(y, add);
        const Epilogue<Element<Math>> epilogue{scale, b, add, relu, vectorised, y_pitch};
        return fprop_patch<Math>(shape, *plan, x, w, epilogue, y, workspace, stream);
    }
    with_fprop_tiles<Math>(shape, [&](auto lists) {
        constexpr bool kDense = std::is_same_v<decltype(lists), typename Tiles<Math>::Fprop>;
        run_product(lists, fprop_product<Math>(shape), is_vectorisable(shape.group_c(), x),
                    is_vectorisable(shape.group_c(), w), {scale, b, add, relu}, y, y_pitch,
                    workspace, stream, [&](auto tile, auto width, auto, const auto& launch) {
                        using Tile = decltype(tile);
                        if constexpr (Tile::kMainLoop == MainLoop::kTma)
                            launch_fprop_tma<Tile>(shape, x, w, launch);
                        else
                            launch_fprop<Tile, width, kDense>(shape, x, w, launch);
                    });
    });
}

template decltype(conv2d<Fp32>) conv2d<Fp32>;
template decltype(conv2d<Tf32>) conv2d<Tf32>;
template decltype(conv2d<Bf16>) conv2d<Bf16>;
template decltype(conv2d_workspace<Fp32>) conv2d_workspace<Fp32>;
template decltype(conv2d_workspace<Tf32>) conv2d_workspace<Tf32>;
template decltype(conv2d_workspace<Bf16>) conv2d_workspace<Bf16>;

}  // namespace zfcuda
