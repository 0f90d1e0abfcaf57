// Which line of the source an access stands on, for reports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"
#include "shadow.h"

namespace simt {

Location location_of(const void* return_address);
Location location_of(Site site);
// "pool.cuh:31", with the calls that were inlined; asks addr2line for code addresses, all at once.
std::vector<std::string> describe(const std::vector<Location>& locations);
std::string describe(Location location);
std::string describe(Site site);

// Whether the address lies in the image (code, constants, static variables) of the module that this
// is part of.
bool in_this_module(std::uintptr_t address);

}  // namespace simt
