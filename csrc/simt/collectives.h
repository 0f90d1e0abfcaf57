// What the lanes of a warp do together, in words and in effect.
#pragma once

#include <cstring>
#include <string>

#include "block.h"

namespace simt {

constexpr unsigned bit(int lane) {
    return 1u << lane;
}

inline bool same(Site a, Site b) {
    return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

std::string hexadecimal(unsigned value);
const char* name_of(detail::Collective kind);

}  // namespace simt
