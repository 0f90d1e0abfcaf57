// Convolution fprop as a ladder of CUDA kernels, for the same run on the emulator and on a GPU.
#pragma once

#include <vector>

#include "shapes.h"

namespace ladder {

// y (n, p, q, k) = x (n, h, w, c) * w (k, r, s, c), on arrays of the device.
struct Step {
    const char* name;
    void (*run)(const zfcuda::ConvShape& shape, const float* x, const float* w, float* y,
                void* stream);
};

// From naive to fast.
std::vector<Step> steps();

}  // namespace ladder
