// The kernels of dgrad.cuh that only compute capability 9.0 has; compiled for it alone.
#include "dgrad.cuh"

namespace zfcuda::conv {

template void launch_dgrad<Wgmma192x256<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                           const BFloat16*,
                                                           const Launch<BFloat16>&);
template void launch_dgrad<Wgmma128x256<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                           const BFloat16*,
                                                           const Launch<BFloat16>&);
template void launch_dgrad<Wgmma128x128<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                           const BFloat16*,
                                                           const Launch<BFloat16>&);

}  // namespace zfcuda::conv
