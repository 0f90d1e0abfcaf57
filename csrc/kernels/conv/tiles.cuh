// The table of tiles: for each precision and operation those to choose from, where operands can be
// copied 16 bytes at a time and where they cannot.
#pragma once

#include "ffma.cuh"
#include "mma.cuh"
#include "plan.h"
#include "tma.cuh"
#include "wgmma.cuh"

namespace zfcuda::conv {

template <class Math>
struct Tiles;

// Exact float32, by FMA instructions.
template <>
struct Tiles<Fp32> {
    //                           warps lanes  of a thread, stages, blocks on an SM
    using Tile128x128 = FfmaTile<2, 4, 8, 4, 8, 8, 3, 2>;
    using Tile128x96 = FfmaTile<2, 3, 8, 4, 8, 8, 3, 2>;  // 96 filters
    using Tile128x64 = FfmaTile<2, 2, 8, 4, 8, 8, 3, 3>;
    using Tile64x32 = FfmaTile<2, 2, 8, 4, 4, 4, 4, 4>;   // small problems
    using Tile256x96 = FfmaTile<4, 3, 8, 4, 8, 8, 3, 1>;  // whole windows of many pixels
    using Tile96x160 = FfmaTile<3, 5, 4, 8, 8, 4, 3, 1>;  // 96 filters of 7 x 7 x 3

    template <int A, int B>
    using FpropList = TileList<A, B, Tile128x128, Tile128x96, Tile128x64, Tile64x32>;
    // No tile of 128 x 128: the state of its operands would not fit beside 64 accumulators and two
    // blocks on an SM.
    template <int A, int B>
    using DgradList = TileList<A, B, Tile128x96, Tile128x64, Tile64x32>;
    template <int A, int B>
    using WgradList = TileList<A, B, Tile128x128, Tile96x160, Tile64x32>;
    template <int A, int B>
    using BlockList = TileList<A, B, Tile256x96, Tile128x64>;

    using Fprop = TileLists<FpropList<4, 4>, FpropList<1, 1>>;
    using Dgrad = TileLists<DgradList<4, 4>, DgradList<4, 1>, DgradList<1, 1>>;
    using Wgrad = TileLists<WgradList<4, 4>, WgradList<4, 1>, WgradList<1, 1>>;
    using UnpoolWgrad = Wgrad;
    using Block = TileLists<BlockList<4, 4>, BlockList<1, 1>>;

    // Windows gathered tap by tap: of dilated filters, and of groups, which have few columns.
    template <int A, int B>
    using TapsList = TileList<A, B, Tile128x64, Tile64x32>;
    using Taps = TileLists<TapsList<4, 4>, TapsList<1, 1>>;
};

// Tensor cores: the same tiles for tf32 and bfloat16.
template <class Math>
struct TensorTiles {
    //                                warps  of a warp, stages, blocks on an SM
    using Tile128x128 = MmaTile<Math, 2, 2, 64, 64, 4, 2>;
    using Tile128x96 = MmaTile<Math, 4, 1, 32, 96, 4, 2>;  // 96 filters
    using Tile128x64 = MmaTile<Math, 2, 2, 64, 32, 4, 3>;
    using Tile64x64 = MmaTile<Math, 2, 2, 32, 32, 4, 3>;   // small problems
    using Tile128x32 = MmaTile<Math, 4, 1, 32, 32, 4, 4>;  // few columns
    using Tile256x96 = MmaTile<Math, 4, 3, 64, 32, 3, 1>;  // whole windows of many pixels
    using Tile96x160 = MmaTile<Math, 3, 5, 32, 32, 3, 1>;  // 96 filters of 7 x 7 x 3

