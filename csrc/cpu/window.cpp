// Windows of images, each cut at its own place from an image of its own, on the CPU.
//
// y[n,i,j,c] = x[images[n], top+i, left+j, c], (top, left) = corners[n]; zero outside x. A row of a
// window is one copy between two runs of zeros.
#include <algorithm>
#include <cstring>

#include "../ops.h"
#include "parallel.h"

namespace zfcuda {

void cut_windows(const WindowShape& sh, const void* x, const std::int32_t* corners,
                 const std::int32_t* images, void* y, Stream) {
    const std::int64_t pixel = static_cast<std::int64_t>(sh.c) * sh.bytes;
    const std::int64_t rows = static_cast<std::int64_t>(sh.n) * sh.out_h;
#pragma omp parallel for schedule(static) if (worth_threads(rows * sh.out_w * pixel / 4))
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t n = row / sh.out_h;
        const std::int64_t image = images == nullptr ? n : images[n];
        const std::int64_t h = corners[2 * n] + row % sh.out_h;
        const std::int64_t left = corners[2 * n + 1];
        // Columns first..end of the window lie in the image.
        std::int64_t first = std::clamp<std::int64_t>(-left, 0, sh.out_w);
        std::int64_t end = std::clamp<std::int64_t>(sh.w - left, first, sh.out_w);
        if (h < 0 || h >= sh.h || image < 0 || image >= sh.batch) first = end = sh.out_w;
        auto* to = static_cast<std::uint8_t*>(y) + row * sh.out_w * pixel;
        std::memset(to, 0, first * pixel);
        if (first < end) {
            const std::int64_t at = ((image * sh.h + h) * sh.w + left + first) * pixel;
            std::memcpy(to + first * pixel, static_cast<const std::uint8_t*>(x) + at,
                        (end - first) * pixel);
        }
        std::memset(to + end * pixel, 0, (sh.out_w - end) * pixel);
    }
}

}  // namespace zfcuda
