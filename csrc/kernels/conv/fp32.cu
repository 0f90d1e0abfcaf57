// The convolutions and blocks in exact float32.
#include "instances.cuh"

ZFCUDA_INSTANTIATE_CONVOLUTIONS(Fp32)
