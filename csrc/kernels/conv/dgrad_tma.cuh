// Transposed convolution of stride 1, as in dgrad.cuh, on Hopper's own main loop (tma.cuh): the
// windows of y, (h + pad - (R - 1)) ..., with the filters, whose taps come last first, over the
// depth R*S*K; in bfloat16, of dense filters, channels and filters in multiples of 8.
//
// Filters lie (K, taps, C): the depth is the slower index, so their k-tile is MN-major, copied in
// boxes of 64 channels of one tap. Bound: that of tma.cuh.
#pragma once

#include "dgrad_tma.h"
#include "tma_windows.cuh"

namespace zfcuda::conv {

template <class Tile, int Line>
class DgradCopies : public WindowCopies<Tile, Line> {
    using Windows = WindowCopies<Tile, Line>;

  public:
    using typename Windows::Element;
    using LayoutB = WgmmaMNMajor<Tile::kCols>;

    // From window `row`, channel `channel` and k-tile `k_tile` on.
    __device__ DgradCopies(const simt::TensorMap& image, const simt::TensorMap& filters,
                           const TmaWindows& windows, int row, int channel, int k_tile)
        : Windows(image, windows, row, k_tile), filters_(filters), channel_(channel) {}

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < Windows::kColumns; ++column) {
            this->load_windows(a, column, full);
#pragma unroll
            for (int block = 0; block < Tile::kCols / 64; ++block)
                simt::tensor_load(b + block * LayoutB::kBlock + column * Windows::kChannels * 64,
                                  filters_, full, channel_ + block * 64,
                                  this->taps_ - 1 - this->tap_, this->c_);
            this->advance();
        }
    }

  private:
    const simt::TensorMap& filters_;
    int channel_;
};

template <class Tile, int Line>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    dgrad_tma_kernel(const __grid_constant__ simt::TensorMap image,
                     const __grid_constant__ simt::TensorMap filters, TmaWindows windows,
                     int k_tiles, int cols, TiledWork work,
                     Epilogue<typename Tile::Element> epilogue, typename Tile::Element* x) {
    multiply_windows<Tile, DgradCopies<Tile, Line>>(image, filters, windows, k_tiles, cols, work,
                                                    epilogue, x);
}

template <class Tile>
void launch_dgrad_tma(const ConvShape& shape, const BFloat16* y, const BFloat16* w,
                      const Launch<BFloat16>& launch) {
    const TmaWindows windows = dgrad_windows(shape);
    launch_windows(windows, launch, [&](auto line, dim3 blocks, const TiledWork& work) {
        using Copies = DgradCopies<Tile, line>;
        simt::launch<dgrad_tma_kernel<Tile, line>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, Copies>::kBytes, launch.stream,
            window_map(windows, y, line, Tile::kRows),
            filter_map(shape, w, 64, Copies::kChannels, kSwizzleBytes), windows, windows.k_tiles(),
            shape.c, work, launch.epilogue, launch.y);
    });
}

}  // namespace zfcuda::conv
