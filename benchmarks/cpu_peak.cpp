// The most that this processor does: a chain of multiply-adds that touches no memory, and a copy
// past the caches. Compiled and loaded by cpu_device.py.
#include <cstdint>
#include <cstdlib>

#include "../csrc/cpu/simd.h"

using zfcuda::simd::kLanes;
using zfcuda::simd::Vec;

// Runs `rounds` multiply-adds on each of kChains vectors in every thread; returns the number of
// floating-point operations.
extern "C" double multiply_adds(std::int64_t rounds) {
    constexpr int kChains = 12;  // more than latency times throughput, and they fit the registers
    double operations = 0;
#pragma omp parallel reduction(+ : operations)
    {
        Vec chains[kChains], factor = zfcuda::simd::broadcast(0.999f);
        for (int i = 0; i < kChains; ++i)
            chains[i] = zfcuda::simd::broadcast(static_cast<float>(i));
        for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
            for (int i = 0; i < kChains; ++i)
                chains[i] = chains[i] * factor + factor;
        }
        Vec sum{};
        for (int i = 0; i < kChains; ++i)
            sum += chains[i];
        operations += 2.0 * rounds * kChains * kLanes;
        if (sum[0] < 0) operations = 0;  // never, but the compiler must not know
    }
    return operations;
}

// Copies floats, a multiple of a vector; `to` is aligned to one.
extern "C" void copy(std::int64_t floats, const float* from, float* to) {
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (std::int64_t i = 0; i < floats; i += kLanes)
            zfcuda::simd::stream(to + i, zfcuda::simd::load(from + i));
        zfcuda::simd::stream_fence();
    }
}
