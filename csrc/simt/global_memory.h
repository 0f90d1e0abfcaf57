// The arrays in global memory that kernels may touch, for builds that check every access.
//
// Kernels get plain pointers, so somebody has to say what they point to: `register_array` before a
// launch, from zfcuda/_emulation.py or a test. Once anything is registered, an access to any other
// memory is an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

// Whether this build checks every access to memory (races, bounds, uninitialised reads).
bool checks_accesses();

// `written`: its contents may be read before a kernel wrote them.
void register_array(const void* address, std::size_t bytes, bool written, const std::string& name);

void forget_arrays();

}  // namespace simt
