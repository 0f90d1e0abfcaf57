// The operand that is gathered through windows: A of fprop and, over y, of dgrad.
//
// In NHWC the values that one window reads from one row of the image are contiguous: a run of S * C
// elements. So the depth index is a pair (r, t): filter row r and position t = s * C + c in the
// run. Whether t lies inside the image is one comparison, and first layers (C = 3 or 1) need no
// case of their own: with copies of one element (V = 1) a run is read at full coalescing whatever C
// is. Copies of 16 bytes (V = kVectorWidth) need C % kVectorWidth == 0.
#pragma once

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

}  // namespace zfcuda::conv
