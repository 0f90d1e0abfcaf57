// Kernels that test the emulator: each case sets up arrays, launches and checks the result.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "simt/global_memory.h"
#include "simt/simt.h"

namespace selftest {

struct Case {
    const char* name;
    std::function<void()> run;
};

std::vector<Case> correct_cases();
std::vector<Case> product_cases();
std::vector<Case> broken_cases();
// Of products of warpgroups.
std::vector<Case> correct_warpgroup_cases();
std::vector<Case> broken_warpgroup_cases();
// Of mbarriers and named barriers, and of tensor copies.
std::vector<Case> correct_barrier_cases();
std::vector<Case> broken_barrier_cases();
std::vector<Case> correct_tensor_cases();
std::vector<Case> broken_tensor_cases();
std::vector<Case> tensor_map_cases();

// An array that kernels may touch; unless it has values, reading it before it is written is an
// error.
template <typename T>
class Array {
  public:
    Array(const char* name, std::size_t size) : values_(size, T{}) {
        simt::register_array(values_.data(), size * sizeof(T), false, name);
    }
    Array(const char* name, std::vector<T> values) : values_(std::move(values)) {
        simt::register_array(values_.data(), values_.size() * sizeof(T), true, name);
    }
    ~Array() { simt::forget_arrays(); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    T* data() { return values_.data(); }
    T operator[](std::size_t i) const { return values_[i]; }

  private:
    std::vector<T> values_;
};

// By all threads of a block: mbarriers of so many arrivals, ready when it returns.
__device__ inline void begin_barriers(simt::Mbarrier* barriers, int count, unsigned arrivals) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < count; ++i)
            simt::mbarrier_init(barriers[i], arrivals);
        simt::mbarrier_init_fence();
    }
    __syncthreads();
}

// 0, 1, 2, ...
inline std::vector<float> counting(int n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i)
        values[static_cast<std::size_t>(i)] = static_cast<float>(i);
    return values;
}

inline void expect(bool ok, const std::string& what) {
    if (!ok) throw std::logic_error("wrong result: " + what);
}

}  // namespace selftest
