// Convolution, forward, as in fprop.cuh, on Hopper's own main loop (tma.cuh): the same product of
// windows with filters, in bfloat16, of dense filters and channels in multiples of 8.
//
// The depth is cut tap by tap (tma_windows.h); filters are copied in boxes of one tap. Bound: that
// of tma.cuh; what is filled up with zeros is multiplied, too.
#pragma once

#include "fprop_tma.h"
#include "tma_windows.cuh"

namespace zfcuda::conv {

template <class Tile, int Line>
class FpropCopies : public WindowCopies<Tile, Line> {
    using Windows = WindowCopies<Tile, Line>;

  public:
    using typename Windows::Element;
    using LayoutB = TmaKMajor<Tile::kCols, Line>;

    // From window `row`, filter `filter` and k-tile `k_tile` on.
    __device__ FpropCopies(const simt::TensorMap& image, const simt::TensorMap& filters,
                           const TmaWindows& windows, int row, int filter, int k_tile)
        : Windows(image, windows, row, k_tile), filters_(filters), filter_(filter) {}

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < Windows::kColumns; ++column) {
            this->load_windows(a, column, full);
            simt::tensor_load(b + column * LayoutB::kColumn, filters_, full, this->c_, this->tap_,
                              filter_);
            this->advance();
        }
    }

  private:
    const simt::TensorMap& filters_;
    int filter_;
};

template <class Tile, int Line>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_tma_kernel(const __grid_constant__ simt::TensorMap image,
                     const __grid_constant__ simt::TensorMap filters, TmaWindows windows,
                     int k_tiles, int cols, TiledWork work,
                     Epilogue<typename Tile::Element> epilogue, typename Tile::Element* y) {
    multiply_windows<Tile, FpropCopies<Tile, Line>>(image, filters, windows, k_tiles, cols, work,
                                                    epilogue, y);
}

template <class Tile>
void launch_fprop_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* w,
                      const Launch<BFloat16>& launch) {
    const TmaWindows windows = fprop_windows(shape);
    launch_windows(windows, launch, [&](auto line, dim3 blocks, const TiledWork& work) {
        using Copies = FpropCopies<Tile, line>;
        simt::launch<fprop_tma_kernel<Tile, line>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, Copies>::kBytes, launch.stream,
            window_map(windows, x, line, Tile::kRows),
            filter_map(shape, w, Copies::kChannels, Tile::kCols, line), windows, windows.k_tiles(),
            shape.k, work, launch.epilogue, launch.y);
    });
}

}  // namespace zfcuda::conv
