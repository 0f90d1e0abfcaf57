// Convolution on the CPU.
#include <algorithm>

#include "../ops.h"

namespace zfcuda {

std::size_t conv2d_workspace(const ConvShape&) {
    return 0;
}
std::size_t conv_transpose2d_workspace(const ConvShape&) {
    return 0;
}
std::size_t conv2d_weight_grad_workspace(const ConvShape&) {
    return 0;
}
std::size_t conv2d_bias_grad_workspace(std::int64_t, int) {
    return 0;
}

void conv2d(const ConvShape& sh, const float* x, const float* w, const float* b, bool relu,
            float* y, void*, Stream) {
    const int P = sh.p(), Q = sh.q(), C = sh.c;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < sh.n; ++n)
        for (int p = 0; p < P; ++p)
            for (int q = 0; q < Q; ++q)
                for (int k = 0; k < sh.k; ++k) {
                    float sum = b ? b[k] : 0.0f;
                    for (int r = 0; r < sh.r; ++r) {
                        const int h = p * sh.stride_h - sh.pad_h + r;
                        if (h < 0 || h >= sh.h) continue;
                        const int q0 = q * sh.stride_w - sh.pad_w;
                        const int s0 = std::max(0, -q0), s1 = std::min(sh.s, sh.w - q0);
                        if (s1 <= s0) continue;
                        const float* xr = x + (((std::int64_t)n * sh.h + h) * sh.w + q0 + s0) * C;
                        const float* wr = w + (((std::int64_t)k * sh.r + r) * sh.s + s0) * C;
                        const int count = (s1 - s0) * C;
#pragma omp simd reduction(+ : sum)
                        for (int i = 0; i < count; ++i)
                            sum += xr[i] * wr[i];
                    }
                    y[(((std::int64_t)n * P + p) * Q + q) * sh.k + k] =
                        relu && sum < 0 ? 0.0f : sum;
                }
}

void conv_transpose2d(const ConvShape& sh, const float* y, const float* w, float* x, void*,
                      Stream) {
    const int P = sh.p(), Q = sh.q(), C = sh.c;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < sh.n; ++n)
        for (int h = 0; h < sh.h; ++h)
            for (int v = 0; v < sh.w; ++v) {
                float* out = x + (((std::int64_t)n * sh.h + h) * sh.w + v) * C;
                std::fill(out, out + C, 0.0f);
                for (int r = 0; r < sh.r; ++r) {
                    const int ph = h + sh.pad_h - r;
                    if (ph < 0 || ph % sh.stride_h || ph / sh.stride_h >= P) continue;
                    for (int s = 0; s < sh.s; ++s) {
                        const int qw = v + sh.pad_w - s;
                        if (qw < 0 || qw % sh.stride_w || qw / sh.stride_w >= Q) continue;
                        const float* yk =
                            y + (((std::int64_t)n * P + ph / sh.stride_h) * Q + qw / sh.stride_w) *
                                    sh.k;
                        for (int k = 0; k < sh.k; ++k) {
                            const float* wk = w + (((std::int64_t)k * sh.r + r) * sh.s + s) * C;
#pragma omp simd
                            for (int c = 0; c < C; ++c)
                                out[c] += yk[k] * wk[c];
                        }
                    }
                }
            }
}

void conv2d_weight_grad(const ConvShape& sh, const float* x, const float* dy, float* dw, void*,
                        Stream) {
    const int P = sh.p(), Q = sh.q(), C = sh.c;
#pragma omp parallel for collapse(2)
    for (int k = 0; k < sh.k; ++k)
        for (int r = 0; r < sh.r; ++r)
            for (int s = 0; s < sh.s; ++s) {
                float* out = dw + (((std::int64_t)k * sh.r + r) * sh.s + s) * C;
                std::fill(out, out + C, 0.0f);
                for (int n = 0; n < sh.n; ++n)
                    for (int p = 0; p < P; ++p) {
                        const int h = p * sh.stride_h - sh.pad_h + r;
                        if (h < 0 || h >= sh.h) continue;
                        for (int q = 0; q < Q; ++q) {
                            const int v = q * sh.stride_w - sh.pad_w + s;
                            if (v < 0 || v >= sh.w) continue;
                            const float g = dy[(((std::int64_t)n * P + p) * Q + q) * sh.k + k];
                            const float* xc = x + (((std::int64_t)n * sh.h + h) * sh.w + v) * C;
#pragma omp simd
                            for (int c = 0; c < C; ++c)
                                out[c] += g * xc[c];
                        }
                    }
            }
}

void conv2d_bias_grad(std::int64_t rows, int channels, const float* dy, float* db, void*, Stream) {
    for (int k = 0; k < channels; ++k) {
        double sum = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            sum += dy[i * channels + k];
        db[k] = static_cast<float>(sum);
    }
}

}  // namespace zfcuda
