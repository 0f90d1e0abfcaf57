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
#include "conv_operands.cuh"
#include "conv_phases.cuh"
#include "conv_plan.h"
#include "ops.h"

namespace zfcuda {
namespace conv {
namespace {

template <class Tile, int VA, int VB>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    dgrad_kernel(ConvShape shape, PhaseGrid grid, WindowedImage y, const float* w,
                 Epilogue epilogue, float* x, int slices_per_split) {
    using A = Windows<Tile, VA>;
    using B = TransposedFilters<Tile, VB>;

    const PhaseTile at(grid);
    const Phase phase(shape, grid, at.phase_h, at.phase_w);
    const int first_row = at.tile_m * Tile::kRows, first_col = at.tile_n * Tile::kCols;
    if (first_row >= phase.pixels(shape.n)) return;  // a phase smaller than the first
    const DepthRange range(phase.depth(shape.k), Tile::kDepth, slices_per_split);
    x += static_cast<std::size_t>(blockIdx.y) * shape.n * shape.h * shape.w * shape.c;

    auto* rows = simt::dynamic_shared<WindowRow>();
    float* buffers = reinterpret_cast<float*>(rows + Tile::kRows);
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads)
        rows[i] = phase.window(shape, first_row + i);
    __syncthreads();

    A a(phase.windows(y, shape.k), rows, range.first);
    B b(shape, phase.taps(shape), w, first_col, range.first);
    float acc[Tile::kThreadM][Tile::kThreadN];
    multiply<Tile>(a, b, range.slices, buffers, acc);

    store_tile<Tile, typename A::Layout>(
        acc, [&](int row) { return rows[row].output; }, first_col, shape.c, epilogue,
        x + first_col);
}

template <class Tile, int VA, int VB>
void launch_dgrad(const ConvShape& shape, const Plan& plan, const float* y, const float* w,
                  const Epilogue& epilogue, float* x, Stream stream) {
    using Buffers = Pipeline<Tile, Windows<Tile, VA>, TransposedFilters<Tile, VB>>;
    const std::size_t shared = sizeof(WindowRow) * Tile::kRows + sizeof(float) * Buffers::kFloats;
    const PhaseGrid grid(shape, Tile::kRows, Tile::kCols);
    const WindowedImage image{y, shape.p(), shape.q() * shape.k, 0, 0};
    simt::launch<dgrad_kernel<Tile, VA, VB>>(dim3(grid.blocks(), plan.splits), dim3(Tile::kThreads),
                                             shared, stream, shape, grid, image, w, epilogue, x,
                                             plan.slices_per_split);
}

}  // namespace
}  // namespace conv

std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    shape.check();
    const std::size_t size = static_cast<std::size_t>(shape.n) * shape.h * shape.w * shape.c;
    return conv::partial_sums_bytes(conv::plan_dgrad(shape), size);
}

void conv_transpose2d(const ConvShape& shape, const float* y, const float* w, float* x,
                      void* workspace, Stream stream) {
    using namespace conv;
    const Plan plan = plan_dgrad(shape);
    const bool wide_y = shape.k % 4 == 0 && aligned_for_vectors(y);
    const bool wide_w = shape.c % 4 == 0 && aligned_for_vectors(w);
    const Epilogue whole{nullptr, false, shape.c % 4 == 0 && aligned_for_vectors(x)};
    const Epilogue part{nullptr, false, shape.c % 4 == 0};
    const bool split = plan.splits > 1;
    float* const target = split ? static_cast<float*>(workspace) : x;
    with_tile(DgradTiles{}, plan, [&](auto tile) {
        using Tile = decltype(tile);
        // The filters of a narrow tile are too small a part of its copies for 16-byte ones to
        // matter.
        constexpr int kWideB = Tile::kCols >= 32 ? 4 : 1;
        const auto launch = wide_y && (wide_w || kWideB == 1) ? launch_dgrad<Tile, 4, kWideB>
                                                              : launch_dgrad<Tile, 1, 1>;
        launch(shape, plan, y, w, split ? part : whole, target, stream);
    });
    if (split) {
        add_splits(plan.splits, std::int64_t{shape.n} * shape.h * shape.w * shape.c, shape.c,
                   target, whole, x, stream);
    }
}

}  // namespace zfcuda
