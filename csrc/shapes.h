// The geometry of convolutions, pooling and crops: small structs that compute and check themselves.
//
// `check` throws std::invalid_argument, which Python sees as ValueError, with the field, its value
// and what is allowed. Kernels index with 32-bit integers: the limits below, checked in 64 bits
// before anything is computed, are what keeps all of their arithmetic within these.
#pragma once

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#define ZFCUDA_HOST_DEVICE __host__ __device__
#else
#define ZFCUDA_HOST_DEVICE
#endif

namespace zfcuda {

namespace shapes {

// Of the elements of an array, and of an image with its padding: the last tile of a kernel may
// count a little beyond.
constexpr long long kMaxElements = (1LL << 31) - (1 << 16);

// Of a stride or a padding: times the few channels of the methods for first layers it fits, too.
constexpr long long kMaxStep = 1 << 24;

// Of a kernel's extent: kernels take rows this far outside for none.
constexpr long long kMaxExtent = 1 << 29;

// The message is put together only where the check fails: launchers check at every call.
template <class... Parts>
void require(bool ok, const Parts&... message) {
    if (ok) return;
    std::ostringstream text;
    (text << ... << message);
    throw std::invalid_argument(text.str());
}

inline void require_at_least(const char* name, long long value, long long least) {
    require(value >= least, name, " must be at least ", least, ", got ", value);
}

inline void require_between(const char* name, long long value, long long least, long long most) {
    require_at_least(name, value, least);
    require(value <= most, name, " must be at most ", most, ", got ", value);
}

inline void require_indexable(const char* name, long long a, long long b, long long c,
                              long long d) {
    const double size = static_cast<double>(a) * b * c * d;
    require(size <= kMaxElements, name, " has ", a, " x ", b, " x ", c, " x ", d,
            " elements; at most ", kMaxElements, " are allowed");
}

// How many windows of `window` cells fit at `stride` into `size` cells with `before` and `after`
// more at its ends, of a shape that has been checked.
ZFCUDA_HOST_DEVICE inline int output_size(int size, int window, int stride, int before, int after) {
    return (size + before + after - window) / stride + 1;
}

// The padding `after` an axis with which its windows are as many as PyTorch's `ceil_mode` makes
// them: the last one may hang over the edge, but begins in the input or in the padding before it.
inline long long ceil_padding(long long size, long long window, long long stride, long long before,
                              long long after) {
    const long long over = size + before + after - window + stride - 1;
    if (std::min(before, after) < 0 || window < 1 || stride < 1 || over < 0)
        return after;                         // to be refused
    long long last = over / stride * stride;  // where the last window begins
    if (last >= size + before) last -= stride;
    return std::max(after, last + window - size - before);
}

// The paddings of an axis, by names that tell its ends apart only where they differ.
inline void require_padding(const char* axis, const char* name_before, int before,
                            const char* name_after, int after) {
    require_between(before == after ? axis : name_before, before, 0, kMaxStep);
    require_between(name_after, after, 0, kMaxStep);
}

inline void require_window(const char* name, long long window, int size, int before, int after) {
    require(window <= static_cast<long long>(size) + before + after, name, " ", window,
            " is larger than the padded input, ", before, " + ", size, " + ", after);
}

// The same of a kernel whose taps lie `dilation` apart.
inline void require_extent(const std::string& name, long long taps, long long dilation, int size,
                           int before, int after) {
    const long long extent = (taps - 1) * dilation + 1;
    require_between(name.c_str(), extent, 1, kMaxExtent);
    require_window((dilation == 1 ? name : name + ", dilated,").c_str(), extent, size, before,
                   after);
}

}  // namespace shapes

// x (n, h, w, c) * w (k, r, s, c / groups) -> y (n, p, q, k). The first c / groups channels meet the
// first k / groups filters, and so on.
struct ConvShape {
    int n, h, w, c;
    int k, r, s;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    int dilation_h, dilation_w;
    int groups;

