// Transposed convolution: the data gradient, and the deconvnet's filtering.
//
//   x[n,h,w,c] = sum of y[n,p,q,k] * w[k,r,s,c] over h = p*stride_h - pad_h + r,
//                                                    w = q*stride_w - pad_w + s
//
// Cut by phases. The pixels h = a, a + stride, ... meet the same filter rows r = f, f + stride,
// ..., f = (a + pad) mod stride, each one row of y further up: so every phase (a_h, a_w) is a dense
// convolution of stride 1 over y, and no zero is multiplied. A phase without taps (stride > filter)
// has depth 0 and yields zeros. Taken last tap first, the taps of one filter row lie side by side
// in y: the operand is the same `Windows` as in the forward direction. Each phase is a product: its
// pixels (rows) with the channels C (cols) over its taps x K (depth). Phases are the fastest index
// of the grid: those of one region run together and share y in L2. Bound: 2*N*P*Q*K*R*S*C flops; y,
// w and x once each in bytes.
#pragma once

#include "operands.cuh"
#include "phases.cuh"
#include "plan.h"

namespace zfcuda {
namespace conv {

template <class Tile, int VA, int VB>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    dgrad_kernel(ConvShape shape, PhaseGrid grid, WindowedImage<typename Tile::Element> y,
                 const typename Tile::Element* w, Epilogue epilogue, typename Tile::Element* x,
                 int slices_per_split) {
    using A = Windows<Tile, VA>;
    using B = TransposedFilters<Tile, VB>;

    const PhaseTile at(grid);
    const Phase phase(shape, grid, at.phase_h, at.phase_w);
    const int first_row = at.tile_m * Tile::kRows, first_col = at.tile_n * Tile::kCols;
    if (first_row >= phase.pixels(shape.n)) return;  // a phase smaller than the first
    const DepthRange range(phase.depth(shape.k), Tile::kDepth, slices_per_split);

    auto* rows = simt::dynamic_shared<WindowRow>();
    auto* buffers = reinterpret_cast<typename Tile::Element*>(rows + Tile::kRows);
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads)
        rows[i] = phase.window(shape, first_row + i);
    __syncthreads();

    A a(phase.windows(y, shape.k), rows, range.first);
    B b(shape, phase.taps(shape), w, first_col, range.first);
    typename Tile::Sums sums;
    multiply<Tile>(a, b, range.slices, buffers, sums);

    store_split<ProductOf<Tile, A, B>>(
        sums, [&](int row) { return rows[row].output; }, first_col, shape.c, epilogue, x,
        static_cast<std::size_t>(shape.n) * shape.h * shape.w * shape.c);
}

template <class Tile, int VA, int VB>
void launch_dgrad(const ConvShape& shape, const Plan& plan, const typename Tile::Element* y,
                  const typename Tile::Element* w, const Epilogue& epilogue,
                  typename Tile::Element* x, Stream stream) {
    using Buffers = Pipeline<Tile, Windows<Tile, VA>, TransposedFilters<Tile, VB>>;
    const std::size_t shared = sizeof(WindowRow) * Tile::kRows + Buffers::kBytes;
    const PhaseGrid grid(shape, Tile::kRows, Tile::kCols);
    const WindowedImage<typename Tile::Element> image{y, shape.p(), shape.q() * shape.k, 0, 0};
    simt::launch<dgrad_kernel<Tile, VA, VB>>(dim3(grid.blocks(), plan.splits), dim3(Tile::kThreads),
                                             shared, stream, shape, grid, image, w, epilogue, x,
                                             plan.slices_per_split);
}

}  // namespace conv

template <class Math>
std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    using namespace conv;
    shape.check();
    const std::size_t size = static_cast<std::size_t>(shape.n) * shape.h * shape.w * shape.c;
    return partial_sums_bytes({plan_dgrad<Math>(typename Tiles<Math>::Dgrad{}, shape),
                               plan_dgrad<Math>(typename Tiles<Math>::DgradFirst{}, shape),
                               plan_dgrad<Math>(typename Tiles<Math>::DgradNarrow{}, shape)},
                              size);
}

template <class Math>
void conv_transpose2d(const ConvShape& shape, const Element<Math>* y, const Element<Math>* w,
                      Element<Math>* x, void* workspace, Stream stream) {
    using T = Element<Math>;
    using namespace conv;
    const bool wide_y = is_wide(shape.k, y), wide_w = is_wide(shape.c, w);
    with_dgrad_tiles<Math>(wide_y, wide_w, [&](auto tiles, auto width_y, auto width_w) {
        const Plan plan = plan_dgrad<Math>(tiles, shape);
        const bool split = plan.splits > 1;
        const Epilogue whole{nullptr, false, shape.c % 4 == 0 && aligned_for_vectors(x)};
        const Epilogue part{nullptr, false, shape.c % 4 == 0};
        with_tile(tiles, plan, [&](auto tile) {
            using Tile = decltype(tile);
            // The filters of a narrow tile are too small a part of its copies for wide ones to
            // matter.
            constexpr int kW = Tile::kCols < 32 ? 1 : decltype(width_w)::value;
            launch_dgrad<Tile, decltype(width_y)::value, kW>(
                shape, plan, y, w, split ? part : whole, split ? static_cast<T*>(workspace) : x,
                stream);
        });
        if (split) {
            add_splits(plan.splits, std::int64_t{shape.n} * shape.h * shape.w * shape.c, shape.c,
                       static_cast<float*>(workspace), whole, x, stream);
        }
    });
}

}  // namespace zfcuda
