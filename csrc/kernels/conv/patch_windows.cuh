// The kernels' parts of image_patch.cuh: packed filters, the patch, and the product of the two.
#pragma once

#include "copies.cuh"
#include "epilogue.cuh"
#include "image_patch.cuh"
#include "padded_sums.cuh"

namespace zfcuda::conv {

constexpr int kFilterThreads = 256;

__device__ inline float rounded(Fp32, float value) {
    return value;
}
__device__ inline float rounded(Tf32, float value) {
    return __uint_as_float(simt::to_tf32(value));
}
__device__ inline BFloat16 rounded(Bf16, BFloat16 value) {
    return value;
}

// ---- Filters ------------------------------------------------------------------------------------

// Which filter, and which element of a window's chunk, a value of the packed filters is.
struct FilterPlace {
    int k, chunk, element;
};

// Filters in the order in which the product reads them. One thread a value.
template <class Tile>
__global__ void __launch_bounds__(kFilterThreads)
    pack_windows_kernel(ConvShape shape, typename Tile::Patch patch, int total,
                        const typename Tile::Element* w, typename Tile::Element* packed) {
    using T = typename Tile::Element;
    const int item = static_cast<int>(blockIdx.x * kFilterThreads + threadIdx.x);
    if (!inside(item, total)) return;
    const auto [k, chunk, element] =
        Tile::Product::locate_filter(item, kKTileChunks * patch.k_tiles);
    const int r = chunk / patch.taps_across, t = chunk - r * patch.taps_across.divisor;
    const int s = t * patch.pixels + element / patch.channels, c = element % patch.channels;
    auto value = from_float<T>(0.0f);
    if (k < shape.k && chunk < patch.chunks && s < shape.s && c < shape.c)
        value = w[((static_cast<std::size_t>(k) * shape.r + r) * shape.s + s) * shape.c + c];
    packed[item] = rounded(typename Tile::Math(), value);
}

template <class Tile>
void pack_windows(const ConvShape& shape, const typename Tile::Patch& patch,
                  const typename Tile::Element* w, typename Tile::Element* packed, Stream stream) {
    const auto values = static_cast<int>(Tile::filter_values(patch, shape.k));
    simt::launch<pack_windows_kernel<Tile>>(dim3(divide_up(values, kFilterThreads)),
                                            dim3(kFilterThreads), 0, stream, shape, patch, values,
                                            w, packed);
}

// ---- The patch ----------------------------------------------------------------------------------

// Fills the slots of a patch whose pixels have `Channels`, of which the image has shape.c.
template <class Tile, int Channels>
__device__ inline void fill_slots(const ConvShape& shape, const typename Tile::Patch& patch,
                                  const Region& region, const typename Tile::Element* x,
                                  typename Tile::Element* slots) {
    using T = typename Tile::Element;
    constexpr int kPixels = Tile::Patch::kChunk / Channels;
    const int h0 = region.p0 * shape.stride_h - shape.pad_top;
    const int w0 = region.q0 * shape.stride_w - shape.pad_left;
    const int last = static_cast<int>(patch.slots);
    for (int slot = threadIdx.x; slot < last; slot += Tile::kThreads) {
        const int copies = slot / patch.pitch, place = slot - copies * patch.pitch.divisor;
        const int all_lines = copies / patch.shifts;
        const int copy = copies - all_lines * patch.shifts.divisor;
        const int plane = all_lines / patch.lines, line = all_lines - plane * patch.lines.divisor;
        const int across = plane / patch.planes_down;
        const int h = h0 + line * shape.stride_h + plane - across * patch.planes_down.divisor;
        const int w = w0 + copy * shape.stride_w + (place * patch.step + across) * kPixels;
        const bool in_image = inside(h, shape.h);
        const std::uint32_t first =
            ((static_cast<std::uint32_t>(region.n) * shape.h + h) * shape.w + w) * shape.c;
        auto chunk = Vector<T, Tile::Patch::kChunk>::filled(from_float<T>(0.0f));
#pragma unroll
        for (int pixel = 0; pixel < kPixels; ++pixel) {
            const bool valid = in_image & inside(w + pixel, shape.w);
#pragma unroll
            for (int c = 0; c < Channels; ++c)
                if (valid & (c < shape.c))
                    chunk.at[pixel * Channels + c] =
                        rounded(typename Tile::Math(), x[first + pixel * shape.c + c]);
        }
        store(slots + slot * Tile::Patch::kChunk, chunk);
    }
}

template <class Tile>
__device__ inline void fill_patch(const ConvShape& shape, const typename Tile::Patch& patch,
                                  const Region& region, const typename Tile::Element* x,
                                  typename Tile::Element* slots) {
    if (patch.channels == 4)
        fill_slots<Tile, 4>(shape, patch, region, x, slots);
    else if (patch.channels == 2)
        fill_slots<Tile, 2>(shape, patch, region, x, slots);
    else
        fill_slots<Tile, 1>(shape, patch, region, x, slots);
}

// ---- The product on tensor cores ----------------------------------------------------------------

// acc[i][j] is the fragment of rows 16i to 16i + 15 and of column block j of a warp: of rows group
// and group + 8, of four columns from 16 * (j / 2) + 4 * quad on the two that j % 2 says.
template <class Tile>
class PatchMmaRows {
  public:
    using Accumulators = typename Tile::Accumulators;
    static constexpr int kBlocksM = Tile::kWarpRows / 16, kBlocksN = Tile::kWarpCols / 8;
    static constexpr int kRows = 2 * kBlocksM, kVector = 4, kVectors = kBlocksN / 2;

