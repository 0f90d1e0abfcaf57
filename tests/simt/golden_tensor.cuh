// mbarriers, named barriers and tensor copies for the golden tests. The first 32 words of `in` say
// where; an array follows.
#pragma once

#include "simt/simt.h"

namespace golden {

using Word = std::uint32_t;
constexpr int kPlaceWords = 32;

__device__ inline int coordinate(Word word, int size) {
    return static_cast<int>(word % (size + 32)) - 16;
}

__device__ inline void begin_barrier(simt::Mbarrier& barrier, unsigned arrivals) {
    if (threadIdx.x == 0) {
        simt::mbarrier_init(barrier, arrivals);
        simt::mbarrier_init_fence();
    }
    __syncthreads();
}

// ---- A box of an array of 40 rows of 48 words ---------------------------------------------------

struct Plane {
    static constexpr int kWidth = 48, kRows = 40, kWords = kPlaceWords + kWidth * kRows;
    static constexpr int kBoxRows = 20;
};

template <int BoxWords>
__global__ void tensor_load_kernel(const __grid_constant__ simt::TensorMap map, const Word* in,
                                   Word* out) {
    Word* box = simt::dynamic_shared<Word>();
    SIMT_SHARED(simt::Mbarrier, full, 1);
    begin_barrier(full[0], 1);
    if (threadIdx.x == 0) {
        simt::mbarrier_arrive_expect(full[0], BoxWords * Plane::kBoxRows * 4);
        simt::tensor_load(box, map, full[0], coordinate(in[0], Plane::kWidth),
                          coordinate(in[1], Plane::kRows));
    }
    simt::mbarrier_wait(full[0], 0);
    for (int i = threadIdx.x; i < BoxWords * Plane::kBoxRows; i += 32)
        out[i] = box[i];
}

template <int BoxWords, simt::Swizzle S, simt::TensorType Type = simt::TensorType::kFloat>
void tensor_load(const Word* in, Word* out) {
    const simt::TensorMap map = simt::tiled_map({Type,
                                                 in + kPlaceWords,
                                                 2,
                                                 {Plane::kWidth - 1, Plane::kRows},
                                                 {Plane::kWidth * 4},
                                                 {BoxWords, Plane::kBoxRows},
                                                 {1, 1},
                                                 S});
    simt::launch<tensor_load_kernel<BoxWords>>(1, 32, BoxWords * Plane::kBoxRows * 4, nullptr, map,
                                               in, out);
}

// ---- Each second row and third plane of an array of 6 x 8 x 40 words ----------------------------

__global__ void tensor_steps_kernel(const __grid_constant__ simt::TensorMap map, const Word* in,
                                    Word* out) {
    SIMT_SHARED(Word, box, 3 * 4 * 8);
    SIMT_SHARED(simt::Mbarrier, full, 1);
    begin_barrier(full[0], 1);
    if (threadIdx.x == 0) {
        simt::mbarrier_arrive_expect(full[0], 3 * 4 * 8 * 4);
        simt::tensor_load(box, map, full[0], coordinate(in[0], 40),
                          static_cast<int>(in[1] % 12) - 4, static_cast<int>(in[2] % 9) - 3);
    }
    simt::mbarrier_wait(full[0], 0);
    for (int i = threadIdx.x; i < 3 * 4 * 8; i += 32)
        out[i] = box[i];
}

inline void tensor_steps(const Word* in, Word* out) {
    const simt::TensorMap map = simt::tiled_map({simt::TensorType::kFloat,
                                                 in + kPlaceWords,
                                                 3,
                                                 {40, 8, 6},
                                                 {40 * 4, 8 * 40 * 4},
                                                 {8, 7, 9},
                                                 {1, 2, 3},
                                                 simt::Swizzle::kNone});
    simt::launch<tensor_steps_kernel>(1, 32, 0, nullptr, map, in, out);
}

// ---- im2col: two images of 7 x 6 pixels of 12 channels; windows of 3 x 2, stride 2 x 1, dilation
// 1 x 2, padding 1 above, 2 to the left and 1 to the right: 3 x 7 places ---------------------------

struct Im2col {
    static constexpr int kWords = kPlaceWords + 2 * 7 * 6 * 12;
    static constexpr int kPixels = 16, kChannels = 8;
};

__global__ void tensor_im2col_kernel(const __grid_constant__ simt::TensorMap map, const Word* in,
                                     Word* out) {
    Word* box = simt::dynamic_shared<Word>();
    SIMT_SHARED(simt::Mbarrier, full, 1);
    begin_barrier(full[0], 1);
    if (threadIdx.x == 0) {
        const int place = static_cast<int>(in[0] % (2 * 3 * 7)), tap = static_cast<int>(in[1] % 6);
        simt::mbarrier_arrive_expect(full[0], Im2col::kPixels * Im2col::kChannels * 4);
        simt::tensor_load_im2col(box, map, full[0], static_cast<int>(in[2] % 3) * 4, place % 7 - 2,
                                 place / 7 % 3 * 2 - 1, place / 21, tap % 2 * 2, tap / 2);
    }
    simt::mbarrier_wait(full[0], 0);
    for (int i = threadIdx.x; i < Im2col::kPixels * Im2col::kChannels; i += 32)
        out[i] = box[i];
}

inline void tensor_im2col(const Word* in, Word* out) {
    const simt::TensorMap map = simt::im2col_map({simt::TensorType::kFloat,
                                                  in + kPlaceWords,
                                                  {12, 6, 7, 2},
                                                  {12 * 4, 6 * 12 * 4, 7 * 6 * 12 * 4},
                                                  {-2, -1},
                                                  {1 - 2, 0 - 2},
                                                  Im2col::kChannels,
                                                  Im2col::kPixels,
                                                  {1, 2},
                                                  simt::Swizzle::k32});
    simt::launch<tensor_im2col_kernel>(1, 32, Im2col::kPixels * Im2col::kChannels * 4, nullptr, map,
                                       in, out);
}

// ---- Stores: 20 rows of 40 words, by boxes that reach beyond them ------------------------------

__global__ void tensor_store_kernel(const __grid_constant__ simt::TensorMap map, const Word* in) {
    Word* box = simt::dynamic_shared<Word>();
    for (int number = 0; number < 6; ++number) {
        for (int i = threadIdx.x; i < 8 * 32; i += 32)
            box[i] = in[kPlaceWords + number * 256 + i];
        simt::fence_proxy_async();
        __syncthreads();
        if (threadIdx.x == 0) {
            simt::tensor_store(map, box, number % 2 * 32 - 8, number / 2 * 8 - 3);
            simt::tensor_store_commit();
            simt::tensor_store_wait_read<0>();
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) simt::tensor_store_wait<0>();
}

inline void tensor_store(const Word* in, Word* out) {
    const simt::TensorMap map = simt::tiled_map({simt::TensorType::kFloat,
                                                 out,
                                                 2,
                                                 {40, 20},
                                                 {40 * 4},
                                                 {32, 8},
                                                 {1, 1},
                                                 simt::Swizzle::k128});
    simt::launch<tensor_store_kernel>(1, 32, 8 * 32 * 4, nullptr, map, in);
}

// ---- Three warps: one copies, two add up in turns and meet at a named barrier -------------------

__global__ void barriers_kernel(const Word* in, Word* out) {
    constexpr int kStages = 2, kTiles = 7;
    SIMT_SHARED(Word, stages, kStages * 64);
    SIMT_SHARED(Word, sums, 64);
    SIMT_SHARED(simt::Mbarrier, full, kStages);
    SIMT_SHARED(simt::Mbarrier, empty, kStages);
    for (int stage = 0; stage < kStages; ++stage) {
        begin_barrier(full[stage], 32);
        begin_barrier(empty[stage], 2);
    }
    const int i = threadIdx.x;
    Word sum = 0;
    for (int tile = 0; tile < kTiles; ++tile) {
        const int stage = tile % kStages;
        const unsigned parity = tile / kStages % 2;
        Word* at = stages + stage * 64;
        if (i >= 64) {
            simt::mbarrier_wait(empty[stage], parity ^ 1);
            simt::copy_async<8>(at + 2 * (i - 64), in + kPlaceWords + tile * 64 + 2 * (i - 64));
            simt::copy_async_arrive(full[stage]);
        } else {
            simt::mbarrier_wait(full[stage], parity);
            sum = 3 * sum + at[63 - i];
            __syncwarp();
            if (i % 32 == 0) simt::mbarrier_arrive(empty[stage]);
        }
    }
    if (i >= 64) return;
    sums[i] = sum;
    simt::named_barrier_sync(1, 64);
    out[i] = sums[i ^ 33];
}

inline void barriers(const Word* in, Word* out) {
    simt::launch<barriers_kernel>(1, 96, 0, nullptr, in, out);
}

}  // namespace golden
