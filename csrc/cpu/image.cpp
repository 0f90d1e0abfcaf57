// Crops of uint8 images as float32 batches, on the CPU.
//
// y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], j' = j or mirrored, zero
// outside the image. Rows are independent; each is cut at the image's edges once, what is inside is
// one vectorised pass, and a mirrored row is turned round while it is in the cache.
#include <algorithm>

#include "../ops.h"
#include "parallel.h"

namespace zfcuda {
namespace {

// The values of one row that lie in the image.
void convert(const std::uint8_t* from, const float* mean, int count, float* to) {
    if (mean)
        for (int i = 0; i < count; ++i)
            to[i] = from[i] - mean[i];
    else
        for (int i = 0; i < count; ++i)
            to[i] = from[i];
}

// Turns the pixels of a row round.
template <int kChannels>
void mirror(int pixels, float* row) {
    struct Pixel {
        float value[kChannels];
    };
    Pixel* first = reinterpret_cast<Pixel*>(row);
    std::reverse(first, first + pixels);
}

void mirror(int pixels, int c, float* row) {
    if (c == 1) return mirror<1>(pixels, row);
    if (c == 3) return mirror<3>(pixels, row);
    for (int j = 0; j < pixels / 2; ++j)
        std::swap_ranges(row + j * c, row + (j + 1) * c, row + (pixels - 1 - j) * c);
}

}  // namespace

void crop_images(const CropShape& sh, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream) {
    const int row_floats = sh.out_w * sh.c;
#pragma omp parallel for schedule( \
        static) if (worth_threads(static_cast<std::int64_t>(sh.n) * sh.out_h * row_floats))
    for (int row = 0; row < sh.n * sh.out_h; ++row) {
        const int n = row / sh.out_h;
        const std::int64_t h = static_cast<std::int64_t>(corners[2 * n]) + row % sh.out_h;
        const std::int64_t left = corners[2 * n + 1];
        float* out = y + static_cast<std::int64_t>(row) * row_floats;
        // Columns first..end of the crop, before it is mirrored, lie in the image.
        const std::int64_t first = std::clamp<std::int64_t>(-left, 0, sh.out_w);
        const std::int64_t end = std::clamp<std::int64_t>(sh.w - left, first, sh.out_w);
        if (h < 0 || h >= sh.h || first == end) {
            std::fill(out, out + row_floats, 0.0f);
            continue;
        }
        const std::int64_t at = (h * sh.w + left + first) * sh.c;
        const std::uint8_t* from = images + static_cast<std::int64_t>(n) * sh.h * sh.w * sh.c + at;
        std::fill(out, out + first * sh.c, 0.0f);
        convert(from, mean ? mean + at : nullptr, static_cast<int>(end - first) * sh.c,
                out + first * sh.c);
        std::fill(out + end * sh.c, out + row_floats, 0.0f);
        if (flips[n]) mirror(sh.out_w, sh.c, out);
    }
}

}  // namespace zfcuda
