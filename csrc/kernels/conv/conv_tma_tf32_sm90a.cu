// The kernels of conv_tma.cuh in tf32, which only compute capability 9.0 has; compiled for it alone.
#include "conv_tma.cuh"

namespace zfcuda::conv {

template void launch_fprop_tma<Tma192x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_fprop_tma<Tma256x192<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_fprop_tma<Tma168x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_fprop_tma<Tma128x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_fprop_tma<Tma256x128<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_fprop_tma<Tma128x128<Tf32>>(const ConvShape&, const float*, const float*,
                                                 const Launch<float>&);
template void launch_dgrad_tma<Tma192x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);
template void launch_dgrad_tma<Tma256x192<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);
template void launch_dgrad_tma<Tma168x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);
template void launch_dgrad_tma<Tma128x256<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);
template void launch_dgrad_tma<Tma256x128<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);
template void launch_dgrad_tma<Tma128x128<Tf32>>(const ConvShape&, const float*, const float*,
                                                 float*, const Launch<float>&);

}  // namespace zfcuda::conv
