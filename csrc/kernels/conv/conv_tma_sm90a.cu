// The kernels of conv_tma.cuh in bfloat16, which only compute capability 9.0 has; compiled for it
// alone.
#include "conv_tma.cuh"

namespace zfcuda::conv {

template void launch_fprop_tma<Tma192x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_fprop_tma<Tma256x192<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_fprop_tma<Tma168x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_fprop_tma<Tma128x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_fprop_tma<Tma256x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_fprop_tma<Tma128x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma192x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma256x192<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma168x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma128x256<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma256x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);
template void launch_dgrad_tma<Tma128x128<Bf16>>(const ConvShape&, const BFloat16*, const BFloat16*,
                                                 BFloat16*, const Launch<BFloat16>&);

}  // namespace zfcuda::conv
