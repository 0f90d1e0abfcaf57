// The geometry of convolutions, pooling and crops: small structs that compute and check themselves.
//
// `check` throws std::invalid_argument, which Python sees as ValueError, with the field, its value
// and what is allowed. Kernels index with 32-bit integers, so no array may have 2^31 elements or
// more.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#define ZFCUDA_HOST_DEVICE __host__ __device__
#else
#define ZFCUDA_HOST_DEVICE
#endif

namespace zfcuda {

namespace shapes {

inline void require(bool ok, const std::string& message) {
    if (!ok) throw std::invalid_argument(message);
}

inline void require_at_least(const char* name, long long value, long long least) {
    require(value >= least, std::string(name) + " must be at least " + std::to_string(least) +
                                ", got " + std::to_string(value));
}

inline void require_indexable(const char* name, long long a, long long b, long long c,
                              long long d) {
    const double size = static_cast<double>(a) * b * c * d;
    require(size < 2147483648.0, std::string(name) + " has " + std::to_string(a) + " x " +
                                     std::to_string(b) + " x " + std::to_string(c) + " x " +
                                     std::to_string(d) +
                                     " elements; at most 2147483647 are allowed");
}

// How many windows of `window` cells fit at `stride` into `size` cells with `pad` more on either
// side.
ZFCUDA_HOST_DEVICE inline int output_size(int size, int window, int stride, int pad) {
    return (size + 2 * pad - window) / stride + 1;
}

inline void require_window(const char* name, int window, int size, int pad) {
    require(window <= size + 2LL * pad, std::string(name) + " " + std::to_string(window) +
                                            " is larger than the padded input, " +
                                            std::to_string(size) + " + 2 * " + std::to_string(pad));
}

}  // namespace shapes

// x (n, h, w, c) * w (k, r, s, c) -> y (n, p, q, k).
struct ConvShape {
    int n, h, w, c;
    int k, r, s;
    int stride_h, stride_w;
    int pad_h, pad_w;

    ZFCUDA_HOST_DEVICE int p() const { return shapes::output_size(h, r, stride_h, pad_h); }
    ZFCUDA_HOST_DEVICE int q() const { return shapes::output_size(w, s, stride_w, pad_w); }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("output channels", k, 1);
        require_at_least("kernel height", r, 1);
        require_at_least("kernel width", s, 1);
        require_at_least("stride height", stride_h, 1);
        require_at_least("stride width", stride_w, 1);
        require_at_least("padding height", pad_h, 0);
        require_at_least("padding width", pad_w, 0);
        require_window("kernel height", r, h, pad_h);
        require_window("kernel width", s, w, pad_w);
        require_indexable("x", n, h, w, c);
        require_indexable("w", k, r, s, c);
        require_indexable("y", n, p(), q(), k);
    }
};

// x (n, h, w, c) -> y, switches (n, p, q, c).
struct PoolShape {
    int n, h, w, c;
    int window_h, window_w;
    int stride_h, stride_w;
    int pad_h, pad_w;

    ZFCUDA_HOST_DEVICE int p() const { return shapes::output_size(h, window_h, stride_h, pad_h); }
    ZFCUDA_HOST_DEVICE int q() const { return shapes::output_size(w, window_w, stride_w, pad_w); }

    void check() const {
        using namespace shapes;
        require_at_least("batch size", n, 1);
        require_at_least("input height", h, 1);
        require_at_least("input width", w, 1);
        require_at_least("input channels", c, 1);
        require_at_least("window height", window_h, 1);
        require_at_least("window width", window_w, 1);
        require_at_least("stride height", stride_h, 1);
        require_at_least("stride width", stride_w, 1);
        require_at_least("padding height", pad_h, 0);
        require_at_least("padding width", pad_w, 0);
        require(static_cast<long long>(window_h) * window_w <= 256,
                "window " + std::to_string(window_h) + " x " + std::to_string(window_w) +
                    " has more than 256 cells, which a one-byte switch cannot address");
        // Then every window holds at least one cell of x.
        require(pad_h < window_h && pad_w < window_w,
                "padding (" + std::to_string(pad_h) + ", " + std::to_string(pad_w) +
                    ") must be smaller than the window (" + std::to_string(window_h) + ", " +
                    std::to_string(window_w) + ")");
        require_window("window height", window_h, h, pad_h);
        require_window("window width", window_w, w, pad_w);
        require_indexable("x", n, h, w, c);
        require_indexable("y", n, p(), q(), c);
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
