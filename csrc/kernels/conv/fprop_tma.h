// conv2d by the kernels of fprop_tma.cuh, which are compiled apart.
#pragma once

#include "run_product.cuh"

namespace zfcuda::conv {

// `shape` is one that can_use_tma (tma_windows.h). Defined in fprop_tma_sm90a.cu.
template <class Tile>
void launch_fprop_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* w,
                      const Launch<BFloat16>& launch);

}  // namespace zfcuda::conv
