// The convolutions and blocks on bfloat16 arrays, on tensor cores.
#include "conv_candidates.cuh"

template struct zfcuda::ConvOps<zfcuda::conv::Bf16Math>;
