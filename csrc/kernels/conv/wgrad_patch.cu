// The kernel of wgrad_patch.cuh.
#include "wgrad_patch.cuh"

#include "patch_windows.cuh"
#include "run_product.cuh"

namespace zfcuda::conv {

// ---- dy -----------------------------------------------------------------------------------------

// Copies the k-tiles of a region: pixel after pixel, kRows of its channels.
template <class Tile>
class RegionPixels {
  public:
    using Element = typename Tile::Element;

    // Channels from `first` on; `pixels`: where the region's lie.
    __device__ RegionPixels(const Element* dy, int channels, int first, const std::uint32_t* pixels)
        : dy_(dy), pixels_(pixels), first_(first), left_(channels - first) {}

    __device__ void copy(Element* stage, int k_tile) const {
        constexpr int kVector = Tile::Patch::kChunk, kPerPixel = Tile::kRows / kVector;
        constexpr int kItems = Tile::kPixels * kPerPixel;
        unsigned thread = threadIdx.x;
        // Where it copies is computed again each time: registers are for accumulators.
        if constexpr (Tile::kGroup > 1) asm volatile("" : "+r"(thread));
#pragma unroll
        for (int i = 0; i < kItems; i += Tile::kThreads) {
            const int item = i + thread;
            if (kItems % Tile::kThreads != 0 && item >= kItems) break;
            const int pixel = item / kPerPixel, channel = item % kPerPixel * kVector;
            const std::uint32_t at = pixels_[k_tile * Tile::kPixels + pixel];
            const bool valid = (at != kNoRow) & (channel < left_);
            simt::copy_async<16>(stage + pixel * Tile::kPitch + channel,
                                 dy_ + (valid ? at + first_ + channel : 0), valid);
        }
    }

  private:
    const Element* dy_;
    const std::uint32_t* pixels_;
    int first_, left_;
};

// ---- The product on tensor cores ----------------------------------------------------------------

// acc[i][j] is the fragment of filters 16i to 16i + 15 and of columns 8j to 8j + 7 of a warp.
template <class Tile>
class PixelMmaProduct {
  public:
    using Element = typename Tile::Element;
    using Accumulators = typename Tile::Accumulators;
    static constexpr int kBlocksM = Tile::kWarpRows / 16, kBlocksN = Tile::kWarpCols / 8;
    static constexpr int kFilters = 2 * kBlocksM, kColumns = 2 * kBlocksN;  // of a thread

    // Columns from `first_col` on.
    __device__ PixelMmaProduct(const typename Tile::Patch& patch, int first_col, int stride_h) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        row_ = warp / Tile::kWarpsN * Tile::kWarpRows;
        col_ = first_col + warp % Tile::kWarpsN * Tile::kWarpCols;
        const int own = kIsWord ? lane / 4 : 0;  // of eight columns
#pragma unroll
        for (int j = 0; j < kBlocksN; ++j) {
            const int column = col_ + 8 * j + own;
            columns_[j] = patch.slot_of_chunk(column / kChunk, stride_h) * kChunk + own % kChunk;
        }
        // ldmatrix: row and half as a fragment has them, transposed. Words: filter and pixel.
        filter_ = kIsWord ? lane % 4 * Tile::kPitch + row_ + lane / 4
                          : (lane / 16 * 8 + lane % 8) * Tile::kPitch + row_ + lane / 8 % 2 * 8;
    }

    __device__ int filter(int i) const { return row_ + 8 * i + threadIdx.x % kWarp / 4; }
    __device__ int column(int j) const { return col_ + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2; }
    __device__ static float& at(Accumulators& acc, int i, int j) {
        return acc[i / 2][j / 2][i % 2 * 2 + j % 2];
    }

