// Which kernels for compute capability 9.0 alone (wgmma.cuh, tma.cuh) serve a problem.
//
// Where the device can run them, a plan may name them. The environment variable ZFCUDA_KERNELS has
// the last word: with `mma` none is used, with `wgmma` they are wherever an operation has them.
#pragma once

#include <string>

namespace zfcuda {

// Whether the current device can, and this build has them. Defined in backend.cu.
bool can_run_wgmma();

namespace conv {

enum class WgmmaUse { kNever, kIfPlanned, kAlways };

// Throws std::invalid_argument if ZFCUDA_KERNELS is neither empty, `mma` nor `wgmma`, and
// std::runtime_error if it asks for what cannot run here.
WgmmaUse wgmma_use();

}  // namespace conv
}  // namespace zfcuda
