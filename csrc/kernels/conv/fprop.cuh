// Convolution, forward:
//
//   y[n,p,q,k] = act(b[k] + sum over r,s,c of x[n, h, w, c] * w[k,r,s,c])
//                h = p*stride_h - pad_h + r,  w = q*stride_w - pad_w + s
//
// as the product of the windows of x, one per output pixel (rows: N*P*Q), with the filters (cols:
// K) over the depth R*S*C; main_loop.cuh multiplies, operands.cuh finds the windows. A block
// computes one tile; blocks that share windows are neighbours in launch order, so x is read from
// DRAM about once. Bound: 2*N*P*Q*K*R*S*C flops; x, w and y once each in bytes.
#pragma once

#include "operands.cuh"
#include "plan.h"

namespace zfcuda {
namespace conv {

inline ProductSize fprop_size(const ConvShape& s) {
    return {1, s.n * s.p() * s.q(), s.k, s.r * s.s * s.c};
}

template <class Math, class List>
Plan plan_fprop(List tiles, const ConvShape& s) {
    return make_plan(tiles, {Operation::kConv2d, Tiles<Math>::kPrecision, s, {}}, fprop_size(s));
}

template <class Tile, int V>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_kernel(ConvShape shape, const typename Tile::Element* x, const typename Tile::Element* w,
                 Epilogue epilogue, typename Tile::Element* y, int slices_per_split) {
    using A = Windows<Tile, V>;
    using B = Filters<Tile, V>;
    using T = typename Tile::Element;

    // Where am I: the tile of y, and the range of the depth.
    const int P = shape.p(), Q = shape.q();
    const int pixels = shape.n * P * Q;
    const int depth = shape.r * shape.s * shape.c;
    const int tiles_n = divide_up(shape.k, Tile::kCols);
    const int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n;
    const DepthRange range(depth, Tile::kDepth, slices_per_split);

    auto* rows = simt::dynamic_shared<WindowRow>();
    auto* buffers = reinterpret_cast<T*>(rows + Tile::kRows);
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads) {
        const int pixel = tile_m * Tile::kRows + i;
        rows[i] = no_window_row();
        if (pixel < pixels) {
            const int row = pixel / Q, n = row / P, p = row - n * P, q = pixel - row * Q;
            rows[i] = window_row(n, p * shape.stride_h - shape.pad_h,
                                 q * shape.stride_w - shape.pad_w, shape.h, shape.w, shape.c,
                                 shape.s, static_cast<std::uint32_t>(pixel) * shape.k);
        }
    }
    __syncthreads();

    // Load and compute.
    const WindowedImage<T> image{x, shape.h, shape.w * shape.c, shape.r, shape.s * shape.c};
    A a(image, rows, range.first);
    B b(w, shape.k, depth, tile_n * Tile::kCols, range.first);
    typename Tile::Sums sums;
    multiply<Tile>(a, b, range.slices, buffers, sums);

    store_split<ProductOf<Tile, A, B>>(
        sums, [&](int row) { return rows[row].output; }, tile_n * Tile::kCols, shape.k, epilogue, y,
        static_cast<std::size_t>(pixels) * shape.k);
}

template <class Tile, int V>
void launch_fprop(const ConvShape& shape, const Plan& plan, const typename Tile::Element* x,
                  const typename Tile::Element* w, const Epilogue& epilogue,
                  typename Tile::Element* y, Stream stream) {
    using Buffers = Pipeline<Tile, Windows<Tile, V>, Filters<Tile, V>>;
    const int tiles =
        divide_up(shape.n * shape.p() * shape.q(), Tile::kRows) * divide_up(shape.k, Tile::kCols);
    const std::size_t shared = sizeof(WindowRow) * Tile::kRows + Buffers::kBytes;
    simt::launch<fprop_kernel<Tile, V>>(dim3(tiles, plan.splits), dim3(Tile::kThreads), shared,
                                        stream, shape, x, w, epilogue, y, plan.slices_per_split);
}

}  // namespace conv

template <class Math>
std::size_t conv2d_workspace(const ConvShape& shape) {
    using namespace conv;
    shape.check();
    const std::size_t size = static_cast<std::size_t>(shape.n) * shape.p() * shape.q() * shape.k;
    return partial_sums_bytes({plan_fprop<Math>(typename Tiles<Math>::Fprop{}, shape),
                               plan_fprop<Math>(typename Tiles<Math>::FpropNarrow{}, shape)},
                              size);
}

template <class Math>
void conv2d(const ConvShape& shape, const Element<Math>* x, const Element<Math>* w, const float* b,
            bool relu, Element<Math>* y, void* workspace, Stream stream) {
    using T = Element<Math>;
    using namespace conv;
    with_fprop_tiles<Math>(is_wide(shape.c, x, w), [&](auto tiles, auto width) {
        const Plan plan = plan_fprop<Math>(tiles, shape);
        const bool split = plan.splits > 1;
        const Epilogue whole{b, relu, shape.k % 4 == 0 && aligned_for_vectors(y)};
        const Epilogue part{nullptr, false, shape.k % 4 == 0};
        with_tile(tiles, plan, [&](auto tile) {
            launch_fprop<decltype(tile), decltype(width)::value>(
                shape, plan, x, w, split ? part : whole, split ? static_cast<T*>(workspace) : y,
                stream);
        });
        if (split) {
            add_splits(plan.splits, std::int64_t{shape.n} * shape.p() * shape.q() * shape.k,
                       shape.k, static_cast<float*>(workspace), whole, y, stream);
        }
    });
}

}  // namespace zfcuda