    static constexpr int V = kVectorWidth<Element<Math>>;
    using Fprop = TileLists<TileList<V, V, Tile128x128, Tile128x96, Tile128x64, Tile64x64>,
                            TileList<1, 1, Tile128x96, Tile64x64>>;
    using Dgrad = TileLists<TileList<V, V, Tile128x128, Tile128x96, Tile64x64>,
                            TileList<V, 1, Tile128x32, Tile64x64>, TileList<1, 1, Tile64x64>>;
    using Wgrad = TileLists<TileList<V, V, Tile128x128, Tile64x64>,
                            TileList<V, 1, Tile96x160, Tile64x64>, TileList<1, 1, Tile64x64>>;
    using UnpoolWgrad = Wgrad;
    using Block =
        TileLists<TileList<V, V, Tile256x96, Tile128x64>, TileList<1, 1, Tile256x96, Tile128x64>>;
    // Windows gathered tap by tap: of dilated filters, and of groups, which have few columns.
    using Taps = TileLists<TileList<V, V, Tile64x64, Tile128x32>, TileList<1, 1, Tile64x64>>;
};

// Of compute capability 9.0:      warpgroups, columns, stages, blocks on an SM
template <class Math>
using Wgmma192x256 = WgmmaTile<Math, 3, 256, 4, 1>;
template <class Math>
using Wgmma128x256 = WgmmaTile<Math, 2, 256, 4, 1>;
template <class Math>
using Wgmma128x128 = WgmmaTile<Math, 2, 128, 3, 2>;

// Warpgroups that multiply, blocks of 64 rows and of columns of each, columns of a block, stages,
// rows. Where three multiply, all 256 columns at once would need more registers than a launch gives.
template <class Math>
using Tma192x256 = TmaTile<Math, 3, 1, 2, 128, 4>;
template <class Math>
using Tma256x192 = TmaTile<Math, 2, 2, 1, 192, 4>;
// Windows alone are copied in as many rows. 128 images of 13 x 13 have 129 such tiles, of 192 rows 113:
// of 132 SMs more have one, and each copies less.
template <class Math>
using Tma168x256 = TmaTile<Math, 3, 1, 2, 128, 4, 168>;
template <class Math>
using Tma128x256 = TmaTile<Math, 2, 1, 1, 256, 4>;
template <class Math>
using Tma256x128 = TmaTile<Math, 2, 2, 1, 128, 4>;
template <class Math>
using Tma128x128 = TmaTile<Math, 2, 1, 1, 128, 6>;

// Of blocks, with fewer stages where the map would have no room beside more.
template <class Math>
using BlockTma192x256 = TmaTile<Math, 3, 1, 2, 128, 3>;
template <class Math>
using BlockTma256x192 = TmaTile<Math, 2, 2, 1, 192, 3>;
template <class Math>
using BlockTma128x256 = Tma128x256<Math>;
template <class Math>
using BlockTma256x128 = TmaTile<Math, 2, 2, 1, 128, 3>;
template <class Math>
using BlockTma128x128 = Tma128x128<Math>;
template <class Math>
using BlockTma384x64 = TmaTile<Math, 3, 2, 1, 64, 3>;  // 64 filters

// A list with more tiles, where operands can be copied 16 bytes at a time.
template <class Lists, class... More>
struct WithTiles;
template <int V, class... Tiles, class... Others, class... More>
struct WithTiles<TileLists<TileList<V, V, Tiles...>, Others...>, More...> {
    using type = TileLists<TileList<V, V, Tiles..., More...>, Others...>;
};

// With those of compute capability 9.0 that gather their operands, and that have them copied.
template <class Math, class Lists>
using WithWgmma =
    typename WithTiles<Lists, Wgmma192x256<Math>, Wgmma128x256<Math>, Wgmma128x128<Math>>::type;
template <class Math, class Lists>
using WithTma = typename WithTiles<Lists, Tma192x256<Math>, Tma256x192<Math>, Tma128x256<Math>,
                                   Tma256x128<Math>, Tma128x128<Math>>::type;
template <class Math, class Lists>
using WithTmaOfWindows = typename WithTiles<WithTma<Math, Lists>, Tma168x256<Math>>::type;

template <class Math, class Lists>
using WithTmaOfBlocks =
    typename WithTiles<Lists, BlockTma192x256<Math>, BlockTma256x192<Math>, BlockTma128x256<Math>,
                       BlockTma256x128<Math>, BlockTma128x128<Math>>::type;

template <>
struct Tiles<Tf32> : TensorTiles<Tf32> {
    using Fprop = WithTmaOfWindows<Tf32, TensorTiles::Fprop>;
    using Dgrad = WithTmaOfWindows<Tf32, TensorTiles::Dgrad>;
    using Block = WithTmaOfBlocks<Tf32, TensorTiles::Block>;
};
template <>
struct Tiles<Bf16> : TensorTiles<Bf16> {
    using Fprop = WithWgmma<Bf16, WithTmaOfWindows<Bf16, TensorTiles::Fprop>>;
    using Dgrad = WithWgmma<Bf16, WithTmaOfWindows<Bf16, TensorTiles::Dgrad>>;
    using Wgrad = WithWgmma<Bf16, WithTma<Bf16, TensorTiles::Wgrad>>;
    // In tf32 the map of 384 pixels would have no room beside three stages.
    using Block =
        typename WithTiles<WithTmaOfBlocks<Bf16, TensorTiles::Block>, BlockTma384x64<Bf16>>::type;
};

// use(lists) with the tiles of the two directions that read windows.
template <class Math, class Use>
void with_fprop_tiles(const ConvShape& shape, Use use) {
    if (shape.is_dense())
        use(typename Tiles<Math>::Fprop{});
    else
        use(typename Tiles<Math>::Taps{});
}
template <class Math, class Use>
void with_dgrad_tiles(const ConvShape& shape, Use use) {
    if (shape.is_dense())
        use(typename Tiles<Math>::Dgrad{});
    else
        use(typename Tiles<Math>::Taps{});
}

}  // namespace zfcuda::conv
