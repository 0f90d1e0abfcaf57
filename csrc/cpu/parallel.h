// When threads pay for themselves.
#pragma once

#include <cstdint>

namespace zfcuda {

// Waking the other threads costs microseconds, in which one core handles this many floats from its
// cache. For `#pragma omp parallel if (worth_threads(...))`.
inline bool worth_threads(std::int64_t floats) {
    return floats >= 32 * 1024;
}

// A result of more bytes than this, half of a last-level cache, goes past the caches: it would push
// out what is there, and what reads it next would not find its beginning.
constexpr std::int64_t kStreamBytes = 16 << 20;

// An argument of more bytes than this is read from memory, not from a cache.
constexpr std::int64_t kCacheBytes = 32 << 20;

}  // namespace zfcuda
