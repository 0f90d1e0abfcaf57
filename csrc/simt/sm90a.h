// Instructions of sm_90a under nvcc. Other architectures get a trap: no kernel that comes here is
// launched on them.
#pragma once

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SIMT_SM90A(...) asm volatile(__VA_ARGS__)
#else
#define SIMT_SM90A(...) __trap()
#endif
