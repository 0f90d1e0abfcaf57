// Max pooling with switches, and unpooling, on the CPU.
#include <algorithm>
#include <cmath>

#include "../ops.h"

namespace zfcuda {

void max_pool2d(const PoolShape& sh, const float* x, float* y, std::uint8_t* switches, Stream) {
    const int P = sh.p(), Q = sh.q(), C = sh.c;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < sh.n; ++n)
        for (int p = 0; p < P; ++p)
            for (int q = 0; q < Q; ++q) {
                const std::int64_t at = (((std::int64_t)n * P + p) * Q + q) * C;
                bool first = true;
                for (int r = 0; r < sh.window_h; ++r)
                    for (int s = 0; s < sh.window_w; ++s) {
                        const int h = p * sh.stride_h - sh.pad_h + r;
                        const int v = q * sh.stride_w - sh.pad_w + s;
                        if (h < 0 || h >= sh.h || v < 0 || v >= sh.w) continue;
                        const float* in = x + (((std::int64_t)n * sh.h + h) * sh.w + v) * C;
                        const auto code = static_cast<std::uint8_t>(r * sh.window_w + s);
                        for (int c = 0; c < C; ++c) {
                            const bool wins = first || in[c] > y[at + c] ||
                                              (std::isnan(in[c]) && !std::isnan(y[at + c]));
                            if (wins) {
                                y[at + c] = in[c];
                                switches[at + c] = code;
                            }
                        }
                        first = false;
                    }
            }
}

void max_unpool2d(const PoolShape& sh, const float* y, const std::uint8_t* switches, float* x,
                  Stream) {
    const int P = sh.p(), Q = sh.q(), C = sh.c;
#pragma omp parallel for
    for (int n = 0; n < sh.n; ++n) {
        float* image = x + (std::int64_t)n * sh.h * sh.w * C;
        std::fill(image, image + (std::int64_t)sh.h * sh.w * C, 0.0f);
        for (int p = 0; p < P; ++p)
            for (int q = 0; q < Q; ++q)
                for (int c = 0; c < C; ++c) {
                    const std::int64_t at = (((std::int64_t)n * P + p) * Q + q) * C + c;
                    const int h = p * sh.stride_h - sh.pad_h + switches[at] / sh.window_w;
                    const int v = q * sh.stride_w - sh.pad_w + switches[at] % sh.window_w;
                    if (switches[at] >= sh.window_h * sh.window_w || h < 0 || h >= sh.h || v < 0 ||
                        v >= sh.w)
                        continue;
                    image[((std::int64_t)h * sh.w + v) * C + c] += y[at];
                }
    }
}

void spatial_max(int n, int h, int w, int c, const float* x, float* values, std::int32_t* positions,
                 Stream) {
#pragma omp parallel for
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < c; ++j) {
            const float* map = x + (std::int64_t)i * h * w * c + j;
            int best = 0;
            for (int t = 1; t < h * w; ++t) {
                const float value = map[(std::int64_t)t * c], top = map[(std::int64_t)best * c];
                if (value > top || (std::isnan(value) && !std::isnan(top))) best = t;
            }
            values[i * c + j] = map[(std::int64_t)best * c];
            positions[i * c + j] = best;
        }
}

}  // namespace zfcuda
