// Crops of uint8 images as float32 batches, on the CPU.
//
// y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], j' = j or mirrored, zero
// outside the image. Rows are independent; each is cut at the image's edges once, what is inside is
// one vectorised pass, or a walk over the pixels where it is mirrored.
#include <algorithm>

#include "../ops.h"
#include "parallel.h"

namespace zfcuda {
namespace {

void convert(const std::uint8_t* from, const float* mean, int count, float* to) {
    if (mean)
        for (int i = 0; i < count; ++i)
            to[i] = from[i] - mean[i];
    else
        for (int i = 0; i < count; ++i)
            to[i] = from[i];
}

// The same for pixels of kChannels (c, if that is 0) written backwards; `to` is the last one.
template <int kChannels>
void convert_mirrored(const std::uint8_t* from, const float* mean, int pixels, int c, float* to) {
    if (kChannels) c = kChannels;
    for (int j = 0; j < pixels; ++j, from += c, to -= c) {
        if (mean)
            for (int i = 0; i < c; ++i)
                to[i] = from[i] - mean[j * c + i];
        else
            for (int i = 0; i < c; ++i)
                to[i] = from[i];
    }
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
        const float* from_mean = mean ? mean + at : nullptr;
        const int pixels = static_cast<int>(end - first);
        const bool flip = flips[n] != 0;
        float* low = out + (flip ? sh.out_w - end : first) * sh.c;
        float* last = low + (pixels - 1) * sh.c;
        if (!flip)
            convert(from, from_mean, pixels * sh.c, low);
        else if (sh.c == 3)
            convert_mirrored<3>(from, from_mean, pixels, 3, last);
        else
            convert_mirrored<0>(from, from_mean, pixels, sh.c, last);
        std::fill(out, low, 0.0f);
        std::fill(last + sh.c, out + row_floats, 0.0f);
    }
}

}  // namespace zfcuda
