// The kernel of fprop_patch.cuh.
#include "fprop_patch.cuh"

#include "patch_windows.cuh"

namespace zfcuda::conv {

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_patch_kernel(ConvShape shape, PoolShape pixels, PoolTiling tiling,
                       typename Tile::Patch patch, const typename Tile::Element* x,
                       const typename Tile::Element* w, const typename Tile::Element* filters,
                       Epilogue<typename Tile::Element> epilogue, typename Tile::Element* y) {
    const Region region(pixels, tiling, TileIndex::of_block());
    const PatchMemory<Tile> memory(patch);
    typename Tile::Accumulators acc;
    multiply_region(
        shape, patch, tiling, region, x, w, filters, memory, acc, [&](int, int, int p, int q) {
            const std::uint32_t line = static_cast<std::uint32_t>(region.n) * pixels.h + p;
            return (line * pixels.w + q) * epilogue.pitch;
        });
    const int first_col = region.tile_n * Tile::kCols;
    if (epilogue.add) epilogue.add += first_col;
    store_tile<PatchLoop<Tile>>(
        acc, [&](int row) { return memory.rows[row]; }, first_col, pixels.c, epilogue,
        y + first_col);
}

template <class Math>
std::size_t fprop_patch_workspace(const ConvShape& shape, const Plan& plan) {
    std::size_t bytes = 0;
    for_each_image_tile<Math>(shape, pool_of_pixels(shape),
                              [&](auto tile, const auto&, const auto& patch) {
                                  using Tile = decltype(tile);
                                  if (kKernel<Tile> == plan.kernel)
                                      bytes = Tile::filter_bytes(patch, shape.k);
                              });
    return bytes;
}

template <class Math>
void fprop_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* x,
                 const Element<Math>* w, const Epilogue<Element<Math>>& epilogue, Element<Math>* y,
                 void* workspace, Stream stream) {
    const PoolShape pixels = pool_of_pixels(shape);
    for_each_image_tile<Math>(shape, pixels, [&](auto tile, const auto& tiling, const auto& patch) {
        using Tile = decltype(tile);
        if (!(kKernel<Tile> == plan.kernel)) return;
        auto* const filters = static_cast<Element<Math>*>(workspace);
        pack_windows<Tile>(shape, patch, w, filters, stream);
        simt::launch<fprop_patch_kernel<Tile>>(
            dim3(count_regions(pixels, tiling)), dim3(Tile::kThreads), Tile::shared_bytes(patch),
            stream, shape, pixels, tiling, patch, x, w, filters, epilogue, y);
    });
}

template decltype(fprop_patch<Fp32>) fprop_patch<Fp32>;
template decltype(fprop_patch<Tf32>) fprop_patch<Tf32>;
template decltype(fprop_patch<Bf16>) fprop_patch<Bf16>;
template decltype(fprop_patch_workspace<Fp32>) fprop_patch_workspace<Fp32>;
template decltype(fprop_patch_workspace<Tf32>) fprop_patch_workspace<Tf32>;
template decltype(fprop_patch_workspace<Bf16>) fprop_patch_workspace<Bf16>;

}  // namespace zfcuda::conv
