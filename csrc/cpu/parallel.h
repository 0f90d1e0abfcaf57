// Threads: how many, and when they pay for themselves.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

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

// Tasks 0, 1, ... that the threads of a team take one by one: first each those of its own part, which
// is the same in every call, for its cache may have what the task wrote or read the last time
// (schedule(dynamic) took twice as long for results that fit into the caches); then what is left of
// the others' parts.
class Tasks {
  public:
    explicit Tasks(std::int64_t count) : parts_(threads()) {
        const std::int64_t size = static_cast<std::int64_t>(parts_.size());
        for (std::int64_t i = 0; i < size; ++i) {
            parts_[i].next = count * i / size;
            parts_[i].end = count * (i + 1) / size;
        }
    }

    // Calls body(task) until no task is left; for every thread of the team, which need not have
    // come to an end when one of them returns.
    template <typename Body>
    void run(const Body& body) {
        const std::size_t size = parts_.size();
        for (std::size_t i = 0; i < size; ++i) {
            Part& part = parts_[(thread_index() + i) % size];
            while (true) {
                const std::int64_t task = part.next.fetch_add(1, std::memory_order_relaxed);
                if (task >= part.end) break;
                body(task);
            }
        }
    }

  private:
    struct alignas(64) Part {
        std::atomic<std::int64_t> next;
        std::int64_t end;
    };
    std::vector<Part> parts_;
};

}  // namespace zfcuda
