// The kernels of fprop.cuh that only compute capability 9.0 has; compiled for it alone.
#include "fprop.cuh"

namespace zfcuda::conv {

template void launch_fprop<Wgmma192x256<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                        const BFloat16*, const Launch<BFloat16>&);
template void launch_fprop<Wgmma128x256<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                        const BFloat16*, const Launch<BFloat16>&);
template void launch_fprop<Wgmma128x128<Bf16>, 8, true>(const ConvShape&, const BFloat16*,
                                                        const BFloat16*, const Launch<BFloat16>&);

}  // namespace zfcuda::conv
