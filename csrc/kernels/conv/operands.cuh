// The operands of the implicit matrix products of convolution: how each slice finds its values.
//
// In NHWC the values that one window reads from one row of the image are contiguous: a run of S * C
// elements. So the depth index of an operand that is gathered through windows is a pair (r, t):
// filter row r and position t = s * C + c in the run. Whether t lies inside the image is one
// comparison, and first layers (C = 3 or 1) need no case of their own: with copies of one element
// (V = 1) a run is read at full coalescing whatever C is. Wide copies (V = kVectorWidth) move 16
// bytes and need C % kVectorWidth == 0.
//
// Each operand is an object that lives in a thread's registers: `load(slice)` starts the copies of
// its part of the next slice. Values outside the image, the filter or the depth are zero-filled.
// Conditions are joined by `&`, not `&&`, which would branch. Offsets are unsigned and may wrap on
// the way: they are used only where the value exists.
#pragma once

#include "conv_phases.h"
#include "kernels/indexing.cuh"
#include "main_loop.cuh"
#include "shapes.h"

namespace zfcuda::conv {

// Whether arrays whose rows have this many elements may be copied 16 bytes at a time.
template <class... T>
bool is_wide(int elements, const T*... arrays) {
    return ((elements % kVectorWidth<T> == 0 && aligned_for_vectors<kVectorWidth<T>>(arrays)) &&
            ...);
}

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

constexpr int kOutside = -(1 << 30);  // a row of no image

__device__ inline bool inside(int index, int size) {
    return static_cast<unsigned>(index) < static_cast<unsigned>(size);
}

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

// How the threads of a block share the copies of a slice of DepthRuns: V elements each, kPerRow
// neighbours along a run, kPasses times, kRowsPerPass rows apart.
template <class Tile, int Rows, int V>
struct DepthRunsCopy {
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

// The same for a slice of RowRuns: kPerDepth neighbours along the rows of one depth, kPasses times,
// kDepthsPerPass depths apart. A thread keeps its rows. Some threads may have none.
template <class Tile, int Rows, int V>
struct RowRunsCopy {
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

// The copies of one slice by one thread, V elements each, or zeros. They are asynchronous, but for
// those of 2 bytes, which cp.async cannot move: these pass through registers, many loads before
// their stores, so that their waits overlap.
template <class Copy, class Layout, class T, int V>
class Copies {
  public:
    __device__ explicit Copies(T* slice) : slice_(slice) {}

    // `global` must be readable, valid or not.
    __device__ void copy(int pass, const T* global, bool valid) {
        if constexpr (kAsync) {
            simt::copy_async<V * sizeof(T)>(slice_ + Copy::template at<Layout>(pass), global,
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
                slice_[Copy::template at<Layout>(pass)] = held_[i];
        }
    }

    static constexpr bool kAsync = V * sizeof(T) >= 4;
    static constexpr int kHeld = Copy::kPasses < 12 ? Copy::kPasses : 12;  // loads under way
    static constexpr int kLast = (Copy::kPasses - 1) / kHeld * kHeld;      // first of the last ones
    T* slice_;
    T held_[kAsync ? 1 : kHeld];
};

// ---- Depth along runs (fprop; A of dgrad) -------------------------------------------------------

// Windows of an image, one per row: value (row, (r, t)) is the image at (h0 + r, run position t).
template <class Tile, int V>
class Windows {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template DepthRuns<Tile::kRows>;

    // Begins at depth index `depth` = r * run + t.
    __device__ Windows(const WindowedImage<Element>& image, const WindowRow* rows, int depth)
        : image_(image), rows_(rows) {
        depth += Copy::depth();
        r_ = depth / image.run;
        t_ = depth - r_ * image.run;
    }

    __device__ void load(Element* slice) {
        Copies<Copy, Layout, Element, V> copies(slice);
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
    using Copy = DepthRunsCopy<Tile, Tile::kRows, V>;
    WindowedImage<Element> image_;
    const WindowRow* rows_;
    int r_, t_;
};

// Filters, one per row (B of fprop): value (k, depth) is w[k * pitch + depth].
template <class Tile, int V>
class Filters {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template DepthRuns<Tile::kCols>;

    __device__ Filters(const Element* w, int filters, int pitch, int first, int depth)
        : w_(w),
          rows_(filters - first),
          pitch_(pitch),
          depth_(depth + Copy::depth()),
          offset_(static_cast<std::uint32_t>(first + Copy::row(0)) * pitch + depth_) {}

    __device__ void load(Element* slice) {
        Copies<Copy, Layout, Element, V> copies(slice);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int row = Copy::row(pass);
            if (!Copy::has(pass)) break;
            const bool valid = (row < rows_) & (depth_ < pitch_);
            const std::uint32_t at =
                offset_ + static_cast<std::uint32_t>(pass * Copy::kRowsPerPass) * pitch_;
            copies.copy(pass, w_ + (valid ? at : 0), valid);
        }
        copies.finish();
        depth_ += Tile::kDepth;
        offset_ += Tile::kDepth;
    }

  private:
    using Copy = DepthRunsCopy<Tile, Tile::kCols, V>;
    const Element* w_;
    int rows_, pitch_, depth_;
    std::uint32_t offset_;
};

// ---- Rows along runs (B of dgrad; both of wgrad) ------------------------------------------------

// Filters transposed (B of dgrad): value (c, (i, j, k)) is w[k, row of tap i, column of tap j, c].
template <class Tile, int V>
class TransposedFilters {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template RowRuns<Tile::kCols>;

