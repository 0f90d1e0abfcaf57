// conv_transpose2d: see dgrad.cuh.
#include "dgrad.cuh"

#include "conv_tma.h"
#include "dgrad_patch.cuh"

namespace zfcuda {

namespace conv {

// Of the workspace, before the partial sums: for the filters that a plan turns first (conv_tma.cuh).
// Multiples of 16, as its arrays are.
template <class Math>
std::size_t turned_filter_bytes(const ConvShape& shape) {
    std::size_t bytes = 0;
    if (std::is_same_v<Math, Tf32> && shape.is_dense()) {
        const Product product = dgrad_product<Math>(shape);
        with_list(typename Tiles<Math>::Dgrad{}, shape.k % kVectorWidth<float> == 0,
                  shape.c % kVectorWidth<float> == 0, [&](auto tiles) {
                      if (make_plan(tiles, product).kernel.main_loop == MainLoop::kTma)
                          bytes = sizeof(float) * shape.k * shape.r * shape.s * shape.c;
                  });
    }
    return bytes;
}

}  // namespace conv

template <class Math>
std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    shape.check();
    std::size_t bytes = conv::turned_filter_bytes<Math>(shape);
    conv::with_dgrad_tiles<Math>(shape, [&](auto lists) {
        bytes += conv::product_workspace(lists, conv::dgrad_product<Math>(shape));
    });
    // Arrays that are not aligned go by the former.
    if (const auto plan = conv::patch_plan<Math>(shape))
        bytes = std::max(bytes, conv::dgrad_patch_workspace<Math>(shape, *plan));
    return bytes;
}

template <class Math>
void conv_transpose2d(const ConvShape& shape, const Element<Math>* y, const Element<Math>* w,
                      Element<Math>* x, void* workspace, Stream stream) {
    using namespace conv;
    if (const auto plan = patch_plan<Math>(shape); plan && is_vectorisable(shape.k, y))
        return dgrad_patch<Math>(shape, *plan, y, w, x, workspace, stream);
    auto* const turned = static_cast<Element<Math>*>(workspace);
    void* const sums = static_cast<char*>(workspace) + turned_filter_bytes<Math>(shape);
    with_dgrad_tiles<Math>(shape, [&](auto lists) {
        constexpr bool kDense = std::is_same_v<decltype(lists), typename Tiles<Math>::Dgrad>;
        run_product(lists, dgrad_product<Math>(shape), is_vectorisable(shape.group_k(), y),
                    is_vectorisable(shape.group_c(), w), {}, x, shape.c, sums, stream,
                    [&](auto tile, auto width_y, auto width_w, const auto& launch) {
                        using Tile = decltype(tile);
                        if constexpr (Tile::kMainLoop == MainLoop::kTma)
                            launch_dgrad_tma<Tile>(shape, y, w, turned, launch);
                        else
                            launch_dgrad<Tile, width_y, width_w, kDense>(shape, y, w, launch);
                    });
    });
}

template decltype(conv_transpose2d<Fp32>) conv_transpose2d<Fp32>;
template decltype(conv_transpose2d<Tf32>) conv_transpose2d<Tf32>;
template decltype(conv_transpose2d<Bf16>) conv_transpose2d<Bf16>;
template decltype(conv_transpose2d_workspace<Fp32>) conv_transpose2d_workspace<Fp32>;
template decltype(conv_transpose2d_workspace<Tf32>) conv_transpose2d_workspace<Tf32>;
template decltype(conv_transpose2d_workspace<Bf16>) conv_transpose2d_workspace<Bf16>;

}  // namespace zfcuda
