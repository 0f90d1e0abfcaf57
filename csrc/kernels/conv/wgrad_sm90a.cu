// The kernels of wgrad.cuh that only compute capability 9.0 has; compiled for it alone.
#include "wgrad.cuh"

namespace zfcuda::conv {

template void launch_wgrad<Wgmma192x256<Bf16>, Pixels<Wgmma192x256<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);
template void launch_wgrad<Wgmma128x256<Bf16>, Pixels<Wgmma128x256<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);
template void launch_wgrad<Wgmma128x128<Bf16>, Pixels<Wgmma128x128<Bf16>, 8>, 8>(
    const ConvShape&, const PixelIndex&, int, const BFloat16*, const BFloat16* const&,
    const Launch<float>&);

}  // namespace zfcuda::conv
