// The main loop of Hopper's own: a producer that lets the tensor memory accelerator copy k-tiles,
// and warpgroups that only multiply (wgmma.cuh). For compute capability 9.0 alone (sm_90a).
//
// Roles. The last warpgroup of a block is the producer: one of its threads begins the copies, and
// it gives most of its registers away. The others, the consumers, each own kRowBlocks blocks of 64
// rows of the tile. A block stays on its SM for several tiles, one after the other, and so does the
// ring: while the consumers store one tile, k-tiles of the next are already being copied.
//
// Shared memory: kStages stages, each a k-tile of both operands, and two mbarriers for each. `full`
// completes a phase when all bytes of a k-tile have landed, `empty` when every warp of the consumers
// is done with it. One product is always under way: a stage is given back when the product of the
// next one has begun.
//
// A tile may have fewer rows than the consumers multiply: those that are not copied are what lies
// behind in shared memory, and their results are not stored. That costs nothing where L2 is the bound.
//
// Bound. Per k-tile of 192 x 256 or 256 x 192 results tensor cores take 1536 cycles (2048 bfloat16 or
// 1024 tf32 FMAs a cycle and SM), and the 56 KB that come from L2 2048 at 28 bytes a cycle and SM: 75 % of the
// tensor cores' time; of 168 x 256, 1536 and 1938, 69 %; of 128 x 256, 1024 and 1755, 58 %. Nobody spends
// instructions on copies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tile_index.cuh"
#include "wgmma.cuh"

namespace zfcuda::conv {

// A K-major k-tile as the accelerator copies it: columns of lines of `Line` bytes, 128 or 64, a line
// for each row.
template <class T, int Rows, int Line>
struct TmaKMajor {
    static_assert(Rows % 8 == 0 && (Line == 128 || Line == 64));
    static constexpr simt::Major kMajor = simt::Major::kK;
    static constexpr simt::Swizzle kSwizzle =
        Line == 128 ? simt::Swizzle::k128 : simt::Swizzle::k64;
    static constexpr int kLine = Line / sizeof(T);  // elements, as in what follows
    static constexpr int kSize = Rows * kSwizzleBytes / sizeof(T);
    static constexpr int kColumn = Rows * kLine;

    // Of the rows from `row` on, a multiple of 64.
    __device__ static std::uint64_t descriptor(const T* k_tile, int row) {
        return simt::matrix_descriptor(k_tile + row * kLine, 16, 8 * Line, kSwizzle);
    }
    __device__ static constexpr int step_bytes(int step) {
        return step * 32 / Line * Rows * Line + step * 32 % Line;
    }
};

// An MN-major one: blocks of `Line` bytes of rows, 128 or 64; in each, depth after depth, a line.
template <int Rows, int Line>
struct TmaMNMajor {
    static_assert(Line == 128 || Line == 64);
    static constexpr simt::Major kMajor = simt::Major::kMN;
    static constexpr simt::Swizzle kSwizzle =
        Line == 128 ? simt::Swizzle::k128 : simt::Swizzle::k64;
    static constexpr int kSize = Rows * 64;
    static constexpr int kBlockRows = Line / 2, kBlocks = Rows / kBlockRows;
    static_assert(Rows % kBlockRows == 0);
    static constexpr int kBlock = kBlockRows * 64;  // elements

    // Of the rows from `row` on, a multiple of kBlockRows.
    __device__ static std::uint64_t descriptor(const BFloat16* k_tile, int row) {
        return simt::matrix_descriptor(k_tile + row / kBlockRows * kBlock, kBlock * 2, 8 * Line,
                                       kSwizzle);
    }
    __device__ static constexpr int step_bytes(int step) { return step * 16 * Line; }
};

// ---- The ring -----------------------------------------------------------------------------------

// Of a tile's k-tiles, the layouts of whose operands are those of `Copies`. Producer and consumers
// have one each, and take the same k-tiles in the same order.
template <class Tile, class Copies>
class TmaRing {
  public:
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    using Multiplier = WgmmaProduct<Tile, typename Copies::LayoutA, typename Copies::LayoutB>;

    static constexpr int kB = Copies::LayoutA::kSize;
    static constexpr int kStage = kB + Copies::LayoutB::kSize;
    static constexpr std::size_t kStages = sizeof(Element) * Tile::kStages * kStage;
    static constexpr std::size_t kBytes = kStages + 2 * Tile::kStages * sizeof(simt::Mbarrier);

    // `shared` is aligned to 1024 bytes.
    __device__ explicit TmaRing(unsigned char* shared)
        : stages_(reinterpret_cast<Element*>(shared)),
          full_(reinterpret_cast<simt::Mbarrier*>(shared + kStages)),
          empty_(full_ + Tile::kStages) {}

    // Called by every thread of the block, once.
    __device__ void set_up() {
        if (threadIdx.x == 0) {
            for (int stage = 0; stage < Tile::kStages; ++stage) {
                simt::mbarrier_init(full_[stage], 1);
                simt::mbarrier_init(empty_[stage], Tile::kConsumers / kWarp);
            }
            simt::mbarrier_init_fence();
        }
        __syncthreads();
    }

    // Called by one thread: copies the next `k_tiles` k-tiles of a tile.
    __device__ void produce(Copies& copies, int k_tiles) {
#pragma unroll 1
        for (; k_tiles > 0; --k_tiles) {
            simt::mbarrier_wait(empty_[stage_], parity_ ^ 1);  // at once in the first round
            simt::mbarrier_arrive_expect(full_[stage_], copies.bytes());
            Element* const k_tile = stages_ + stage_ * kStage;
            copies.load(k_tile, k_tile + kB, full_[stage_]);
            advance();
        }
    }