    // Cells that a window spans.
    ZFCUDA_HOST_DEVICE int extent_h() const { return (r - 1) * dilation_h + 1; }
    ZFCUDA_HOST_DEVICE int extent_w() const { return (s - 1) * dilation_w + 1; }
    ZFCUDA_HOST_DEVICE int p() const {
        return shapes::output_size(h, extent_h(), stride_h, pad_top, pad_bottom);
    }
    ZFCUDA_HOST_DEVICE int q() const {
        return shapes::output_size(w, extent_w(), stride_w, pad_left, pad_right);
    }

    // Channels and filters of a group.
    ZFCUDA_HOST_DEVICE int group_c() const { return c / groups; }
    ZFCUDA_HOST_DEVICE int group_k() const { return k / groups; }

    // Whether windows have no gaps, and filters see all channels.
    bool is_dense() const { return dilation_h == 1 && dilation_w == 1 && groups == 1; }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("output channels", k, 1);
        require_at_least("kernel height", r, 1);
        require_at_least("kernel width", s, 1);
        require_between("stride height", stride_h, 1, kMaxStep);
        require_between("stride width", stride_w, 1, kMaxStep);
        require_padding("padding height", "padding top", pad_top, "padding bottom", pad_bottom);
        require_padding("padding width", "padding left", pad_left, "padding right", pad_right);
        require_between("dilation height", dilation_h, 1, kMaxStep);
        require_between("dilation width", dilation_w, 1, kMaxStep);
        require(groups >= 1 && c % groups == 0 && k % groups == 0,
                "groups must divide the input channels, ", c, ", and the output channels, ", k,
                "; got ", groups);
        require_extent("kernel height", r, dilation_h, h, pad_top, pad_bottom);
        require_extent("kernel width", s, dilation_w, w, pad_left, pad_right);
        require_indexable("x", n, h, w, c);
        require_indexable("w", k, r, s, group_c());
        require_indexable("an image with its padding", 1, h + 0LL + pad_top + pad_bottom,
                          w + 0LL + pad_left + pad_right, c);
        require_indexable("y", n, p(), q(), k);
    }
};

// x (n, h, w, c) -> y, switches (n, p, q, c).
struct PoolShape {
    int n, h, w, c;
    int window_h, window_w;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;

    ZFCUDA_HOST_DEVICE int p() const {
        return shapes::output_size(h, window_h, stride_h, pad_top, pad_bottom);
    }
    ZFCUDA_HOST_DEVICE int q() const {
        return shapes::output_size(w, window_w, stride_w, pad_left, pad_right);
    }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("window height", window_h, 1);
        require_at_least("window width", window_w, 1);
        require_between("pool stride height", stride_h, 1, kMaxStep);
        require_between("pool stride width", stride_w, 1, kMaxStep);
        require_padding("pool padding height", "pool padding top", pad_top, "pool padding bottom",
                        pad_bottom);
        require_padding("pool padding width", "pool padding left", pad_left, "pool padding right",
                        pad_right);
        require(static_cast<long long>(window_h) * window_w <= 256, "window ", window_h, " x ",
                window_w, " has more than 256 cells, which a one-byte switch cannot address");
        // Then every window holds at least one cell of x.
        require(
            std::max(pad_top, pad_bottom) < window_h && std::max(pad_left, pad_right) < window_w,
            "pool padding (", std::max(pad_top, pad_bottom), ", ", std::max(pad_left, pad_right),
            ") must be smaller than the window (", window_h, ", ", window_w, ")");
        require_window("window height", window_h, h, pad_top, pad_bottom);
        require_window("window width", window_w, w, pad_left, pad_right);
        require_indexable("x", n, h, w, c);
        require_indexable("an image with its padding", 1, h + 0LL + pad_top + pad_bottom,
                          w + 0LL + pad_left + pad_right, c);
        require_indexable("y", n, p(), q(), c);
    }
};

// The cells of x, in one direction, that a window of an average meets, and how many it divides by.
struct Averaged {
    int begin, end, count;
};

