// The kernel of block_patch.cuh.
#include "block_patch.cuh"

#include "epilogue.cuh"
#include "patch_windows.cuh"

namespace zfcuda::conv {

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    block_patch_kernel(ConvShape shape, PoolShape pool, PoolTiling tiling,
                       typename Tile::Patch patch, const typename Tile::Element* x,
                       const typename Tile::Element* w, const typename Tile::Element* filters,
                       const float* b, typename Tile::Element* y, std::uint8_t* switches,
                       bool vectorised) {
    const Region region(pool, tiling, TileIndex::of_block());
    const PatchMemory<Tile> memory(patch);
    typename Tile::Accumulators acc;
    multiply_region(
        shape, patch, tiling, region, x, w, filters, memory, acc, [&](int dp, int dq, int, int) {
            return static_cast<std::uint32_t>((dp * tiling.region_w + dq) * kMapPitch<Tile>);
        });

    __syncthreads();  // nobody reads the patch and the stages any more: the map takes their place
    auto* map = reinterpret_cast<typename Tile::Element*>(memory.taps);
    store_tile<PatchLoop<Tile>>(
        acc, [&](int row) { return memory.rows[row]; }, region.tile_n * Tile::kCols, pool.c,
        Epilogue<typename Tile::Element>{nullptr, b, nullptr, true, true}, map);
    __syncthreads();
    // Computed again, so that nothing of the region takes registers during the main loop.
    TileIndex index = TileIndex::of_block();
    asm volatile("" : "+r"(index.tile));
    const Region same(pool, tiling, index);
    pool_region<Tile::kThreads, Tile::kCols, kMapPitch<Tile>>(
        pool, tiling, same, same.tile_n * Tile::kCols, map, y, switches, vectorised);
}

template <class Math>
std::size_t block_patch_workspace(const ConvShape& conv, const PoolShape& pool, const Plan& plan) {
    std::size_t bytes = 0;
    for_each_image_tile<Math>(conv, pool, [&](auto tile, const auto&, const auto& patch) {
        using Tile = decltype(tile);
        if (kKernel<Tile> == plan.kernel) bytes = Tile::filter_bytes(patch, conv.k);
    });
    return bytes;
}

template <class Math>
void block_patch(const ConvShape& conv, const PoolShape& pool, const Plan& plan,
                 const Element<Math>* x, const Element<Math>* w, const float* b, Element<Math>* y,
                 std::uint8_t* switches, void* workspace, Stream stream) {
    const bool vectorised = conv.k % 4 == 0 && aligned_for_vectors(y, switches);
    for_each_image_tile<Math>(conv, pool, [&](auto tile, const auto& tiling, const auto& patch) {
        using Tile = decltype(tile);
        if (!(kKernel<Tile> == plan.kernel)) return;
        auto* const filters = static_cast<Element<Math>*>(workspace);
        pack_windows<Tile>(conv, patch, w, filters, stream);
        simt::launch<block_patch_kernel<Tile>>(
            dim3(count_regions(pool, tiling)), dim3(Tile::kThreads), block_bytes<Tile>(patch),
            stream, conv, pool, tiling, patch, x, w, filters, b, y, switches, vectorised);
    });
}

template decltype(block_patch<Fp32>) block_patch<Fp32>;
template decltype(block_patch<Tf32>) block_patch<Tf32>;
template decltype(block_patch<Bf16>) block_patch<Bf16>;
template decltype(block_patch_workspace<Fp32>) block_patch_workspace<Fp32>;
template decltype(block_patch_workspace<Tf32>) block_patch_workspace<Tf32>;
template decltype(block_patch_workspace<Bf16>) block_patch_workspace<Bf16>;

}  // namespace zfcuda::conv
