// Crops of uint8 images as float32 batches, on the CPU.
#include "../ops.h"

namespace zfcuda {

void crop_images(const CropShape& sh, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream) {
#pragma omp parallel for
    for (int n = 0; n < sh.n; ++n)
        for (int i = 0; i < sh.out_h; ++i)
            for (int j = 0; j < sh.out_w; ++j) {
                const int h = corners[2 * n] + i;
                const int v = corners[2 * n + 1] + (flips[n] ? sh.out_w - 1 - j : j);
                const bool inside = h >= 0 && h < sh.h && v >= 0 && v < sh.w;
                for (int c = 0; c < sh.c; ++c) {
                    const std::int64_t at = ((std::int64_t)h * sh.w + v) * sh.c + c;
                    float value = 0.0f;
                    if (inside) {
                        value = images[(std::int64_t)n * sh.h * sh.w * sh.c + at];
                        if (mean) value -= mean[at];
                    }
                    y[(((std::int64_t)n * sh.out_h + i) * sh.out_w + j) * sh.c + c] = value;
                }
            }
}

}  // namespace zfcuda