// x (n, h, w, c) -> y (n, p, q, c), with padding of its own on each of the four sides.
//
// In ceil mode a window may hang over the end, so that none of x is left out, as long as it begins
// in x or in the padding before it; what it hangs over beyond the padding does not count.
struct AvgPoolShape {
    int n, h, w, c;
    int window_h, window_w;
    int stride_h, stride_w;
    int top, bottom, left, right;
    bool ceil_mode, count_include_pad;

    ZFCUDA_HOST_DEVICE int p() const { return windows(h, window_h, stride_h, top, bottom); }
    ZFCUDA_HOST_DEVICE int q() const { return windows(w, window_w, stride_w, left, right); }

    ZFCUDA_HOST_DEVICE Averaged rows(int p) const {
        return averaged(p * stride_h - top, window_h, h, bottom);
    }
    ZFCUDA_HOST_DEVICE Averaged columns(int q) const {
        return averaged(q * stride_w - left, window_w, w, right);
    }

    // Whether one window meets all of x.
    bool is_global() const {
        return p() == 1 && q() == 1 && rows(0).end == h && columns(0).end == w;
    }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        check_direction("height", h, window_h, stride_h, {"top", "bottom"}, {top, bottom});
        check_direction("width", w, window_w, stride_w, {"left", "right"}, {left, right});
        require_indexable("x", n, h, w, c);
        require_indexable("y", n, p(), q(), c);
    }

  private:
    // Sums of two such numbers fit an int.
    static constexpr long long kMaxPaddedSize = 1 << 30;

    ZFCUDA_HOST_DEVICE int windows(int size, int window, int stride, int before, int after) const {
        const long long span = static_cast<long long>(size) + before + after - window;
        const long long last = (span + (ceil_mode ? stride - 1 : 0)) / stride;
        return static_cast<int>(ceil_mode && last * stride >= size + before ? last : last + 1);
    }

    ZFCUDA_HOST_DEVICE Averaged averaged(int start, int window, int size, int after) const {
        const int padded_end = start + window < size + after ? start + window : size + after;
        const int begin = start > 0 ? start : 0;
        const int end = padded_end < size ? padded_end : size;
        return {begin, end, count_include_pad ? padded_end - start : end - begin};
    }

    static void check_direction(const std::string& name, int size, int window, int stride,
                                const char* const (&sides)[2], const int (&pads)[2]) {
        using namespace shapes;
        require_at_least(("window " + name).c_str(), window, 1);
        require_between(("stride " + name).c_str(), stride, 1, kMaxStep);
        for (int i = 0; i < 2; ++i) {
            const std::string padding = std::string("padding at the ") + sides[i];
            require_between(padding.c_str(), pads[i], 0, kMaxStep);
            // Then every window holds at least one cell of x.
            require(pads[i] < window, padding, " must be smaller than the window ", name, " ",
                    window, ", got ", pads[i]);
        }
        const long long padded = static_cast<long long>(size) + pads[0] + pads[1];
        require(window <= padded, "window ", name, " ", window,
                " is larger than the padded input, ", pads[0], " + ", size, " + ", pads[1]);
        require(padded < kMaxPaddedSize, "padded input ", name, " must be less than ",
                kMaxPaddedSize, ", got ", padded);
    }
};

// x (n, h, w, c) * w (k, r, s, 1) -> y (n, p, q, k): output channel i reads input channel i /
// multiplier(). With padding of its own on each of the four sides.
struct DepthwiseShape {
    int n, h, w, c;
    int k, r, s;
    int stride_h, stride_w;
    int top, bottom, left, right;
    int dilation_h, dilation_w;

    ZFCUDA_HOST_DEVICE int p() const {
        return windows(h, top, bottom, extent(r, dilation_h), stride_h);
    }
    ZFCUDA_HOST_DEVICE int q() const {
        return windows(w, left, right, extent(s, dilation_w), stride_w);
    }
    ZFCUDA_HOST_DEVICE int multiplier() const { return k / c; }
    ZFCUDA_HOST_DEVICE int taps() const { return r * s; }