    __device__ PatchMmaRows() {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        row0_ = warp / Tile::kWarpsN * Tile::kWarpRows + lane / 4;
        col0_ = warp % Tile::kWarpsN * Tile::kWarpCols + lane % 4 * 4;
    }

    __device__ int row(int i) const { return row0_ + 8 * i; }
    __device__ int col(int vector) const { return col0_ + 16 * vector; }
    __device__ static float& at(Accumulators& acc, int i, int vector, int e) {
        return acc[i / 2][vector * 2 + e / 2][i % 2 * 2 + e % 2];
    }

  private:
    int row0_, col0_;
};

template <class Tile>
class PatchMmaProduct {
  public:
    using Element = typename Tile::Element;

    // They lie in the order [tile of columns][step of two chunks][16 columns][lane][4 words]: of eight
    // columns the first and the second chunk, then of the other eight. A thread of the product has
    // four columns side by side.
    __device__ static FilterPlace locate_filter(int item, int chunks) {
        constexpr int kPerWord = 4 / sizeof(Element), kGroups = Tile::kCols / 16;
        const int word = item / kPerWord % 4, lane = item / kPerWord / 4 % kWarp;
        const int place = item / kPerWord / 4 / kWarp;  // of 16 columns in a step
        const int steps = chunks / 2;
        const int step = place / kGroups % steps, tile = place / kGroups / steps;
        return {
            tile * Tile::kCols + place % kGroups * 16 + lane / 8 * 4 + word / 2 * 2 + lane / 4 % 2,
            step * 2 + word % 2, lane % 4 * kPerWord + item % kPerWord};
    }

    __device__ explicit PatchMmaProduct(const typename Tile::Patch& patch) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
        for (int i = 0; i < kBlocksM; ++i) {
            const int row = warp / Tile::kWarpsN * Tile::kWarpRows + 16 * i + lane % 16;
            windows_[i] = patch.slot_of_row(row);
        }
        tap_ = lane / 16;
        filters_ = (warp % Tile::kWarpsN * (Tile::kWarpCols / 16) * kWarp + lane) * kPerLane;
    }

    // acc += a k-tile; `taps`: the slots of its chunks.
    __device__ void add(const int* taps, const Element* slots, const Element* filters,
                        typename Tile::Accumulators& acc) const {
#pragma unroll
        for (int step = 0; step < kKTileChunks / 2; ++step) {
            const int tap = taps[2 * step + tap_];
            Vector<std::uint32_t, 4> b[kBlocksN / 2];
#pragma unroll
            for (int j = 0; j < kBlocksN / 2; ++j)
                b[j] = load<4>(reinterpret_cast<const std::uint32_t*>(
                    filters + step * (Tile::kStage / 2) + filters_ + j * kWarp * kPerLane));
#pragma unroll
            for (int i = 0; i < kBlocksM; ++i) {
                std::uint32_t a[4];
                simt::load_matrix_x4(a, slots + (windows_[i] + tap) * Tile::Patch::kChunk);
#pragma unroll
                for (int j = 0; j < kBlocksN; ++j) {
                    const std::uint32_t words[2] = {b[j / 2].at[j % 2 * 2],
                                                    b[j / 2].at[j % 2 * 2 + 1]};
                    multiply_add(typename Tile::Math(), acc[i][j], a, words);
                }
            }
        }
    }

