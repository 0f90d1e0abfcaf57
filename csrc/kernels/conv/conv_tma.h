// conv2d and conv_transpose2d by the kernels of conv_tma.cuh, which are compiled apart.
#pragma once

#include "run_product.cuh"

namespace zfcuda::conv {

// `shape` is one that can_use_tma (tma_windows.h). Defined in conv_tma_sm90a.cu and
// conv_tma_tf32_sm90a.cu.
template <class Tile, class T>
void launch_fprop_tma(const ConvShape& shape, const T* x, const T* w, const Launch<T>& launch);
// In tf32, `turned` has room for w.
template <class Tile, class T>
void launch_dgrad_tma(const ConvShape& shape, const T* y, const T* w, T* turned,
                      const Launch<T>& launch);

}  // namespace zfcuda::conv
