// The kernels of block_tma.cuh in bfloat16, which only compute capability 9.0 has; compiled for it alone.
#include "block_tma.cuh"

namespace zfcuda::conv {

template void launch_block_tma<BlockTma192x256<Bf16>>(const ConvShape&, const PoolShape&,
                                                      const BFloat16*, const BFloat16*,
                                                      const float*, BFloat16*, std::uint8_t*,
                                                      Stream);
template void launch_block_tma<BlockTma256x192<Bf16>>(const ConvShape&, const PoolShape&,
                                                      const BFloat16*, const BFloat16*,
                                                      const float*, BFloat16*, std::uint8_t*,
                                                      Stream);
template void launch_block_tma<BlockTma128x256<Bf16>>(const ConvShape&, const PoolShape&,
                                                      const BFloat16*, const BFloat16*,
                                                      const float*, BFloat16*, std::uint8_t*,
                                                      Stream);
template void launch_block_tma<BlockTma256x128<Bf16>>(const ConvShape&, const PoolShape&,
                                                      const BFloat16*, const BFloat16*,
                                                      const float*, BFloat16*, std::uint8_t*,
                                                      Stream);
template void launch_block_tma<BlockTma128x128<Bf16>>(const ConvShape&, const PoolShape&,
                                                      const BFloat16*, const BFloat16*,
                                                      const float*, BFloat16*, std::uint8_t*,
                                                      Stream);
template void launch_block_tma<BlockTma384x64<Bf16>>(const ConvShape&, const PoolShape&,
                                                     const BFloat16*, const BFloat16*, const float*,
                                                     BFloat16*, std::uint8_t*, Stream);

}  // namespace zfcuda::conv