  private:
    static constexpr int kBlocksM = Tile::kWarpRows / 16, kBlocksN = Tile::kWarpCols / 8;
    static constexpr int kPerLane = Tile::Patch::kChunk;  // elements that a lane reads at once
    int windows_[kBlocksM];                               // slots where lanes read them
    int tap_, filters_;
};

// ---- The product in float32 ---------------------------------------------------------------------

template <class Tile>
class PatchFfmaProduct {
  public:
    // They lie in the order [tile of columns][chunk][element][column].
    __device__ static FilterPlace locate_filter(int item, int chunks) {
        const int place = item / Tile::kCols / Tile::kElements;  // of a chunk in a tile
        return {place / chunks * Tile::kCols + item % Tile::kCols, place % chunks,
                item / Tile::kCols % Tile::kElements};
    }

    __device__ explicit PatchFfmaProduct(const typename Tile::Patch& patch) {
        const typename Tile::Multiplier mine;
#pragma unroll
        for (int i = 0; i < Tile::kThreadM; ++i)
            windows_[i] = patch.slot_of_row(mine.row(i)) * Tile::Patch::kChunk;
        column_ = mine.col(0);
    }

    __device__ void add(const int* taps, const float* slots, const float* filters,
                        typename Tile::Accumulators& acc) const {
        constexpr int kStep = Tile::kLanesN * 4;  // from one vector of columns to the next
        filters += column_;
        // Not unrolled: see ffma.cuh.
#pragma unroll 1
        for (int chunk = 0; chunk < kKTileChunks; ++chunk) {
            const float* const tap = slots + taps[chunk] * Tile::Patch::kChunk;
            float b[Tile::kElements][Tile::kThreadN];
#pragma unroll
            for (int e = 0; e < Tile::kElements; ++e)
                read_vectors<Tile::kThreadN, kStep>(b[e], filters + e * Tile::kCols);
#pragma unroll
            for (int i = 0; i < Tile::kThreadM; ++i) {
                const auto a = load<4>(tap + windows_[i]);
#pragma unroll
                for (int e = 0; e < Tile::kElements; ++e)
#pragma unroll
                    for (int j = 0; j < Tile::kThreadN; ++j)
                        acc[i][j] = fmaf(a.at[e], b[e][j], acc[i][j]);
            }
            filters += Tile::kElements * Tile::kCols;
        }
    }

  private:
    int windows_[Tile::kThreadM], column_;
};

// ---- The main loop ------------------------------------------------------------------------------

// The product of a block's windows with filters.
template <class Tile>
class PatchLoop {
  public:
    using Element = typename Tile::Element;
    using Multiplier = typename Tile::Multiplier;
    using Accumulators = typename Tile::Accumulators;

    // Begins to copy the filters, from `filters` on, to the stages.
    __device__ PatchLoop(const typename Tile::Patch& patch, const Element* filters, Element* stages)
        : filters_(filters), stages_(stages), k_tiles_(patch.k_tiles) {
        for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
            if (stage < k_tiles_) copy_k_tile(stages + stage * Tile::kStage);
            simt::copy_async_commit();
        }
    }

    // acc = windows x filters; the table and the patch may just have been written.
    __device__ void run(const typename Tile::Patch& patch, const int* taps, const Element* slots,
                        Accumulators& acc) {
        const typename Tile::Product product(patch);
#pragma unroll
        for (int i = 0; i < Multiplier::kRows; ++i)
#pragma unroll
            for (int j = 0; j < Multiplier::kVectors * Multiplier::kVector; ++j)
                Multiplier::at(acc, i, j / Multiplier::kVector, j % Multiplier::kVector) = 0.0f;

        Element* const last = stages_ + (Tile::kStages - 1) * Tile::kStage;
        Element* read = stages_;
#pragma unroll 1
        for (int k_tiles = k_tiles_; k_tiles > 0; --k_tiles) {
            simt::copy_async_wait<Tile::kStages - 2>();
            // Everybody's copies of this stage have landed, and nobody still reads the stage before
            // it, which the next load overwrites.
            __syncthreads();
            if (k_tiles >= Tile::kStages) copy_k_tile(read == stages_ ? last : read - Tile::kStage);
            simt::copy_async_commit();
            product.add(taps, slots, read, acc);
            taps += kKTileChunks;
            read = read == last ? stages_ : read + Tile::kStage;
        }
        simt::copy_async_wait<0>();
    }

  private:
    __device__ void copy_k_tile(Element* stage) {
#pragma unroll
        for (int i = 0; i < Tile::kStage; i += Tile::kThreads * Tile::Patch::kChunk) {
            const int at = i + threadIdx.x * Tile::Patch::kChunk;
            if (Tile::kStage % (Tile::kThreads * Tile::Patch::kChunk) == 0 || at < Tile::kStage)
                simt::copy_async<16>(stage + at, filters_ + at);
        }
        filters_ += Tile::kStage;
    }

    const Element* filters_;
    Element* stages_;
    int k_tiles_;
};

