// Weight gradient of a convolution:
//
//   dw[k,r,s,c] = sum over n,p,q of x[n, h, w, c] * dy[n,p,q,k]
//                 h = p*stride_h - pad_h + r,  w = q*stride_w - pad_w + s
//
// as the product of dy transposed (rows: K) with the windows of x (cols: R*S*C) over the depth
// N*P*Q. The result is small and the depth is huge, so the depth is split over many blocks, whose
// partial sums splits.cu adds in a fixed order: no atomics, the same bits every time. Both
// operands are contiguous along their rows, so slices are copied as they lie in memory. Bound:
// 2*N*P*Q*K*R*S*C flops; x and dy are read once per tile of dw, mostly from L2.
//
// dy is an operand of its own kind: `Pixels` reads it from memory, `UnpooledPixels`
// (unpooled_map.cuh) through the switches of a pooled gradient.
#pragma once

#include "operands.cuh"
#include "plan.h"

namespace zfcuda {
namespace conv {

inline ProductSize wgrad_size(const ConvShape& s) {
    return {1, s.k, s.r * s.s * s.c, s.n * s.p() * s.q()};
}

template <class Math>
Problem wgrad_problem(const ConvShape& s) {
    return {Operation::kConv2dWeightGrad, Tiles<Math>::kPrecision, s, {}};
}

template <class Tile, class A, int V>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    wgrad_kernel(ConvShape shape, PixelIndex index, const typename Tile::Element* x,
                 typename A::Source dy, Epilogue epilogue, float* dw, int slices_per_split) {
    using B = PixelWindows<Tile, V>;

    const int pixels = shape.n * shape.p() * shape.q();
    const int cols = shape.r * shape.s * shape.c;
    const int tiles_n = divide_up(cols, Tile::kCols);
    const int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n;
    const int first_row = tile_m * Tile::kRows, first_col = tile_n * Tile::kCols;
    const DepthRange range(pixels, Tile::kDepth, slices_per_split);

    A a(dy, index, pixels, shape.k, first_row, range.first);
    B b(shape, index, x, pixels, first_col, range.first);
    typename Tile::Sums sums;
    multiply<Tile>(a, b, range.slices, simt::dynamic_shared<typename Tile::Element>(), sums);

    const auto offset = [&](int row) {
        const int k = first_row + row;
        return k < shape.k ? static_cast<std::uint32_t>(k) * cols : kNoRow;
    };
    store_split<ProductOf<Tile, A, B>>(sums, offset, first_col, cols, epilogue, dw,
                                       static_cast<std::size_t>(shape.k) * cols);
}

template <class Tile, class A, int V>
void launch_wgrad(const ConvShape& shape, const Plan& plan, const typename Tile::Element* x,
                  const typename A::Source& dy, const Epilogue& epilogue, float* dw,
                  Stream stream) {
    using Buffers = Pipeline<Tile, A, PixelWindows<Tile, V>>;
    const PixelIndex index{FastDivisor(shape.q()), FastDivisor(shape.p())};
    const int tiles =
        divide_up(shape.k, Tile::kRows) * divide_up(shape.r * shape.s * shape.c, Tile::kCols);
    simt::launch<wgrad_kernel<Tile, A, V>>(dim3(tiles, plan.splits), dim3(Tile::kThreads),
                                           Buffers::kBytes, stream, shape, index, x, dy, epilogue,
                                           dw, plan.slices_per_split);
}

template <class Math>
std::size_t weight_grad_workspace(const Problem& problem) {
    const ConvShape& shape = problem.conv;
    const ProductSize product = wgrad_size(shape);
    const std::size_t size = static_cast<std::size_t>(shape.k) * shape.r * shape.s * shape.c;
    return partial_sums_bytes({make_plan(typename Tiles<Math>::Wgrad{}, problem, product),
                               make_plan(typename Tiles<Math>::WgradFirst{}, problem, product),
                               make_plan(typename Tiles<Math>::WgradNarrow{}, problem, product)},
                              size);
}

// The whole operation, with dy from `Gradient<Tile, V>`; `wide_dy`: it allows 16-byte copies.
template <class Math, template <class, int> class Gradient, class T, class Source>
void weight_grad(const Problem& problem, const T* x, const Source& dy, bool wide_dy, float* dw,
                 void* workspace, Stream stream) {
    const ConvShape& shape = problem.conv;
    const int cols = shape.r * shape.s * shape.c;
    const bool wide_x = is_wide(shape.c, x);
    with_wgrad_tiles<Math>(wide_dy, wide_x, [&](auto tiles, auto width_dy, auto width_x) {
        const Plan plan = make_plan(tiles, problem, wgrad_size(shape));
        const bool split = plan.splits > 1;
        const Epilogue whole{nullptr, false, cols % 4 == 0 && aligned_for_vectors(dw)};
        const Epilogue part{nullptr, false, cols % 4 == 0};
        float* const target = split ? static_cast<float*>(workspace) : dw;
        with_tile(tiles, plan, [&](auto tile) {
            using Tile = decltype(tile);
            using A = Gradient<Tile, decltype(width_dy)::value>;
            launch_wgrad<Tile, A, decltype(width_x)::value>(shape, plan, x, dy,
                                                            split ? part : whole, target, stream);
        });
        if (split)
            add_splits(plan.splits, std::int64_t{shape.k} * cols, cols, target, whole, dw, stream);
    });
}

}  // namespace conv

template <class Math>
std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    shape.check();
    return conv::weight_grad_workspace<Math>(conv::wgrad_problem<Math>(shape));
}

template <class Math>
void conv2d_weight_grad(const ConvShape& shape, const Element<Math>* x, const Element<Math>* dy,
                        float* dw, void* workspace, Stream stream) {
    conv::weight_grad<Math, conv::Pixels>(conv::wgrad_problem<Math>(shape), x, dy,
                                          conv::is_wide(shape.k, dy), dw, workspace, stream);
}

}  // namespace zfcuda
