// Weight gradient of a convolution:
//
//   dw[k,r,s,c] = sum over n,p,q of x[n, h, w, c] * dy[n,p,q,k]
//                 h = p*stride_h - pad_h + r,  w = q*stride_w - pad_w + s
//
// as the product of dy transposed (rows: K) with the windows of x (cols: R*S*C) over the depth
// N*P*Q. The result is small and the depth is huge, so the depth is split over many blocks, whose
// partial sums conv_splits.cu adds in a fixed order: no atomics, the same bits every time. Both
// operands are contiguous along their rows, so slices are copied as they lie in memory. Bound:
// 2*N*P*Q*K*R*S*C flops; x and dy are read once per tile of dw, mostly from L2.
//
// dy is an operand of its own kind: `Pixels` reads it from memory, `UnpooledPixels`
// (block_unpool.cuh) through the switches of a pooled gradient.
#pragma once

#include "conv_operands.cuh"
#include "conv_plan.h"
#include "ops.h"

namespace zfcuda::conv {

using WgradTiles = TileList<Tile128x128, Tile96x160, Tile64x32>;

inline Plan plan_wgrad(const ConvShape& s) {
    return make_plan(WgradTiles{}, 1, s.k, s.r * s.s * s.c, s.n * s.p() * s.q());
}

template <class Tile, class A, int V>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    wgrad_kernel(ConvShape shape, PixelIndex index, const float* x, typename A::Source dy,
                 Epilogue epilogue, float* dw, int slices_per_split) {
    using B = PixelWindows<Tile, V>;

    const int pixels = shape.n * shape.p() * shape.q();
    const int cols = shape.r * shape.s * shape.c;
    const int tiles_n = divide_up(cols, Tile::kCols);
    const int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n;
    const int first_row = tile_m * Tile::kRows, first_col = tile_n * Tile::kCols;
    const DepthRange range(pixels, Tile::kDepth, slices_per_split);
    dw += static_cast<std::size_t>(blockIdx.y) * shape.k * cols;

    A a(dy, index, pixels, shape.k, first_row, range.first);
    B b(shape, index, x, pixels, first_col, range.first);
    float acc[Tile::kThreadM][Tile::kThreadN];
    multiply<Tile>(a, b, range.slices, simt::dynamic_shared<float>(), acc);

    const auto offset = [&](int row) {
        const int k = first_row + row;
        return k < shape.k ? static_cast<std::uint32_t>(k) * cols : kNoRow;
    };
    store_tile<Tile, typename A::Layout>(acc, offset, first_col, cols, epilogue, dw + first_col);
}

template <class Tile, class A, int V>
void launch_wgrad(const ConvShape& shape, const Plan& plan, const float* x,
                  const typename A::Source& dy, const Epilogue& epilogue, float* dw,
                  Stream stream) {
    using Buffers = Pipeline<Tile, A, PixelWindows<Tile, V>>;
    const PixelIndex index{FastDivisor(shape.q()), FastDivisor(shape.p())};
    const int tiles =
        divide_up(shape.k, Tile::kRows) * divide_up(shape.r * shape.s * shape.c, Tile::kCols);
    simt::launch<wgrad_kernel<Tile, A, V>>(dim3(tiles, plan.splits), dim3(Tile::kThreads),
                                           sizeof(float) * Buffers::kFloats, stream, shape, index,
                                           x, dy, epilogue, dw, plan.slices_per_split);
}

// The whole operation, with dy from `Gradient<Tile, V>`; `wide_dy`: it allows V = 4.
template <template <class, int> class Gradient, class Source>
void weight_grad(const ConvShape& shape, const float* x, const Source& dy, bool wide_dy, float* dw,
                 void* workspace, Stream stream) {
    const Plan plan = plan_wgrad(shape);
    const int cols = shape.r * shape.s * shape.c;
    const bool wide_x = shape.c % 4 == 0 && aligned_for_vectors(x);
    const Epilogue whole{nullptr, false, cols % 4 == 0 && aligned_for_vectors(dw)};
    const Epilogue part{nullptr, false, cols % 4 == 0};
    const bool split = plan.splits > 1;
    float* const target = split ? static_cast<float*>(workspace) : dw;
    with_tile(WgradTiles{}, plan, [&](auto tile) {
        using Tile = decltype(tile);
        const auto launch = !wide_dy  ? launch_wgrad<Tile, Gradient<Tile, 1>, 1>
                            : !wide_x ? launch_wgrad<Tile, Gradient<Tile, 4>, 1>
                                      : launch_wgrad<Tile, Gradient<Tile, 4>, 4>;
        launch(shape, plan, x, dy, split ? part : whole, target, stream);
    });
    if (split) {
        add_splits(plan.splits, std::int64_t{shape.k} * cols, cols, target, whole, dw, stream);
    }
}

}  // namespace zfcuda::conv