    // acc += a k-tile of dy times the windows that begin at `windows`, in slots.
    __device__ void add(const Element* stage, const Element* slots, const int* windows,
                        Accumulators& acc) const {
        const int lane = threadIdx.x % kWarp;
        std::uint32_t a[2][kBlocksM][4];
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
            for (int i = 0; i < kBlocksM; ++i) {
                const Element* const from =
                    stage + filter_ + step * (Tile::kPixels / 2 * Tile::kPitch) + 16 * i;
                if constexpr (kIsWord) {
#pragma unroll
                    for (int word = 0; word < 4; ++word)
                        a[step][i][word] =
                            simt::to_tf32(from[word / 2 * 4 * Tile::kPitch + word % 2 * 8]);
                } else {
                    simt::load_matrix_x4_trans(a[step][i], from);
                }
            }
        int window[kIsWord ? 4 : 1];
#pragma unroll
        for (int half = 0; half < (kIsWord ? 4 : 1); ++half)
            window[half] = windows[kIsWord ? half * 4 + lane % 4 : lane] * kChunk;
#pragma unroll
        for (int j = 0; j < kBlocksN; ++j) {
            std::uint32_t b[4];
            if constexpr (kIsWord) {
#pragma unroll
                for (int half = 0; half < 4; ++half)
                    b[half] = __float_as_uint(slots[window[half] + columns_[j]]);
            } else {
                simt::load_matrix_x4_trans(b, slots + window[0] + columns_[j]);
            }
#pragma unroll
            for (int step = 0; step < 2; ++step) {
                const std::uint32_t words[2] = {b[2 * step], b[2 * step + 1]};
#pragma unroll
                for (int i = 0; i < kBlocksM; ++i)
                    multiply_add(typename Tile::Math(), acc[i][j], a[step][i], words);
            }
        }
    }

  private:
    static constexpr bool kIsWord = sizeof(Element) == 4;
    static constexpr int kChunk = Tile::Patch::kChunk;
    int row_, col_, filter_;
    int columns_[kBlocksN];
};

// ---- The product in float32 ---------------------------------------------------------------------

// acc[i][j] is of filter(i) and column(j): filters in vectors of four and of the rest, the elements
// of kChunks neighbouring chunks. The lanes of half a warp read the same chunks.
template <class Tile>
class PixelFfmaProduct {
  public:
    using Accumulators = typename Tile::Accumulators;
    static constexpr int kFilters = Tile::kThreadM, kColumns = Tile::kChunks * Tile::kElements;

    __device__ PixelFfmaProduct(const typename Tile::Patch& patch, int first_col, int stride_h) {
        const int half = threadIdx.x / Tile::kLanesM;
        lane_ = threadIdx.x % Tile::kLanesM;
        first_chunk_ = first_col / Tile::kElements + half * Tile::kChunks;
#pragma unroll
        for (int j = 0; j < Tile::kChunks; ++j)
            chunks_[j] = patch.slot_of_chunk(first_chunk_ + j, stride_h) * kChunk;
    }

    __device__ int filter(int i) const {
        return i < 4 ? 4 * lane_ + i : 4 * Tile::kLanesM + kRest * lane_ + i - 4;
    }
    __device__ int column(int j) const { return first_chunk_ * Tile::kElements + j; }
    __device__ static float& at(Accumulators& acc, int i, int j) { return acc[i][j]; }

    __device__ void add(const float* stage, const float* slots, const int* windows,
                        Accumulators& acc) const {
        // Not unrolled: see ffma.cuh.
#pragma unroll 1
        for (int group = 0; group < Tile::kPixels / Tile::kGroup; ++group) {
            const float* const window = slots + windows[group] * kChunk;
#pragma unroll
            for (int pixel = 0; pixel < Tile::kGroup; ++pixel) {
                float a[kFilters];
                read_filters(a, stage + pixel * Tile::kPitch);
#pragma unroll
                for (int j = 0; j < Tile::kChunks; ++j) {
                    const auto b = load<kChunk>(window + chunks_[j] + pixel * kChunk);
#pragma unroll
                    for (int e = 0; e < Tile::kElements; ++e)
#pragma unroll
                        for (int i = 0; i < kFilters; ++i)
                            acc[i][j * Tile::kElements + e] =
                                fmaf(a[i], b.at[e], acc[i][j * Tile::kElements + e]);
                }
            }
            stage += Tile::kGroup * Tile::kPitch;
        }
    }

  private:
    static constexpr int kChunk = Tile::Patch::kChunk;
    static constexpr int kRest = kFilters - 4;

    // Of a pixel of dy.
    __device__ void read_filters(float (&values)[kFilters], const float* pixel) const {
        const auto first = load<4>(pixel + 4 * lane_);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            values[i] = first.at[i];
        if constexpr (kRest > 0) {
            const auto rest = load<kRest>(pixel + 4 * Tile::kLanesM + kRest * lane_);
#pragma unroll
            for (int i = 0; i < kRest; ++i)
                values[4 + i] = rest.at[i];
        }
    }

