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
#pragma unroll
        for (int i = 0; i < kItems; i += Tile::kThreads) {
            const int item = i + threadIdx.x;
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

// ---- The product --------------------------------------------------------------------------------

// acc[i][j] is the fragment of filters 16i to 16i + 15 and of columns 8j to 8j + 7 of a warp.
template <class Tile>
class PixelProduct {
  public:
    using Element = typename Tile::Element;
    static constexpr int kBlocksM = Tile::kWarpRows / 16, kBlocksN = Tile::kWarpCols / 8;
    using Accumulators = float[kBlocksM][kBlocksN][4];

    // Columns from `first_col` on.
    __device__ PixelProduct(const typename Tile::Patch& patch, int first_col, int stride_h) {
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

    __device__ int filter(int i, int e) const {
        return row_ + 16 * i + e / 2 * 8 + threadIdx.x % kWarp / 4;
    }
    __device__ int column(int j, int e) const { return col_ + 8 * j + threadIdx.x % 4 * 2 + e % 2; }

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

// Stores a block's sums to dw, which is as large as all of it.
template <class Tile>
__device__ inline void store_filters(const ConvShape& shape, const typename Tile::Patch& patch,
                                     const PixelProduct<Tile>& product, int first_row,
                                     typename PixelProduct<Tile>::Accumulators& acc, float* dw) {
    constexpr int kChunk = Tile::Patch::kChunk;
    const int size = shape.r * shape.s * shape.c;
#pragma unroll
    for (int j = 0; j < PixelProduct<Tile>::kBlocksN; ++j)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
            const int column = product.column(j, odd), chunk = column / kChunk;
            const int r = chunk / patch.taps_across, t = chunk - r * patch.taps_across.divisor;
            const int s = t * patch.pixels + column % kChunk / patch.channels;
            const int c = column % kChunk % patch.channels;
            if (r >= shape.r || s >= shape.s || c >= shape.c) continue;
#pragma unroll
            for (int i = 0; i < PixelProduct<Tile>::kBlocksM; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int k = first_row + product.filter(i, 2 * half);
                    if (k < shape.k)
                        dw[k * size + (r * shape.s + s) * shape.c + c] = acc[i][j][2 * half + odd];
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
    const int tiles_n = divide_up(patch.chunks * Tile::Patch::kChunk, Tile::kCols);
    const int first_row = static_cast<int>(index.tile) / tiles_n * Tile::kRows;
    const int first_col = static_cast<int>(index.tile) % tiles_n * Tile::kCols;
    const int first = static_cast<int>(index.split) * regions_per_split;
    const int end = min(first + regions_per_split, regions);

    auto* rows = simt::dynamic_shared<std::uint32_t>();
    auto* windows = reinterpret_cast<int*>(rows + Tile::kRegion);
    auto* slots = reinterpret_cast<T*>(windows + Tile::kRegion);
    T* const stages = slots + patch.slots * Tile::Patch::kChunk;

    const RegionPixels<Tile> operand(dy, shape.k, first_row, rows);
    const PixelProduct<Tile> product(patch, first_col, shape.stride_h);
    typename PixelProduct<Tile>::Accumulators acc;
    constexpr int kBlocksN = PixelProduct<Tile>::kBlocksN;
#pragma unroll
    for (int i = 0; i < PixelProduct<Tile>::kBlocksM * kBlocksN * 4; ++i)
        acc[i / 4 / kBlocksN][i / 4 % kBlocksN][i % 4] = 0.0f;

    const int k_tiles = divide_up(patch.rows, Tile::kPixels);
    for (int number = first; number < end; ++number) {
        const Region region(pixels, tiling, TileIndex{static_cast<unsigned>(number), 0, 1});
        // Rows that are none have the window of one that is: another might have an infinity or a
        // NaN where no window has that tap.
        const int last_p = min(tiling.region_h, pixels.h - region.p0) - 1;
        const int last_q = min(tiling.region_w, pixels.w - region.q0) - 1;
        __syncthreads();  // nobody reads the region before any more
        for (int row = threadIdx.x; row < Tile::kRegion; row += Tile::kThreads) {
            const auto pixel = patch.locate(row);
            const int p = region.p0 + pixel.p, q = region.q0 + pixel.q;
            const bool valid = (pixel.p < tiling.region_h) & (pixel.q < tiling.region_w) &
                               inside(p, pixels.h) & inside(q, pixels.w);
            const std::uint32_t line = static_cast<std::uint32_t>(region.n) * pixels.h + p;
            rows[row] = valid ? (line * pixels.w + q) * pixels.c : kNoRow;
            windows[row] = patch.slot_of_pixel(min(pixel.p, last_p), min(pixel.q, last_q));
        }
        __syncthreads();
        for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
            if (stage < k_tiles) operand.copy(stages + stage * Tile::kStage, stage);
            simt::copy_async_commit();
        }
        fill_patch<Tile>(shape, patch, region, x, slots);

        T* const last = stages + (Tile::kStages - 1) * Tile::kStage;
        T* read = stages;
#pragma unroll 1
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
            simt::copy_async_wait<Tile::kStages - 2>();
            // Everybody's copies of this stage have landed, and nobody still reads the stage before
            // it, which the next copy overwrites.
            __syncthreads();
            if (k_tile + Tile::kStages <= k_tiles)
                operand.copy(read == stages ? last : read - Tile::kStage,
                             k_tile + Tile::kStages - 1);
            simt::copy_async_commit();
            product.add(read, slots, windows + k_tile * Tile::kPixels, acc);
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
