// Im2col of conv_gather.h: bounded by the first- and second-level caches, a few percent of the
// product that follows.
#include "conv_gather.h"

#include <algorithm>

#include "simd.h"

namespace zfcuda {

void Gather::pack(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const {
    const int run = taps_w * c;
    if (run == 0) return;
    const int r0 = d0 / run, r1 = (d1 + run - 1) / run;
    int j = static_cast<int>(m0 % grid_w);
    const std::int64_t line = m0 / grid_w;
    int i = static_cast<int>(line % grid_h);
    const float* image = x + line / grid_h * (static_cast<std::int64_t>(h) * w * c);

    for (int row = 0; row < count; ++row, out += stride) {
        const int top = i * step_h - pad_h, left = j * step_w - pad_w;
        // The part of each run that lies inside x.
        const int inside0 = std::clamp(-left, 0, taps_w) * c;
        const int inside1 = std::max(inside0, std::min(taps_w, w - left) * c);
        float* to = out;
        for (int r = r0; r < r1; ++r) {
            const int begin = std::max(d0 - r * run, 0), end = std::min(d1 - r * run, run);
            const int y = top + r;
            if (y < 0 || y >= h) {
                simd::clear(to, end - begin);
            } else {
                const std::int64_t from = (static_cast<std::int64_t>(y) * w + left) * c;
                const int a = std::clamp(inside0, begin, end), b = std::clamp(inside1, begin, end);
                if (a > begin) simd::clear(to, a - begin);
                if (b > a) simd::copy(to + a - begin, image + from + a, b - a);
                if (end > b) simd::clear(to + b - begin, end - b);
            }
            to += end - begin;
        }
        if (++j == grid_w) {
            j = 0;
            if (++i == grid_h) {
                i = 0;
                image += static_cast<std::int64_t>(h) * w * c;
            }
        }
    }
}

}  // namespace zfcuda
