// Convolution, forward:
//
//   y[n,p,q,k] = act(add[n,p,q,k] + b[k] + scale[k] * sum over r,s,c of x[n, h, w, c] * w[k,r,s,c])
//                h = p*stride_h - pad_top + r*dilation_h,  w = q*stride_w - pad_left + s*dilation_w
//
// as the product of the windows of x, one per output pixel (rows: N*P*Q), with the filters (cols:
// K) over the depth R*S*C. A block computes one tile; blocks that share windows are neighbours in
// launch order, so x is read from DRAM about once. Groups are as many such products, each of its own
// channels and filters. Bound: 2*N*P*Q*K*R*S*C flops; x, w and y once each in bytes.
#pragma once

#include "main_loop.cuh"
#include "run_product.cuh"
#include "tiles.cuh"
#include "windows.cuh"

namespace zfcuda::conv {

// Filters, one per row (B of fprop): value (k, depth) is w[k * pitch + depth].
template <class Tile, int V>
class Filters {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template KMajor<Tile::kCols>;

    __device__ Filters(const Element* w, int filters, int pitch, int first, int depth)
        : w_(w),
          rows_(filters - first),
          pitch_(pitch),
          depth_(depth + Copy::depth()),
          offset_(static_cast<std::uint32_t>(first + Copy::row(0)) * pitch + depth_) {}

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int row = Copy::row(pass);
            if (!Copy::has(pass)) break;
            const bool valid = (row < rows_) & (depth_ < pitch_);
            const std::uint32_t at =
                offset_ + static_cast<std::uint32_t>(pass * Copy::kRowsPerPass) * pitch_;
            copies.copy(pass, w_ + (valid ? at : 0), valid);
        }
        copies.finish();
        depth_ += Tile::kDepth;
        offset_ += Tile::kDepth;
    }

  private:
    using Copy = KMajorCopy<Tile, Tile::kCols, V>;
    const Element* w_;
    int rows_, pitch_, depth_;
    std::uint32_t offset_;
};

// `Dense`: the shape is.
template <class Tile, int V, bool Dense>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_kernel(ConvShape shape, const typename Tile::Element* x, const typename Tile::Element* w,
                 Epilogue<typename Tile::Element> epilogue, typename Tile::Element* y,
                 TiledWork work) {
    using A = WindowsOf<Tile, V, Dense>;
    using B = Filters<Tile, V>;
    using Loop = typename Tile::template Loop<A, B>;

    // Where am I: the group, the tile of its part of y, and the range of the depth.
    const auto index = work.at(blockIdx.x);
    const int P = shape.p(), Q = shape.q();
    const int pixels = shape.n * P * Q;
    const int group_c = Dense ? shape.c : shape.group_c();
    const int group_k = Dense ? shape.k : shape.group_k();
    const int depth = shape.r * shape.s * group_c;
    const int tiles_n = divide_up(group_k, Tile::kCols);
    const int tiles = tiles_n * divide_up(pixels, Tile::kRows);
    const int group = Dense ? 0 : index.tile / tiles;
    const unsigned tile = index.tile - group * tiles;
    const int tile_m = tile / tiles_n, tile_n = tile - tile_m * tiles_n;
    const DepthRange range(index, depth, Tile::kDepth, work.k_tiles_per_split);

    const auto image = [&] {
        if constexpr (Dense) {
            return WindowedImage<typename Tile::Element>{x, shape.h, shape.w * shape.c, shape.r,
                                                         shape.s * shape.c};
        } else {
            return TappedImage<typename Tile::Element>{
                x + group * group_c, shape.h,          shape.w, shape.c, shape.r, shape.s,
                shape.dilation_h,    shape.dilation_w, group_c};
        }
    }();

    auto* rows = simt::dynamic_shared<WindowRow>();
    auto* stages = reinterpret_cast<typename Tile::Element*>(rows + Tile::kRows);
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads) {
        const int pixel = tile_m * Tile::kRows + i;
        rows[i] = no_window_row();
        if (pixel < pixels) {
            const int row = pixel / Q, n = row / P, p = row - n * P, q = pixel - row * Q;
            const int h0 = p * shape.stride_h - shape.pad_top;
            const int w0 = q * shape.stride_w - shape.pad_left;
            const std::uint32_t output =
                static_cast<std::uint32_t>(pixel) * epilogue.pitch + group * group_k;
            if constexpr (Dense)
                rows[i] = window_row(n, h0, w0, shape.h, shape.w, shape.c, shape.s, output);
            else
                rows[i] = tap_window_row(image, n, h0, w0, output);
        }
    }
    __syncthreads();

    // Load and compute.
    A a(image, rows, range.first);
    B b(w + static_cast<std::size_t>(group) * group_k * depth, group_k, depth, tile_n * Tile::kCols,
        range.first);
    typename Loop::Accumulators acc;
    Loop::run(a, b, range.k_tiles, stages, acc);

    if (epilogue.scale) epilogue.scale += group * group_k;
    if (epilogue.bias) epilogue.bias += group * group_k;
    store_part<Tile, Loop>(
        work, index, acc, [&](int row) { return rows[row].output; }, tile_n * Tile::kCols, group_k,
        epilogue, y);
}

template <class Tile, int V, bool Dense, class T>
void launch_fprop(const ConvShape& shape, const T* x, const T* w, const Launch<T>& launch) {
    using Loop = typename Tile::template Loop<WindowsOf<Tile, V, Dense>, Filters<Tile, V>>;
    simt::launch<fprop_kernel<Tile, V, Dense>>(dim3(launch.work.count()), dim3(Tile::kThreads),
                                               sizeof(WindowRow) * Tile::kRows + Loop::kBytes,
                                               launch.stream, shape, x, w, launch.epilogue,
                                               launch.y, launch.work);
}

// Defined in fprop_sm90a.cu.
extern template void launch_fprop<Wgmma192x256<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                               const BFloat16*,
                                                               const Launch<BFloat16>&);
extern template void launch_fprop<Wgmma128x256<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                               const BFloat16*,
                                                               const Launch<BFloat16>&);
extern template void launch_fprop<Wgmma128x128<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                               const BFloat16*,
                                                               const Launch<BFloat16>&);

}  // namespace zfcuda::conv
