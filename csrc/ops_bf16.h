// The operations of ops.h on bfloat16 arrays: storage of 16 bits, arithmetic in float32, results
// rounded to nearest even.
//
// csrc/kernels implements this list beside that of ops.h, csrc/cpu does not: there zfcuda/ops.py
// widens the arrays to float32 and rounds the results. What ops.h says of an operation holds here
// too.
#pragma once

#include <cstdint>

#include "ops.h"

struct __nv_bfloat16;  // of CUDA, and of the emulator

namespace zfcuda {

using Bf16 = __nv_bfloat16;

// ---- Between the two ----------------------------------------------------------------------------

// y = x, rounded to nearest even.
void narrow(std::int64_t size, const float* x, Bf16* y, Stream stream);

// y = x, exactly.
void widen(std::int64_t size, const Bf16* x, float* y, Stream stream);

// ---- Convolution: all but this in kernels/conv_ops.h --------------------------------------------

// db is float32. The workspace is that of the float32 operation.
void conv2d_bias_grad(std::int64_t rows, int channels, const Bf16* dy, float* db, void* workspace,
                      Stream stream);

// ---- Max pooling with switches ------------------------------------------------------------------

void max_pool2d(const PoolShape& shape, const Bf16* x, Bf16* y, std::uint8_t* switches,
                Stream stream);
void max_unpool2d(const PoolShape& shape, const Bf16* y, const std::uint8_t* switches, Bf16* x,
                  Stream stream);
void spatial_max(int n, int h, int w, int c, const Bf16* x, Bf16* values, std::int32_t* positions,
                 Stream stream);

// ---- Element-wise -------------------------------------------------------------------------------

void relu(std::int64_t size, const Bf16* x, Bf16* y, Stream stream);
void relu_grad(std::int64_t size, const Bf16* dy, const Bf16* y, Bf16* dx, Stream stream);
void dropout(std::int64_t size, const Bf16* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, Bf16* y, Stream stream);

// ---- Local response normalisation ---------------------------------------------------------------

void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const Bf16* x, Bf16* y, Stream stream);
void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const Bf16* dy, const Bf16* x, Bf16* dx, Stream stream);

}  // namespace zfcuda