    // Called by every thread of the consumers: acc = A * B over the next `k_tiles` k-tiles.
    __device__ void consume(int k_tiles, Accumulators& acc) {
        const Multiplier multiplier;
        Multiplier::clear(acc);
        int before = 0;
#pragma unroll 1
        for (int i = 0; i < k_tiles; ++i) {
            simt::mbarrier_wait(full_[stage_], parity_);
            const Element* const k_tile = stages_ + stage_ * kStage;
            multiplier.begin(k_tile, k_tile + kB, acc);
            simt::warpgroup_wait<1>();
            if (i > 0) give_back(before);
            before = stage_;
            advance();
        }
        simt::warpgroup_wait<0>();
        if (k_tiles > 0) give_back(before);
    }

  private:
    __device__ void advance() {
        if (++stage_ < Tile::kStages) return;
        stage_ = 0;
        parity_ ^= 1;
    }

    __device__ void give_back(int stage) {
        __syncwarp();
        if (threadIdx.x % kWarp == 0) simt::mbarrier_arrive(empty_[stage]);
    }

    Element* stages_;
    simt::Mbarrier *full_, *empty_;
    int stage_ = 0;
    unsigned parity_ = 0;
};

// ---- The roles ----------------------------------------------------------------------------------

// The parts of a product that a block computes, one after the other. Blocks take them in turns, in
// every other turn the last block first: of tiles that become shallower each has about the same depth.
class PartsOfBlock {
  public:
    __device__ explicit PartsOfBlock(const TiledWork& work)
        : count_(work.count()), part_(blockIdx.x), step_(2 * (gridDim.x - blockIdx.x) - 1) {}

    __device__ bool has_more() const { return part_ < count_; }
    __device__ unsigned part() const { return part_; }
    __device__ void advance() {
        part_ += step_;
        step_ = 2 * gridDim.x - step_;
    }

  private:
    unsigned count_, part_, step_;
};

// What every thread of a block does, of a result of tiles `tiles_n` side by side. k_tiles(tile_m): how
// deep those of a row are; begin(tile_m, tile_n, k_tile): the copies for a tile from a k-tile on, of the
// producer; store(index, tile_m, tile_n, acc): what becomes of a tile, of the consumers.
template <class Tile, class Copies, class KTiles, class Begin, class Store>
__device__ __forceinline__ void multiply_tiles(KTiles k_tiles, int tiles_n, const TiledWork& work,
                                               Begin begin, Store store) {
    using Ring = TmaRing<Tile, Copies>;
    Ring ring(simt::dynamic_shared<unsigned char>());
    ring.set_up();

    if (threadIdx.x >= Tile::kConsumers) {
        simt::lower_registers<Tile::kProducerRegisters>();
        if (threadIdx.x > Tile::kConsumers) return;
        for (PartsOfBlock parts(work); parts.has_more(); parts.advance()) {
            const TileIndex index = work.at(parts.part());
            const int tile_m = index.tile / tiles_n, tile_n = index.tile - tile_m * tiles_n;
            const DepthRange range(index, k_tiles(tile_m), 1, work.k_tiles_per_split);
            Copies copies = begin(tile_m, tile_n, range.first);
            ring.produce(copies, range.k_tiles);
        }
        return;
    }

    simt::raise_registers<Tile::kConsumerRegisters>();
    typename Ring::Accumulators acc;
    for (PartsOfBlock parts(work); parts.has_more(); parts.advance()) {
        const TileIndex index = work.at(parts.part());
        const int tile_m = index.tile / tiles_n, tile_n = index.tile - tile_m * tiles_n;
        const DepthRange range(index, k_tiles(tile_m), 1, work.k_tiles_per_split);
        ring.consume(range.k_tiles, acc);
        store(index, tile_m, tile_n, acc);
    }
}

// ---- The tile -----------------------------------------------------------------------------------

template <class Math_, int Warpgroups, int RowBlocks, int ColBlocks, int BlockCols, int Stages,
          int Rows = Warpgroups * RowBlocks * kWarpgroupRows>
struct TmaTile {
    using Math = Math_;
    using Element = typename Math::Element;
    static constexpr MainLoop kMainLoop = MainLoop::kTma;
    static constexpr int kRowBlocks = RowBlocks, kColBlocks = ColBlocks;
    static constexpr int kRows = Rows;
    static_assert(kRows <= Warpgroups * kRowBlocks * kWarpgroupRows);
    static constexpr int kCols = ColBlocks * BlockCols;
    static constexpr int kDepth = kSwizzleBytes / sizeof(Element);
    static constexpr int kStages = Stages;
    static constexpr int kConsumers = Warpgroups * kWarpgroup;  // threads
    static constexpr int kThreads = kConsumers + kWarpgroup;
    static constexpr int kMinBlocks = 1;
    using Accumulators = float[kRowBlocks][kColBlocks][BlockCols / 2];

    // Of a thread, by role: the launch gives the same to all, and the producer leaves most of its
    // own to the consumers.
    static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
    static constexpr int kProducerRegisters = 32;
    static constexpr int kConsumerRegisters =
        (kLaunchRegisters * (Warpgroups + 1) - kProducerRegisters) / Warpgroups / 8 * 8;

    // As for WgmmaTile.
    static constexpr double kEfficiency = 2.0 * kRows * kCols / (kRows + kCols) / 128;
};

}  // namespace zfcuda::conv