    // Where the strides are 1: the convolution that takes y to x with mirrored filters.
    DepthwiseShape mirrored() const {
        const int below = (r - 1) * dilation_h, beside = (s - 1) * dilation_w;
        return {n,
                p(),
                q(),
                k,
                c,
                r,
                s,
                1,
                1,
                below - top,
                below - bottom,
                beside - left,
                beside - right,
                dilation_h,
                dilation_w};
    }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("output channels", k, 1);
        require(k % c == 0, "output channels must be a multiple of the ", c,
                " input channels, got ", k);
        check_direction("height", h, r, stride_h, dilation_h, {"top", "bottom"}, {top, bottom});
        check_direction("width", w, s, stride_w, dilation_w, {"left", "right"}, {left, right});
        require_indexable("x", n, h, w, c);
        require_indexable("w", k, r, s, 1);
        require_indexable("y", n, p(), q(), k);
    }

  private:
    // Sums of two such numbers fit an int.
    static constexpr long long kMaxPaddedSize = 1 << 30;

    // Cells from a filter's first to its last.
    ZFCUDA_HOST_DEVICE static long long extent(int taps, int dilation) {
        return (taps - 1LL) * dilation + 1;
    }

    ZFCUDA_HOST_DEVICE static int windows(int size, int before, int after, long long extent,
                                          int stride) {
        return static_cast<int>((static_cast<long long>(size) + before + after - extent) / stride) +
               1;
    }

    static void check_direction(const std::string& name, int size, int taps, int stride,
                                int dilation, const char* const (&sides)[2], const int (&pads)[2]) {
        using namespace shapes;
        require_at_least(("kernel " + name).c_str(), taps, 1);
        require_between(("stride " + name).c_str(), stride, 1, kMaxStep);
        require_between(("dilation " + name).c_str(), dilation, 1, kMaxStep);
        for (int i = 0; i < 2; ++i)
            require_between((std::string("padding at the ") + sides[i]).c_str(), pads[i], 0,
                            kMaxStep);
        const long long padded = static_cast<long long>(size) + pads[0] + pads[1];
        require(extent(taps, dilation) <= padded, "kernel ", name, " ", taps, " at dilation ",
                dilation, " is larger than the padded input, ", pads[0], " + ", size, " + ",
                pads[1]);
        require(padded < kMaxPaddedSize, "padded input ", name, " must be less than ",
                kMaxPaddedSize, ", got ", padded);
    }
};

// images (n, h, w, c) -> y (n, out_h, out_w, c).
struct CropShape {
    int n, h, w, c;
    int out_h, out_w;

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("image height", h, 1);
        require_at_least("image width", w, 1);
        require_at_least("image channels", c, 1);
        require_at_least("crop height", out_h, 1);
        require_at_least("crop width", out_w, 1);
        require_indexable("images", n, h, w, c);
        require_indexable("y", n, out_h, out_w, c);
    }
};

// x (batch, h, w, c) of elements of `bytes` bytes -> y (n, out_h, out_w, c).
struct WindowShape {
    int batch, h, w, c;
    int n, out_h, out_w;
    int bytes;

    void check() const {
        using namespace shapes;
        require_at_least("batch size", batch, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("number of windows", n, 1);
        require_at_least("window height", out_h, 1);
        require_at_least("window width", out_w, 1);
        require_indexable("x", batch, h, w, c);
        require_indexable("y", n, out_h, out_w, c);
        require_indexable("bytes of a row", 1, out_w, c, bytes);
    }
};

// The pool of a block reads the output of its convolution.
inline void check_block(const ConvShape& conv, const PoolShape& pool) {
    conv.check();
    pool.check();
    shapes::require(
        pool.n == conv.n && pool.h == conv.p() && pool.w == conv.q() && pool.c == conv.k,
        "the pool's input must be the convolution's output");
}

}  // namespace zfcuda
