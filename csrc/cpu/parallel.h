// Threads: how many, and when they pay for themselves.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace zfcuda {

// Upper bound of the threads of any operation, the same at every call: it sizes per-thread scratch.
inline int max_threads() {
    static const int limit = omp_get_num_procs();
    return limit;
}

// The threads an operation uses now: at most max_threads().
inline int threads() {
    return std::min(omp_get_max_threads(), max_threads());
}

// The number of the calling thread in its team.
inline int thread_index() {
    return omp_get_thread_num();
}

// Waking the other threads costs microseconds, in which one core handles this many floats from its
// cache. For `#pragma omp parallel if (worth_threads(...))`.
inline bool worth_threads(std::int64_t floats) {
    return floats >= 32 * 1024;
}

}  // namespace zfcuda
