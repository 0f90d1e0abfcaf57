// Im2col of gather.h: bounded by the first- and second-level caches, a few percent of the
// product that follows.
#include "gather.h"

#include <algorithm>

#include "../simd.h"

namespace zfcuda::conv {

void Gather::pack(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const {
    const int run = taps_w * c;
    if (run == 0) return;
    const int r0 = d0 / run, r1 = (d1 + run - 1) / run;
    // The first and the last run may be cut by [d0, d1).
    const int first_begin = d0 - r0 * run, last_end = d1 - (r1 - 1) * run;
    const std::int64_t line_size = static_cast<std::int64_t>(w) * c;

    for_rows(m0, count, [&](int row, std::int64_t image, int i, int j) {
        const int top = i * step_h - pad_top, left = j * step_w - pad_left;
        const bool inside = top + r0 >= 0 && top + r1 <= h && left >= 0 && left + taps_w <= w;
        // The part of each run that lies inside x.
        const int inside0 = std::clamp(-left, 0, taps_w) * c;
        const int inside1 = std::max(inside0, std::min(taps_w, w - left) * c);
        float* to = out + row * stride;
        for (int r = r0; r < r1; ++r) {
            const int begin = r == r0 ? first_begin : 0, end = r == r1 - 1 ? last_end : run;
            const int y = top + r;
            const std::int64_t from =
                (image * h + y) * line_size + static_cast<std::int64_t>(left) * c;
            if (inside) {
                simd::copy_spilling(to, x + from + begin, end - begin);
            } else if (y < 0 || y >= h) {
                simd::clear_spilling(to, end - begin);
            } else {
                const int a = std::clamp(inside0, begin, end), b = std::clamp(inside1, begin, end);
                simd::clear_spilling(to, a - begin);
                if (b > a) simd::copy_spilling(to + a - begin, x + from + a, b - a);
                simd::clear_spilling(to + b - begin, end - b);
            }
            to += end - begin;
        }
    });
}

}  // namespace zfcuda::conv
