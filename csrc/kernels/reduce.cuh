// Reductions in a fixed order: the same input gives the same bits.
#pragma once

#include "indexing.cuh"
#include "simt/simt.h"

namespace zfcuda {

struct Sum {
    template <typename T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};

struct Maximum {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Combines `value` over `Threads` threads, a warp or a one-dimensional block; each gets the result.
// `scratch`: shared memory for one T per warp of a block. Every thread must call.
template <int Threads, typename T, typename Combine>
__device__ inline T reduce(T value, Combine combine, T* scratch) {
    static_assert(Threads % kWarp == 0, "whole warps");
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    if constexpr (Threads > kWarp) {
        __syncthreads();  // an earlier reduction may still read the scratch
        if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
        __syncthreads();
        value = scratch[0];
#pragma unroll
        for (int warp = 1; warp < Threads / kWarp; ++warp)
            value = combine(value, scratch[warp]);
    }
    return value;
}

}  // namespace zfcuda
