// The convolutions and blocks on bfloat16 arrays, on tensor cores.
#include "instances.cuh"

ZFCUDA_INSTANTIATE_CONVOLUTIONS(Bf16)
