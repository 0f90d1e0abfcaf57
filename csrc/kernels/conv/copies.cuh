// How operands copy their k-tiles to shared memory.
//
// Each operand is an object that lives in a thread's registers: `load(k_tile)` starts the copies of
// its part of the next k-tile. Values outside the image, the filter or the depth are zero-filled.
// Conditions are joined by `&`, not `&&`, which would branch. Offsets are unsigned and may wrap on
// the way: they are used only where the value exists.
#pragma once

#include "kernels/indexing.cuh"
#include "kernels/vector.cuh"
#include "simt/simt.h"

namespace zfcuda::conv {

constexpr int kOutside = -(1 << 30);  // a row of no image

__device__ inline bool inside(int index, int size) {
    return static_cast<unsigned>(index) < static_cast<unsigned>(size);
}

// An output pixel: image, row and column.
struct Pixel {
    int n, p, q;
};

// What decodes a depth index that runs through the pixels in their order.
struct PixelIndex {
    FastDivisor q, p;

    __device__ Pixel locate(int pixel) const {
        const int row = pixel / q;
        return {row / p, row % p, pixel % q};
    }
    __device__ bool has(const Pixel&) const { return true; }
};

// How the threads of a block share the copies of a K-major k-tile: V elements each, kPerRow
// neighbours along a row, kPasses times, kRowsPerPass rows apart.
template <class Tile, int Rows, int V>
struct KMajorCopy {
    static constexpr int kPerRow = Tile::kDepth / V;
    static constexpr int kRowsPerPass = Tile::kThreads / kPerRow;
    static constexpr int kPasses = (Rows + kRowsPerPass - 1) / kRowsPerPass;
    static constexpr bool kWhole = Rows % kRowsPerPass == 0;

    __device__ static int depth() { return threadIdx.x % kPerRow * V; }
    __device__ static int row(int pass) { return threadIdx.x / kPerRow + pass * kRowsPerPass; }
    __device__ static bool has(int pass) { return kWhole || row(pass) < Rows; }
    template <class Layout>
    __device__ static int at(int pass) {
        return Layout::at(row(pass), depth());
    }
};

// The same for an MN-major k-tile: kPerDepth neighbours along the rows of one depth, kPasses times,
// kDepthsPerPass depths apart. A thread keeps its rows. Some threads may have none.
template <class Tile, int Rows, int V>
struct MNMajorCopy {
    static constexpr int kPerDepth = Rows / V;
    static_assert(kPerDepth <= Tile::kThreads);
    static constexpr int kDepthsPerPass = Tile::kThreads / kPerDepth;
    static constexpr int kPasses = (Tile::kDepth + kDepthsPerPass - 1) / kDepthsPerPass;
    static constexpr bool kWhole =
        Tile::kDepth % kDepthsPerPass == 0 && Tile::kThreads % kPerDepth == 0;

    __device__ static int row() { return threadIdx.x % kPerDepth * V; }
    __device__ static int depth(int pass) {
        return threadIdx.x / kPerDepth + pass * kDepthsPerPass;
    }
    __device__ static bool has(int pass) {
        return kWhole || (depth(pass) < Tile::kDepth && threadIdx.x < kPerDepth * kDepthsPerPass);
    }
    template <class Layout>
    __device__ static int at(int pass) {
        return Layout::at(row(), depth(pass));
    }
};

// The copies of one k-tile by one thread, V elements each, or zeros. They are asynchronous, but for
// those of 2 bytes, which cp.async cannot move: these pass through registers, many loads before
// their stores, so that their waits overlap.
template <class Copy, class Layout, class T, int V>
class Copies {
  public:
    __device__ explicit Copies(T* k_tile) : k_tile_(k_tile) {}

    // `global` must be readable, valid or not.
    __device__ void copy(int pass, const T* global, bool valid) {
        if constexpr (kAsync) {
            simt::copy_async<V * sizeof(T)>(k_tile_ + Copy::template at<Layout>(pass), global,
                                            valid);
        } else {
            const T value = __ldg(global);
            held_[pass % kHeld] = valid ? value : from_float<T>(0.0f);
            if (pass % kHeld == kHeld - 1 && pass < kLast) store_held(pass + 1 - kHeld);
        }
    }

    __device__ void finish() {
        if constexpr (!kAsync) store_held(kLast);
    }

  private:
    // Stores what passes `first`, first + 1, ... have loaded.
    __device__ void store_held(int first) {
#pragma unroll
        for (int i = 0; i < kHeld; ++i) {
            const int pass = first + i;
            if (pass < Copy::kPasses && Copy::has(pass))
                k_tile_[Copy::template at<Layout>(pass)] = held_[i];
        }
    }

    static constexpr bool kAsync = V * sizeof(T) >= 4;
    static constexpr int kHeld = Copy::kPasses < 12 ? Copy::kPasses : 12;  // loads under way
    static constexpr int kLast = (Copy::kPasses - 1) / kHeld * kHeld;      // first of the last ones
    T* k_tile_;
    T held_[kAsync ? 1 : kHeld];
};

}  // namespace zfcuda::conv
