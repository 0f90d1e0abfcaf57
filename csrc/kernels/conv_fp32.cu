// The convolutions and blocks in exact float32.
#include "conv_instances.cuh"

ZFCUDA_INSTANTIATE_CONVOLUTIONS(Fp32)
