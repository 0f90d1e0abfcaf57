// What the directions have in common on Hopper's own main loop (tma.cuh): where windows begin, the
// lines of which they consist (tma_windows.h), their tensor map, which knows where successive windows
// lie (im2col), and the launch.
#pragma once

#include <algorithm>
#include <type_traits>

#include "run_product.cuh"
#include "tile_index.cuh"
#include "tma.cuh"
#include "tma_windows.h"

namespace zfcuda::conv {

// Of a window: its image, and its row and column among those of the image.
struct WindowPlace {
    int n, p, q;

    __device__ WindowPlace(const TmaWindows& windows, int window) {
        const int row = window / windows.across;
        n = row / windows.down;
        p = row - n * windows.down;
        q = window - row * windows.across;
    }

    // To the window that comes as many later as `step` is the number of.
    __device__ void move(const TmaWindows& windows, const WindowPlace& step) {
        q += step.q;
        p += step.p;
        n += step.n;
        if (q >= windows.across) {
            q -= windows.across;
            ++p;
        }
        if (p >= windows.down) {
            p -= windows.down;
            ++n;
        }
    }

    __device__ int h(const TmaWindows& windows) const {
        return p * windows.stride_h + windows.first_h;
    }
    __device__ int w(const TmaWindows& windows) const {
        return q * windows.stride_w + windows.first_w;
    }
};

// Which of the lines of a window comes next, of so many channels each.
template <int Channels>
class WindowLine {
  public:
    int tap, r, s, c;  // `c`: the first of its channels

    // Of taps_h x taps_w taps, or none, of so many channels.
    __device__ WindowLine(int channels, int taps_h, int taps_w, int line)
        : channels_(channels), taps_w_(taps_w), taps_(taps_h * taps_w) {
        const int lines = divide_up(channels_, Channels);
        tap = line / lines;
        c = (line - tap * lines) * Channels;
        r = tap / max(taps_w_, 1);
        s = tap - r * taps_w_;
    }

    // Beyond the last tap there are zeros: channels that do not exist, under that tap, for no copy may
    // have a larger offset.
    __device__ void advance() {
        c += Channels;
        if (c < channels_ || tap == taps_ || ++tap == taps_) return;
        if (++s == taps_w_) {
            s = 0;
            ++r;
        }
        c = 0;
    }

  private:
    int channels_, taps_w_, taps_;
};

// ---- The launch ---------------------------------------------------------------------------------

inline simt::Swizzle swizzle_of(int line) {
    return line == 128 ? simt::Swizzle::k128 : simt::Swizzle::k64;
}

// As what the accelerator reads an array. Floats it rounds to tf32, to nearest as simt::to_tf32 does
// for mma.sync: of random factors, results are off by 3e-4 then. Tensor cores, which cut the 13 low
// bits off, would make that 8e-4, nearly all of it towards zero; 2e-3 are allowed.
template <class T>
constexpr simt::TensorType kTensorType =
    std::is_same_v<T, float> ? simt::TensorType::kTf32 : simt::TensorType::kBf16;

// Of an image, for `count` successive windows.
template <class T>
simt::TensorMap window_map(const TmaWindows& v, const T* image, int line, int count) {
    const std::uint64_t c = v.channels, w = v.w, h = v.h, n = v.n, pixel = sizeof(T) * c;
    return simt::im2col_map(
        {kTensorType<T>,
         image,
         {c, w, h, n},
         {pixel, pixel * w, pixel * w * h},
         {v.first_w, v.first_h},
         {v.last_w(), v.last_h()},
         static_cast<std::uint32_t>(line / sizeof(T)),
         static_cast<std::uint32_t>(count),
         {static_cast<std::uint32_t>(v.stride_w), static_cast<std::uint32_t>(v.stride_h)},
         swizzle_of(line)});
}

// Calls run(line, blocks, work) with the bytes of a line, as many blocks as there are SMs at most,
// and what they share.
template <class T, class Run>
void launch_tiles(const TmaWindows& windows, const Launch<T>& launch, Run run) {
    const unsigned sms = simt::multiprocessors(), blocks = std::min(launch.work.count(), sms);
    if (windows.has_half_lines())
        run(std::integral_constant<int, 64>{}, dim3(blocks), launch.work);
    else
        run(std::integral_constant<int, 128>{}, dim3(blocks), launch.work);
}

}  // namespace zfcuda::conv
