// What the CPU backend says of itself.
#include <omp.h>

#include "../ops.h"

#ifndef ZFCUDA_ISA
#define ZFCUDA_ISA "baseline"
#endif

namespace zfcuda {

std::string unavailable_reason() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const std::string isa = ZFCUDA_ISA;
    if (isa == "avx512" &&
        !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
        return "this processor has no AVX-512";
    if (isa == "avx2" && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
        return "this processor has no AVX2 with FMA";
#endif
    return "";
}

std::string description() {
    return std::string(ZFCUDA_ISA) + ", " + std::to_string(omp_get_max_threads()) + " threads";
}

}  // namespace zfcuda