    int lane_, first_chunk_;
    int chunks_[Tile::kChunks];  // where they lie, from where a window begins
};

// ---- The kernel ---------------------------------------------------------------------------------

// A region that lies in the map as a whole: one at the map's end is moved back over those before it,
// whose pixels, the first `skip_p` lines and `skip_q` columns, are none of its own.
struct WholeRegion : Region {
    int skip_p, skip_q;

    __device__ WholeRegion(const PoolShape& pixels, const PoolTiling& tiling, int number)
        : Region(pixels, tiling, TileIndex{static_cast<unsigned>(number), 0, 1}),
          skip_p(max(0, p0 + tiling.region_h - pixels.h)),
          skip_q(max(0, q0 + tiling.region_w - pixels.w)) {
        p0 -= skip_p;
        q0 -= skip_q;
    }
};

// Writes where the pixels of a region lie in dy, and where the windows of groups begin in the patch.
// A group at the end of a line is moved back until its pixels are the region's: those that another
// group or region has, and what fills up the k-tiles, are none, but have windows of the map. (Others
// might have an infinity or a NaN where no window has that tap.)
template <class Tile>
__device__ inline void place_pixels(const PoolShape& pixels, const PoolTiling& tiling,
                                    const typename Tile::Patch& patch, const WholeRegion& region,
                                    std::uint32_t* rows, int* windows) {
    const int shifts = patch.shifts.divisor;  // from a pixel of a group to the next
    for (int row = threadIdx.x; row < Tile::kRegion; row += Tile::kThreads) {
        const auto [p, there] = patch.locate(row);
        const int first = there - row % Tile::kGroup * shifts;  // of the group
        const int last = first + (Tile::kGroup - 1) * shifts;
        const int beyond = max(0, last - (tiling.region_w - 1));
        const int q = max(0, there - (beyond + shifts - 1) / patch.shifts * shifts);
        const bool valid =
            (p < tiling.region_h) & (p >= region.skip_p) & (q >= max(first, region.skip_q));
        const std::uint32_t line = static_cast<std::uint32_t>(region.n) * pixels.h + region.p0 + p;
        rows[row] = valid ? (line * pixels.w + region.q0 + q) * pixels.c : kNoRow;
        if (row % Tile::kGroup == 0)
            windows[row / Tile::kGroup] = patch.slot_of_pixel(min(p, tiling.region_h - 1), q);
    }
}

