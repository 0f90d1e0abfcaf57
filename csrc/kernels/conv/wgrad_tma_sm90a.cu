// The kernels of wgrad_tma.cuh, which only compute capability 9.0 has; compiled for it alone.
#include "wgrad_tma.cuh"

namespace zfcuda::conv {

template void launch_wgrad_tma<Tma192x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<float>&);
template void launch_wgrad_tma<Tma256x192<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<float>&);
template void launch_wgrad_tma<Tma128x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<float>&);
template void launch_wgrad_tma<Tma256x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<float>&);
template void launch_wgrad_tma<Tma128x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<float>&);

}  // namespace zfcuda::conv
