// Crops of uint8 images as float32 batches, on the CPU.
//
// y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], j' = j or mirrored, zero
// outside the image. Rows are independent; each is cut at the image's edges once, what is inside is
// one vectorised pass, or a walk over the pixels where it is mirrored. Rows of large results go past
// the caches, by way of a row in the first-level cache: what is read next stays there.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "blocking.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

// Of a result, which a thread takes at a time. The threads that read the next batch want the cores,
// too: halves of equal size left one thread waiting for the other.
constexpr int kTaskRows = 64;

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

// A row of the result, in `out`.
void crop_row(const CropShape& sh, const std::uint8_t* images, const float* mean,
              const std::int32_t* corners, const std::uint8_t* flips, std::int64_t row,
              float* out) {
    const int row_floats = sh.out_w * sh.c;
    const std::int64_t n = row / sh.out_h;
    const std::int64_t h = static_cast<std::int64_t>(corners[2 * n]) + row % sh.out_h;
    const std::int64_t left = corners[2 * n + 1];
    // Columns first..end of the crop, before it is mirrored, lie in the image.
    const std::int64_t first = std::clamp<std::int64_t>(-left, 0, sh.out_w);
    const std::int64_t end = std::clamp<std::int64_t>(sh.w - left, first, sh.out_w);
    if (h < 0 || h >= sh.h || first == end) {
        std::fill(out, out + row_floats, 0.0f);
        return;
    }
    const std::int64_t at = (h * sh.w + left + first) * sh.c;
    const std::uint8_t* from = images + n * sh.h * sh.w * sh.c + at;
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

void copy_past_caches(const float* from, int count, float* to) {
    for (int i = 0; i < count; i += simd::kLanes)
        simd::stream(to + i, simd::load(from + i));
}

}  // namespace

void crop_images(const CropShape& sh, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream) {
    const int row_floats = sh.out_w * sh.c;
    const std::int64_t rows = std::int64_t{sh.n} * sh.out_h;
    const bool stream = rows * row_floats * 4 > kStreamBytes && row_floats % simd::kLanes == 0 &&
                        simd::is_aligned(y);
    Tasks tasks(ceil_div(rows, kTaskRows));
#pragma omp parallel if (worth_threads(rows * row_floats))
    {
        std::vector<float> kept(stream ? row_floats : 0);
        tasks.run([&](std::int64_t task) {
            const std::int64_t end = std::min(rows, (task + 1) * kTaskRows);
            for (std::int64_t row = task * kTaskRows; row < end; ++row) {
                float* out = y + row * row_floats;
                crop_row(sh, images, mean, corners, flips, row, stream ? kept.data() : out);
                if (stream) copy_past_caches(kept.data(), row_floats, out);
            }
        });
        if (stream) simd::stream_fence();
    }
}

}  // namespace zfcuda
