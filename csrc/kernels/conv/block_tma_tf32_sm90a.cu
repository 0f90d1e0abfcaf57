// The kernels of block_tma.cuh in tf32, which only compute capability 9.0 has; compiled for it alone.
#include "block_tma.cuh"

namespace zfcuda::conv {

template void launch_block_tma<BlockTma192x256<Tf32>>(const ConvShape&, const PoolShape&,
                                                      const float*, const float*, const float*,
                                                      float*, std::uint8_t*, Stream);
template void launch_block_tma<BlockTma256x192<Tf32>>(const ConvShape&, const PoolShape&,
                                                      const float*, const float*, const float*,
                                                      float*, std::uint8_t*, Stream);
template void launch_block_tma<BlockTma128x256<Tf32>>(const ConvShape&, const PoolShape&,
                                                      const float*, const float*, const float*,
                                                      float*, std::uint8_t*, Stream);
template void launch_block_tma<BlockTma256x128<Tf32>>(const ConvShape&, const PoolShape&,
                                                      const float*, const float*, const float*,
                                                      float*, std::uint8_t*, Stream);
template void launch_block_tma<BlockTma128x128<Tf32>>(const ConvShape&, const PoolShape&,
                                                      const float*, const float*, const float*,
                                                      float*, std::uint8_t*, Stream);

}  // namespace zfcuda::conv
