// Weight gradient of a convolution:
//
//   dw[k,r,s,c] = sum over n,p,q of x[n, h, w, c] * dy[n,p,q,k]
//                 h = p*stride_h - pad_top + r*dilation_h,  w = q*stride_w - pad_left + s*dilation_w
//
// as the product of dy transposed (rows: K) with the windows of x (cols: R*S*C) over the depth
// N*P*Q. The result is small and the depth is huge, so tiles are split over many blocks, whose
// partial sums splits.cu adds in a fixed order: no atomics, the same bits every time. Both operands
// are MN-major: k-tiles are copied as they lie in memory. Bound: 2*N*P*Q*K*R*S*C flops; x and dy
// are read once per tile of dw, mostly from L2. Groups are as many such products.
//
// dy is an operand of its own kind: `Pixels` reads it from memory, `UnpooledPixels`
// (unpooled_map.cuh) through the switches of a pooled gradient, in an order of its own: `Index`
// says which pixel a depth index is.
#pragma once

#include "copies.cuh"
#include "main_loop.cuh"
#include "run_product.cuh"
#include "tiles.cuh"
#include "wgrad_tma.h"

namespace zfcuda::conv {

// Pixels (A of wgrad): value (k, pixel) is dy[pixel * channels + k].
template <class Tile, int V>
class Pixels {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template MNMajor<Tile::kRows>;
    using Source = const Element*;
    using Index = PixelIndex;

    // Channels [first, end) of them, from depth index `pixel` on; there are `pixels`.
    __device__ Pixels(Source dy, const PixelIndex&, int pixels, int channels, int first, int end,
                      int pixel)
        : dy_(dy),
          pixel_(pixel + Copy::depth(0)),
          pixels_(pixels),
          channels_(channels),
          inside_(first + Copy::row() < end),
          offset_(static_cast<std::uint32_t>(pixel_) * channels + first + Copy::row()) {}

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            if (!Copy::has(pass)) break;
            const int ahead = pass * Copy::kDepthsPerPass;
            const bool valid = inside_ & (pixel_ + ahead < pixels_);
            const std::uint32_t at = offset_ + static_cast<std::uint32_t>(ahead) * channels_;
            copies.copy(pass, dy_ + (valid ? at : 0), valid);
        }
        copies.finish();
        pixel_ += Tile::kDepth;
        offset_ += static_cast<std::uint32_t>(Tile::kDepth) * channels_;
    }

  private:
    using Copy = MNMajorCopy<Tile, Tile::kRows, V>;
    Source dy_;
    int pixel_, pixels_, channels_;
    bool inside_;
    std::uint32_t offset_;
};

// The windows of pixels (B of wgrad): value ((r, s, c), pixel) is x at tap (r, s), channel c of the
// window of that output pixel.
template <class Tile, class Index, int V>
class PixelWindows {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template MNMajor<Tile::kCols>;

    __device__ PixelWindows(const ConvShape& shape, const Index& index, const Element* x,
                            int pixels, int group, int first, int pixel)
        : x_(x), shape_(shape), index_(index), pixel_(pixel + Copy::depth(0)), pixels_(pixels) {
        const int column = first + Copy::row(), channels = shape.group_c();
        const int tap = column / channels;
        r_ = tap / shape.s;
        s_ = (tap - r_ * shape.s) * shape.dilation_w - shape.pad_left;
        c_ = group * channels + column - tap * channels;
        // A column past the last is given a row of no image.
        r_ = r_ < shape.r ? r_ * shape.dilation_h - shape.pad_top : kOutside;
    }

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            if (!Copy::has(pass)) break;
            const int pixel = pixel_ + pass * Copy::kDepthsPerPass;
            const Pixel at = index_.locate(pixel);
            const int h = at.p * shape_.stride_h + r_;
            const int w = at.q * shape_.stride_w + s_;
            const bool valid =
                (pixel < pixels_) & index_.has(at) & inside(h, shape_.h) & inside(w, shape_.w);
            const std::uint32_t offset =
                ((static_cast<std::uint32_t>(at.n) * shape_.h + h) * shape_.w + w) * shape_.c + c_;
            copies.copy(pass, x_ + (valid ? offset : 0), valid);
        }
        copies.finish();
        pixel_ += Tile::kDepth;
    }

  private:
    using Copy = MNMajorCopy<Tile, Tile::kCols, V>;
    const Element* x_;
    ConvShape shape_;
    Index index_;
    int pixel_, pixels_;
    int r_, s_, c_;  // the tap, relative to stride * the pixel's row and column
};

