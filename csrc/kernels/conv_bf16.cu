// The convolutions and blocks on bfloat16 arrays, on tensor cores.
#include "block_fprop.cuh"
#include "block_grad.cuh"
#include "conv_dgrad.cuh"
#include "conv_fprop.cuh"
#include "conv_wgrad.cuh"

template struct zfcuda::ConvOps<zfcuda::conv::Bf16Math>;
