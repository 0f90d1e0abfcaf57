// What the CPU backend says of itself, and what it does when the process forks.
#include <omp.h>
#if defined(__linux__)
#include <pthread.h>
#endif

#include "../ops.h"
#include "instruction_sets.h"

#ifndef ZFCUDA_ISA
#define ZFCUDA_ISA "baseline"
#endif

namespace zfcuda {
namespace {

#if defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
// A forked child has none of its parent's threads, but GCC's OpenMP would wait for those of the
// thread that forks. They end before the fork; parent and child start new ones when they compute.
// (LLVM's does so by itself.)
[[maybe_unused]] const int kForks = pthread_atfork(
    [] { omp_pause_resource(omp_pause_soft, omp_get_initial_device()); }, nullptr, nullptr);
#endif

}  // namespace

std::string unavailable_reason() {
    const std::string isa = ZFCUDA_ISA;
    if (isa == "avx512" && !has_avx512()) return "this processor has no AVX-512";
    if (isa == "avx2" && !has_avx2()) return "this processor has no AVX2 with FMA";
    return "";
}

std::string description() {
    const std::string isa = ZFCUDA_ISA;
    const bool widest = isa == "avx512" || !has_avx512();
    return isa + ", " + std::to_string(omp_get_max_threads()) + " threads" +
           (widest ? "" : ", of a processor with avx512");
}

}  // namespace zfcuda
