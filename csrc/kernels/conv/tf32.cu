// The convolutions and blocks in tf32, on tensor cores.
#include "instances.cuh"

ZFCUDA_INSTANTIATE_CONVOLUTIONS(Tf32)
