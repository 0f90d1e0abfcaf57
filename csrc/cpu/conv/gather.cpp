// Im2col of gather.h: bounded by the first- and second-level caches, a few percent of the
// product that follows.
#include "gather.h"

#include <algorithm>

#include "../blocking.h"
#include "../simd.h"

namespace zfcuda::conv {

void Gather::pack(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const {
    const int run = taps_w * c;
    if (run == 0) return;
    if (tap_step_w != 1 || pitch != c) return pack_taps(m0, count, d0, d1, out, stride);
    const int r0 = d0 / run, r1 = (d1 + run - 1) / run;
    // The first and the last run may be cut by [d0, d1).
    const int first_begin = d0 - r0 * run, last_end = d1 - (r1 - 1) * run;
    const std::int64_t line_size = static_cast<std::int64_t>(w) * c;
    // Of a run, what the window before does not read, which the processor does not foresee where
    // there are gaps or many rows.
    const std::int64_t fresh = std::int64_t{step_w} * c;
    const std::int64_t ahead = std::max<std::int64_t>(1, kFetchedFloats / fresh) * fresh;

    for_rows(m0, count, [&](int row, std::int64_t image, int i, int j) {
        const int top = i * step_h - pad_top, left = j * step_w - pad_left;
        const bool inside = top + r0 * tap_step_h >= 0 && top + (r1 - 1) * tap_step_h < h &&
                            left >= 0 && left + taps_w <= w;
        // The part of each run that lies inside x.
        const int inside0 = std::clamp(-left, 0, taps_w) * c;
        const int inside1 = std::max(inside0, std::min(taps_w, w - left) * c);
        float* to = out + row * stride;
        for (int r = r0; r < r1; ++r) {
            const int begin = r == r0 ? first_begin : 0, end = r == r1 - 1 ? last_end : run;
            const int y = top + r * tap_step_h;
            const std::int64_t from =
                (image * h + y) * line_size + static_cast<std::int64_t>(left) * c;
            if (inside) {
                for (std::int64_t d = std::max<std::int64_t>(begin, end - fresh); d < end;
                     d += kLineFloats)
                    __builtin_prefetch(x + from + d + ahead);
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

void Gather::pack_taps(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const {
    // The first and the last tap may be cut by [d0, d1).
    const int tap0 = d0 / c, tap1 = (d1 + c - 1) / c;
    for_rows(m0, count, [&](int row, std::int64_t image, int i, int j) {
        const int top = i * step_h - pad_top, left = j * step_w - pad_left;
        float* to = out + row * stride;
        int r = tap0 / taps_w, s = tap0 % taps_w;
        for (int tap = tap0; tap < tap1; ++tap) {
            const int begin = tap == tap0 ? d0 - tap * c : 0;
            const int size = (tap == tap1 - 1 ? d1 - tap * c : c) - begin;
            const int y = top + r * tap_step_h, column = left + s * tap_step_w;
            if (y < 0 || y >= h || column < 0 || column >= w)
                simd::clear_spilling(to, size);
            else
                simd::copy_spilling(to, x + ((image * h + y) * w + column) * pitch + begin, size);
            to += size;
            if (++s < taps_w) continue;
            s = 0;
            ++r;
        }
    });
}

}  // namespace zfcuda::conv