// Stores a block's sums to dw, which is as large as all of it.
template <class Tile>
__device__ inline void store_filters(const ConvShape& shape, const typename Tile::Patch& patch,
                                     const typename Tile::Product& product, int first_row,
                                     typename Tile::Accumulators& acc, float* dw) {
    const int size = shape.r * shape.s * shape.c;
#pragma unroll
    for (int j = 0; j < Tile::Product::kColumns; ++j) {
        const int column = product.column(j), chunk = column / Tile::kElements;
        const int element = column - chunk * Tile::kElements;
        const int r = chunk / patch.taps_across, t = chunk - r * patch.taps_across.divisor;
        const int s = t * patch.pixels + element / patch.channels;
        const int c = element % patch.channels;
        if (r >= shape.r || s >= shape.s || c >= shape.c) continue;
#pragma unroll
        for (int i = 0; i < Tile::Product::kFilters; ++i) {
            const int k = first_row + product.filter(i);
            if (k < shape.k)
                dw[k * size + (r * shape.s + s) * shape.c + c] = Tile::Product::at(acc, i, j);
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    wgrad_patch_kernel(ConvShape shape, PoolShape pixels, PoolTiling tiling,
                       typename Tile::Patch patch, const typename Tile::Element* x,
                       const typename Tile::Element* dy, float* dw, int regions,
                       int regions_per_split) {
    using T = typename Tile::Element;
    const auto index = TileIndex::of_block();
    const int tiles_n = divide_up(patch.chunks * Tile::kElements, Tile::kCols);
    const int first_row = static_cast<int>(index.tile) / tiles_n * Tile::kRows;
    const int first_col = static_cast<int>(index.tile) % tiles_n * Tile::kCols;
    const int first = static_cast<int>(index.split) * regions_per_split;
    const int end = min(first + regions_per_split, regions);

    auto* rows = simt::dynamic_shared<std::uint32_t>();
    auto* windows = reinterpret_cast<int*>(rows + Tile::kRegion);
    auto* slots = reinterpret_cast<T*>(windows + Tile::kRegion / Tile::kGroup);
    T* const stages = slots + patch.slots * Tile::Patch::kChunk;

    const RegionPixels<Tile> operand(dy, shape.k, first_row, rows);
    const typename Tile::Product product(patch, first_col, shape.stride_h);
    typename Tile::Accumulators acc;
#pragma unroll
    for (int i = 0; i < Tile::Product::kFilters; ++i)
#pragma unroll
        for (int j = 0; j < Tile::Product::kColumns; ++j)
            Tile::Product::at(acc, i, j) = 0.0f;

    const int k_tiles = divide_up(patch.rows, Tile::kPixels);
    const int line = patch.shifts.divisor * patch.across.divisor;  // rows of it
    for (int number = first; number < end; ++number) {
        const WholeRegion region(pixels, tiling, number);
        __syncthreads();  // nobody reads the region before any more
        place_pixels<Tile>(pixels, tiling, patch, region, rows, windows);
        __syncthreads();
        const int first_k_tile = region.skip_p * line / Tile::kPixels;
        for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
            if (first_k_tile + stage < k_tiles)
                operand.copy(stages + stage * Tile::kStage, first_k_tile + stage);
            simt::copy_async_commit();
        }
        fill_patch<Tile>(shape, patch, region, x, slots);

        T* const last = stages + (Tile::kStages - 1) * Tile::kStage;
        T* read = stages;
#pragma unroll 1
        for (int k_tile = first_k_tile; k_tile < k_tiles; ++k_tile) {
            simt::copy_async_wait<Tile::kStages - 2>();
            // Everybody's copies of this stage have landed, and nobody still reads the stage before
            // it, which the next copy overwrites.
            __syncthreads();
            if (k_tile + Tile::kStages <= k_tiles)
                operand.copy(read == stages ? last : read - Tile::kStage,
                             k_tile + Tile::kStages - 1);
            simt::copy_async_commit();
            product.add(read, slots, windows + k_tile * (Tile::kPixels / Tile::kGroup), acc);
            read = read == last ? stages : read + Tile::kStage;
        }
        simt::copy_async_wait<0>();
    }
    const std::size_t size = static_cast<std::size_t>(shape.k) * shape.r * shape.s * shape.c;
    store_filters<Tile>(shape, patch, product, first_row, acc, dw + index.split * size);
}

template <class Math>
std::size_t wgrad_patch_workspace(const ConvShape& shape, const Plan& plan) {
    return plan.splits > 1 ? sizeof(float) * plan.splits * wgrad_product<Math>(shape).size : 0;
}

template <class Math>
void wgrad_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* x,
                 const Element<Math>* dy, float* dw, void* workspace, Stream stream) {
    for_each_wgrad_image_tile<Math>(
        shape, [&](auto tile, const Product& product, const auto& tiling, const auto& patch) {
            using Tile = decltype(tile);
            if (!(kKernel<Tile> == plan.kernel)) return;
            const PoolShape pixels = pool_of_pixels(shape);
            float* const sums = plan.splits > 1 ? static_cast<float*>(workspace) : dw;
            simt::launch<wgrad_patch_kernel<Tile>>(
                dim3(plan.tiles, plan.splits), dim3(Tile::kThreads), Tile::shared_bytes(patch),
                stream, shape, pixels, tiling, patch, x, dy, sums, count_regions(pixels, tiling),
                plan.k_tiles_per_split);
            if (plan.splits > 1) {
                Epilogue<float> whole;
                whole.vectorised = product.size % 4 == 0 && aligned_for_vectors(dw);
                add_splits(AsResult(), plan.splits, product.size, shape.c, sums, whole, dw, stream);
            }
        });
}

template decltype(wgrad_patch<Fp32>) wgrad_patch<Fp32>;
template decltype(wgrad_patch<Tf32>) wgrad_patch<Tf32>;
template decltype(wgrad_patch<Bf16>) wgrad_patch<Bf16>;
template decltype(wgrad_patch_workspace<Fp32>) wgrad_patch_workspace<Fp32>;
template decltype(wgrad_patch_workspace<Tf32>) wgrad_patch_workspace<Tf32>;
template decltype(wgrad_patch_workspace<Bf16>) wgrad_patch_workspace<Bf16>;

}  // namespace zfcuda::conv