// Blocks that an SM is to hold at once. On compute capability 12.0, whose SMs have 100 KB of shared
// memory, no more than find room: registers would be spilled for nothing.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <class Tile, std::size_t Bytes>
constexpr int kWgradBlocks =
    std::max(1, std::min(Tile::kMinBlocks, static_cast<int>((100 << 10) / (Bytes + 1024))));
#else
template <class Tile, std::size_t Bytes>
constexpr int kWgradBlocks = Tile::kMinBlocks;
#endif

template <class Tile, class A, int V>
__global__ void __launch_bounds__(
    Tile::kThreads,
    (kWgradBlocks<Tile, Tile::template Loop<A, PixelWindows<Tile, typename A::Index, V>>::kBytes>))
    wgrad_kernel(ConvShape shape, typename A::Index pixel_index, int pixels,
                 const typename Tile::Element* x, typename A::Source dy, Epilogue<float> epilogue,
                 float* dw, TiledWork work) {
    using B = PixelWindows<Tile, typename A::Index, V>;
    using Loop = typename Tile::template Loop<A, B>;

    const auto index = work.at(blockIdx.x);
    const int cols = shape.r * shape.s * shape.group_c();
    const int tiles_n = divide_up(cols, Tile::kCols);
    const int tiles_m = divide_up(shape.group_k(), Tile::kRows);
    const int row = index.tile / tiles_n, group = row / tiles_m;
    const int tile_m = row - group * tiles_m, tile_n = index.tile - row * tiles_n;
    const int first_k = group * shape.group_k(), end_k = first_k + shape.group_k();
    const int first_row = first_k + tile_m * Tile::kRows, first_col = tile_n * Tile::kCols;
    const DepthRange range(index, pixels, Tile::kDepth, work.k_tiles_per_split);

    A a(dy, pixel_index, pixels, shape.k, first_row, end_k, range.first);
    B b(shape, pixel_index, x, pixels, group, first_col, range.first);
    typename Loop::Accumulators acc;
    Loop::run(a, b, range.k_tiles, simt::dynamic_shared<typename Tile::Element>(), acc);

    const auto offset = [&](int row) {
        const int k = first_row + row;
        return k < end_k ? static_cast<std::uint32_t>(k) * cols : kNoRow;
    };
    // Computed again, so that nothing of it takes registers during the main loop.
    unsigned part = blockIdx.x;
    asm volatile("" : "+r"(part));
    store_part<Tile, Loop>(work, work.at(part), acc, offset, first_col, cols, epilogue, dw);
}

template <class Tile, class A, int V, class T>
void launch_wgrad(const ConvShape& shape, const typename A::Index& pixel_index, int pixels,
                  const T* x, const typename A::Source& dy, const Launch<float>& launch) {
    using Loop = typename Tile::template Loop<A, PixelWindows<Tile, typename A::Index, V>>;
    simt::launch<wgrad_kernel<Tile, A, V>>(dim3(launch.work.count()), dim3(Tile::kThreads),
                                           Loop::kBytes, launch.stream, shape, pixel_index, pixels,
                                           x, dy, launch.epilogue, launch.y, launch.work);
}

// Defined in wgrad_sm90a.cu.
extern template void launch_wgrad<Wgmma192x256<Bf16>, Pixels<Wgmma192x256<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);
extern template void launch_wgrad<Wgmma128x256<Bf16>, Pixels<Wgmma128x256<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);
extern template void launch_wgrad<Wgmma128x128<Bf16>, Pixels<Wgmma128x128<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);

// Computes dw with one of these tiles, and with dy from `Gradient<Tile, V>`, whose pixels
// `pixel_index` decodes; `vector_dy`: it allows 16-byte copies.
template <class Math, template <class, int> class Gradient, class Lists, class Source, class Index>
void run_wgrad(Lists lists, const Product& product, const Element<Math>* x, const Source& dy,
               const Index& pixel_index, bool vector_dy, float* dw, void* workspace,
               Stream stream) {
    const ConvShape& shape = product.problem.conv;
    run_product(lists, product, vector_dy, is_vectorisable(shape.group_c(), x), {}, dw,
                product.cols, workspace, stream,
                [&](auto tile, auto width_dy, auto width_x, const auto& launch) {
                    using Tile = decltype(tile);
                    if constexpr (Tile::kMainLoop == MainLoop::kTma)
                        launch_wgrad_tma<Tile>(shape, x, dy, launch);
                    else
                        launch_wgrad<Tile, Gradient<Tile, width_dy>, width_x>(
                            shape, pixel_index, product.depth, x, dy, launch);
                });
}

}  // namespace zfcuda::conv