// What a block has in shared memory (ImageTile::shared_bytes).
template <class Tile>
struct PatchMemory {
    std::uint32_t* rows;
    int* taps;
    typename Tile::Element *slots, *stages;

    __device__ explicit PatchMemory(const typename Tile::Patch& patch)
        : rows(simt::dynamic_shared<std::uint32_t>()),
          taps(reinterpret_cast<int*>(rows + Tile::kRows)),
          slots(reinterpret_cast<typename Tile::Element*>(taps + kKTileChunks * patch.k_tiles)),
          stages(slots + patch.slots * Tile::Patch::kChunk) {}
};

// acc = the windows of a region x the filters `w` of its tile of columns, as they were packed;
// rows[i] = offset(row, p, q), where pixel (p, q) of the map is that of the row, or kNoRow.
template <class Tile, class Offset>
__device__ inline void multiply_region(const ConvShape& shape, const typename Tile::Patch& patch,
                                       const PoolTiling& tiling, const Region& region,
                                       const typename Tile::Element* x,
                                       const typename Tile::Element* w,
                                       const typename Tile::Element* filters,
                                       const PatchMemory<Tile>& memory,
                                       typename Tile::Accumulators& acc, Offset offset) {
    PatchLoop<Tile> loop(patch, filters + region.tile_n * patch.k_tiles * Tile::kStage,
                         memory.stages);
    for (int row = threadIdx.x; row < Tile::kRows; row += Tile::kThreads) {
        const auto pixel = patch.locate(row);
        const int p = region.p0 + pixel.p, q = region.q0 + pixel.q;
        const bool valid = (pixel.p < tiling.region_h) & (pixel.q < tiling.region_w) &
                           inside(p, shape.p()) & inside(q, shape.q());
        memory.rows[row] = valid ? offset(pixel.p, pixel.q, p, q) : kNoRow;
    }
    for (int chunk = threadIdx.x; chunk < kKTileChunks * patch.k_tiles; chunk += Tile::kThreads)
        memory.taps[chunk] = patch.slot_of_chunk(chunk, shape.stride_h);
    fill_patch<Tile>(shape, patch, region, x, memory.slots);
    loop.run(patch, memory.taps, memory.slots, acc);

    using Multiplier = typename Tile::Multiplier;
    constexpr int kOfRow = Multiplier::kVectors * Multiplier::kVector;
    const Multiplier mine;
    compute_nans_again<Multiplier::kRows * kOfRow>(
        [&](int i) -> float& {
            return Multiplier::at(acc, i / kOfRow, i % kOfRow / Multiplier::kVector,
                                  i % Multiplier::kVector);
        },
        [&](int i) {
            const int row = mine.row(i / kOfRow);
            const int k = region.tile_n * Tile::kCols + mine.col(i % kOfRow / Multiplier::kVector) +
                          i % Multiplier::kVector;
            if (memory.rows[row] == kNoRow || k >= shape.k) return 0.0f;
            const auto pixel = patch.locate(row);
            return sum_of_window(shape, x, w, {region.n, region.p0 + pixel.p, region.q0 + pixel.q},
                                 k);
        });
}

}  // namespace zfcuda::conv