    __device__ TransposedFilters(const ConvShape& shape, const PhaseTaps& taps, const Element* w,
                                 int first, int depth)
        : w_(w), taps_(taps), shape_{shape.k, shape.r * shape.s * shape.c, shape.s, shape.c} {
        c_ = first + Copy::row();
        depth += Copy::depth(0);
        const int tap = depth / shape.k;
        k_ = depth - tap * shape.k;
        const int i = taps.cols > 0 ? tap / taps.cols : 0;
        r_ = taps.row0 - i * taps.row_step;
        s_ = taps.col0 - (tap - i * taps.cols) * taps.col_step;
    }

    __device__ void load(Element* slice) {
        Copies<Copy, Layout, Element, V> copies(slice);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            if (Copy::has(pass)) {
                const bool valid = (r_ >= 0) & (c_ < shape_.channels);
                const std::uint32_t at = static_cast<std::uint32_t>(k_) * shape_.filter +
                                         (r_ * shape_.width + s_) * shape_.channels + c_;
                copies.copy(pass, w_ + (valid ? at : 0), valid);
            }
            // The next pass's depth; after the last pass, the first depth of the next slice.
            advance(pass + 1 < Copy::kPasses
                        ? Copy::kDepthsPerPass
                        : Tile::kDepth - (Copy::kPasses - 1) * Copy::kDepthsPerPass);
        }
        copies.finish();
    }

  private:
    using Copy = RowRunsCopy<Tile, Tile::kCols, V>;

    __device__ void advance(int depths) {
        k_ += depths;
        while (k_ >= shape_.filters && r_ >= 0) {
            k_ -= shape_.filters;
            s_ -= taps_.col_step;
            if (s_ < 0) {
                s_ = taps_.col0;
                r_ -= taps_.row_step;
            }
        }
    }

    const Element* w_;
    PhaseTaps taps_;
    struct {
        int filters, filter, width, channels;
    } shape_;
    int c_, k_, r_, s_;
};

// What decodes an output pixel's index into image, row and column.
struct PixelIndex {
    FastDivisor q, p;

    struct Pixel {
        int n, p, q;
    };
    __device__ Pixel locate(int pixel) const {
        const int row = pixel / q;
        return {row / p, row % p, pixel % q};
    }
};

// Pixels (A of wgrad): value (k, pixel) is dy[pixel * channels + k].
template <class Tile, int V>
class Pixels {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template RowRuns<Tile::kRows>;
    using Source = const Element*;

    // Begins at depth index `pixel`; there are `pixels`.
    __device__ Pixels(Source dy, const PixelIndex&, int pixels, int channels, int first, int pixel)
        : dy_(dy),
          pixel_(pixel + Copy::depth(0)),
          pixels_(pixels),
          channels_(channels),
          inside_(first + Copy::row() < channels),
          offset_(static_cast<std::uint32_t>(pixel_) * channels + first + Copy::row()) {}

    __device__ void load(Element* slice) {
        Copies<Copy, Layout, Element, V> copies(slice);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int depth = Copy::depth(pass);
            if (!Copy::has(pass)) break;
            const int ahead = pass * Copy::kDepthsPerPass;
            const bool valid = inside_ & (pixel_ + ahead < pixels_);
            const std::uint32_t at = offset_ + static_cast<std::uint32_t>(ahead) * channels_;
            copies.copy(pass, dy_ + (valid ? at : 0), valid);
        }
        copies.finish();
        pixel_ += Tile::kDepth;
        offset_ += static_cast<std::uint32_t>(Tile::kDepth) * channels_;
    }

  private:
    using Copy = RowRunsCopy<Tile, Tile::kRows, V>;
    Source dy_;
    int pixel_, pixels_, channels_;
    bool inside_;
    std::uint32_t offset_;
};

// The windows of pixels (B of wgrad): value ((r, s, c), pixel) is x at tap (r, s), channel c of the
// window of that output pixel.
template <class Tile, int V>
class PixelWindows {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template RowRuns<Tile::kCols>;

    __device__ PixelWindows(const ConvShape& shape, const PixelIndex& index, const Element* x,
                            int pixels, int first, int pixel)
        : x_(x), shape_(shape), index_(index), pixel_(pixel + Copy::depth(0)), pixels_(pixels) {
        const int column = first + Copy::row();
        const int tap = column / shape.c;
        r_ = tap / shape.s;
        s_ = tap - r_ * shape.s - shape.pad_w;
        c_ = column - tap * shape.c;
        // A column past the last is given a row of no image.
        r_ = r_ < shape.r ? r_ - shape.pad_h : kOutside;
    }

    __device__ void load(Element* slice) {
        Copies<Copy, Layout, Element, V> copies(slice);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            const int depth = Copy::depth(pass);
            if (!Copy::has(pass)) break;
            const int pixel = pixel_ + pass * Copy::kDepthsPerPass;
            const PixelIndex::Pixel at = index_.locate(pixel);
            const int h = at.p * shape_.stride_h + r_;
            const int w = at.q * shape_.stride_w + s_;
            const bool valid = (pixel < pixels_) & inside(h, shape_.h) & inside(w, shape_.w);
            const std::uint32_t offset =
                ((static_cast<std::uint32_t>(at.n) * shape_.h + h) * shape_.w + w) * shape_.c + c_;
            copies.copy(pass, x_ + (valid ? offset : 0), valid);
        }
        copies.finish();
        pixel_ += Tile::kDepth;
    }

  private:
    using Copy = RowRunsCopy<Tile, Tile::kCols, V>;
    const Element* x_;
    ConvShape shape_;
    PixelIndex index_;
    int pixel_, pixels_;
    int r_, s_, c_;  // the tap, relative to stride * the pixel's row and column
};

}  // namespace zfcuda::conv
