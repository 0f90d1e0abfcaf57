// The operand that is gathered through windows: A of fprop and, over y, of dgrad.
//
// In NHWC the values that one window reads from one row of the image are contiguous: a run of S * C
// elements. So the depth index is a pair (r, t): filter row r and position t = s * C + c in the
// run. Whether t lies inside the image is one comparison, and first layers (C = 3 or 1) need no
// case of their own: with copies of one element (V = 1) a run is read at full coalescing whatever C
// is. Copies of 16 bytes (V = kVectorWidth) need C % kVectorWidth == 0.
//
// `TapWindows` are those whose taps lie apart, or of which a group reads only some channels: there a
// run is what one tap reads.
#pragma once

#include <type_traits>

#include "copies.cuh"
#include "epilogue.cuh"

namespace zfcuda::conv {

// An NHWC array whose windows are read, seen as rows of `pitch` = width * channels elements.
template <class T>
struct WindowedImage {
    const T* data;
    int height, pitch;
    int taps;  // rows of a window: R
    int run;   // elements of a window in each row: S * C
};

// One row of a windowed operand, decoded once per block and kept in shared memory: where its window
// begins in the image (offset; row h0; the image's columns are the positions t in [begin, begin +
// pitch) of the run), and where its results go (kNoRow: there is no such row).
struct alignas(16) WindowRow {
    std::uint32_t offset;
    int h0;
    std::uint32_t begin;
    std::uint32_t output;
};

__device__ inline WindowRow no_window_row() {
    return {0, kOutside, 0, kNoRow};
}

// The window of image n with its corner at (h0, w0), `width` pixels of `channels` to a row.
__device__ inline WindowRow window_row(int n, int h0, int w0, int height, int width, int channels,
                                       int window_width, std::uint32_t output) {
    // Beyond these limits no column is inside; clamped, the product cannot overflow.
    w0 = max(-window_width, min(w0, width));
    const std::uint32_t begin = 0u - static_cast<std::uint32_t>(w0 * channels);
    const std::uint32_t row = static_cast<std::uint32_t>(n) * height + h0;
    return {row * (width * channels) - begin, h0, begin, output};
}

// Windows of an image, one per row: value (row, (r, t)) is the image at (h0 + r, run position t).
template <class Tile, int V>
class Windows {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template KMajor<Tile::kRows>;

    // Begins at depth index `depth` = r * run + t.
    __device__ Windows(const WindowedImage<Element>& image, const WindowRow* rows, int depth)
        : image_(image), rows_(rows) {
        depth += Copy::depth();
        r_ = depth / image.run;
        t_ = depth - r_ * image.run;
    }

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
        const std::uint32_t tap = static_cast<std::uint32_t>(r_) * image_.pitch + t_;
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int row = Copy::row(pass);
            if (!Copy::has(pass)) break;
            const WindowRow window = rows_[row];
            const bool valid = (r_ < image_.taps) & inside(window.h0 + r_, image_.height) &
                               (static_cast<std::uint32_t>(t_) - window.begin <
                                static_cast<std::uint32_t>(image_.pitch));
            copies.copy(pass, image_.data + (valid ? window.offset + tap : 0), valid);
        }
        copies.finish();
        t_ += Tile::kDepth;
        while (t_ >= image_.run && r_ < image_.taps) {
            t_ -= image_.run;
            ++r_;
        }
    }

  private:
    using Copy = KMajorCopy<Tile, Tile::kRows, V>;
    WindowedImage<Element> image_;
    const WindowRow* rows_;
    int r_, t_;
};

// ---- Tap by tap ---------------------------------------------------------------------------------

// An NHWC array whose windows are read with gaps.
template <class T>
struct TappedImage {
    const T* data;                       // the first channel that is read
    int height, width, pitch;            // pixels lie `pitch` channels apart
    int taps_h, taps_w, step_h, step_w;  // of a window: taps, and how far they lie apart
    int run;                             // channels of a tap
};

// The window of image n with its corner at (h0, w0), which takes the place of `begin`.
template <class T>
__device__ inline WindowRow tap_window_row(const TappedImage<T>& image, int n, int h0, int w0,
                                           std::uint32_t output) {
    const std::uint32_t row = static_cast<std::uint32_t>(n) * image.height + h0;
    return {(row * image.width + w0) * image.pitch, h0, static_cast<std::uint32_t>(w0), output};
}

// Windows of an image, one per row: value (row, (r, s, c)) is the image at (h0 + r * step_h, w0 + s
// * step_w, c).
template <class Tile, int V>
class TapWindows {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template KMajor<Tile::kRows>;

    // Begins at depth index `depth`.
    __device__ TapWindows(const TappedImage<Element>& image, const WindowRow* rows, int depth)
        : image_(image), rows_(rows) {
        depth += Copy::depth();
        const int tap = depth / image.run;
        c_ = depth - tap * image.run;
        r_ = tap / image.taps_w;
        s_ = tap - r_ * image.taps_w;
    }

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
        const int down = r_ * image_.step_h, across = s_ * image_.step_w;
        const std::uint32_t tap =
            (static_cast<std::uint32_t>(down) * image_.width + across) * image_.pitch + c_;
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int row = Copy::row(pass);
            if (!Copy::has(pass)) break;
            const WindowRow window = rows_[row];
            const bool valid = (r_ < image_.taps_h) & inside(window.h0 + down, image_.height) &
                               inside(static_cast<int>(window.begin) + across, image_.width);
            copies.copy(pass, image_.data + (valid ? window.offset + tap : 0), valid);
        }
        copies.finish();
        c_ += Tile::kDepth;
        while (c_ >= image_.run && r_ < image_.taps_h) {
            c_ -= image_.run;
            if (++s_ < image_.taps_w) continue;
            s_ = 0;
            ++r_;
        }
    }

  private:
    using Copy = KMajorCopy<Tile, Tile::kRows, V>;
    TappedImage<Element> image_;
    const WindowRow* rows_;
    int r_, s_, c_;
};

// The windows of a convolution: `Windows` of a dense one, else `TapWindows`.
template <class Tile, int V, bool Dense>
using WindowsOf = std::conditional_t<Dense, Windows<Tile, V>, TapWindows<Tile, V>>;

}  // namespace zfcuda::conv
