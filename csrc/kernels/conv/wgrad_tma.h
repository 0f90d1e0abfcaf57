// conv2d_weight_grad by the kernels of wgrad_tma.cuh, which are compiled apart.
#pragma once

#include "run_product.cuh"

namespace zfcuda::conv {

// `shape` is one that can_use_tma (tma_windows.h). Defined in wgrad_tma_sm90a.cu.
template <class Tile>
void launch_wgrad_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* dy,
                      const Launch<float>& launch);

}  // namespace zfcuda::conv
