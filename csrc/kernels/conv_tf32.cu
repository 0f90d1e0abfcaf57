// The convolutions and blocks in tf32, on tensor cores.
#include "conv_candidates.cuh"

template struct zfcuda::ConvOps<zfcuda::conv::Tf32Math>;
