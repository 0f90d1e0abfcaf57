// Convolution, forward:
//
//   y[n,p,q,k] = act(b[k] + sum over r,s,c of x[n, h, w, c] * w[k,r,s,c])
//                h = p*stride_h - pad_h + r,  w = q*stride_w - pad_w + s
//
// as the product of the windows of x, one per output pixel (rows: N*P*Q), with the filters (cols:
// K) over the depth R*S*C; conv_gemm.cuh multiplies, conv_operands.cuh finds the windows. A block
// computes one tile; blocks that share windows are neighbours in launch order, so x is read from
// DRAM about once. Bound: 2*N*P*Q*K*R*S*C flops; x, w and y once each in bytes.
#include "conv_operands.cuh"
#include "conv_plan.h"
#include "ops.h"

namespace zfcuda {
namespace conv {
namespace {

Plan plan_fprop(const ConvShape& s) {
    return make_plan(FpropTiles{}, 1, s.n * s.p() * s.q(), s.k, s.r * s.s * s.c);
}

template <class Tile, int V>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_kernel(ConvShape shape, const float* x, const float* w, Epilogue epilogue, float* y,
                 int slices_per_split) {
    using A = Windows<Tile, V>;
    using B = Filters<Tile, V>;

    // Where am I: the tile of y, and the range of the depth.
    const int P = shape.p(), Q = shape.q();
    const int pixels = shape.n * P * Q;
    const int depth = shape.r * shape.s * shape.c;
    const int tiles_n = divide_up(shape.k, Tile::kCols);
    const int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n;
    const DepthRange range(depth, Tile::kDepth, slices_per_split);
    y += static_cast<std::size_t>(blockIdx.y) * pixels * shape.k;

    auto* rows = simt::dynamic_shared<WindowRow>();
    float* buffers = reinterpret_cast<float*>(rows + Tile::kRows);
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
    const WindowedImage image{x, shape.h, shape.w * shape.c, shape.r, shape.s * shape.c};
    A a(image, rows, range.first);
    B b(w, shape.k, depth, tile_n * Tile::kCols, range.first);
    float acc[Tile::kThreadM][Tile::kThreadN];
    multiply<Tile>(a, b, range.slices, buffers, acc);

    store_tile<Tile, typename A::Layout>(
        acc, [&](int row) { return rows[row].output; }, tile_n * Tile::kCols, shape.k, epilogue,
        y + tile_n * Tile::kCols);
}

template <class Tile, int V>
void launch_fprop(const ConvShape& shape, const Plan& plan, const float* x, const float* w,
                  const Epilogue& epilogue, float* y, Stream stream) {
    using Buffers = Pipeline<Tile, Windows<Tile, V>, Filters<Tile, V>>;
    const int tiles =
        divide_up(shape.n * shape.p() * shape.q(), Tile::kRows) * divide_up(shape.k, Tile::kCols);
    const std::size_t shared = sizeof(WindowRow) * Tile::kRows + sizeof(float) * Buffers::kFloats;
    simt::launch<fprop_kernel<Tile, V>>(dim3(tiles, plan.splits), dim3(Tile::kThreads), shared,
                                        stream, shape, x, w, epilogue, y, plan.slices_per_split);
}

}  // namespace
}  // namespace conv

std::size_t conv2d_workspace(const ConvShape& shape) {
    shape.check();
    const std::size_t size = static_cast<std::size_t>(shape.n) * shape.p() * shape.q() * shape.k;
    return conv::partial_sums_bytes(conv::plan_fprop(shape), size);
}

void conv2d(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
            float* y, void* workspace, Stream stream) {
    using namespace conv;
    const Plan plan = plan_fprop(shape);
    const bool wide_in = shape.c % 4 == 0 && aligned_for_vectors(x, w);
    const Epilogue whole{b, relu, shape.k % 4 == 0 && aligned_for_vectors(y)};
    const Epilogue part{nullptr, false, shape.k % 4 == 0};
    const bool split = plan.splits > 1;
    float* const target = split ? static_cast<float*>(workspace) : y;
    with_tile(FpropTiles{}, plan, [&](auto tile) {
        using Tile = decltype(tile);
        const auto launch = wide_in ? launch_fprop<Tile, 4> : launch_fprop<Tile, 1>;
        launch(shape, plan, x, w, split ? part : whole, target, stream);
    });
    if (split) {
        add_splits(plan.splits, std::int64_t{shape.n} * shape.p() * shape.q() * shape.k, shape.k,
                   target, whole, y, stream);
    }
}

}  // namespace zfcuda
