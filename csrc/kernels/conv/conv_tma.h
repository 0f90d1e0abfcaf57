// conv2d and conv_transpose2d by the kernels of conv_tma.cuh, which are compiled apart.
#pragma once

#include "run_product.cuh"

namespace zfcuda::conv {

// `shape` is one that can_use_tma (tma_windows.h). Defined in conv_tma_sm90a.cu.
template <class Tile>
void launch_fprop_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* w,
                      const Launch<BFloat16>& launch);
template <class Tile>
void launch_dgrad_tma(const ConvShape& shape, const BFloat16* y, const BFloat16* w,
                      const Launch<BFloat16>& launch);

}  // namespace zfcuda::conv
