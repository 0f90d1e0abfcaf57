// Philox4x32-10 (Salmon et al. 2011): random numbers as a pure function of (key, counter), so that
// a dropout mask needs no memory, no order of threads and no generator state, and is the same on
// every backend.
#pragma once

#include <cstdint>

#include "shapes.h"

namespace zfcuda {

struct PhiloxWords {
    std::uint32_t word[4];
};

// Key `seed`; counter words: low and high of `index`, low and high of `offset`.
ZFCUDA_HOST_DEVICE inline PhiloxWords philox4x32(std::uint64_t seed, std::uint64_t index,
                                                 std::uint64_t offset) {
    std::uint32_t a = static_cast<std::uint32_t>(index);
    std::uint32_t b = static_cast<std::uint32_t>(index >> 32);
    std::uint32_t c = static_cast<std::uint32_t>(offset);
    std::uint32_t d = static_cast<std::uint32_t>(offset >> 32);
    std::uint32_t key0 = static_cast<std::uint32_t>(seed);
    std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = static_cast<std::uint64_t>(0xD2511F53u) * a;
        const std::uint64_t product1 = static_cast<std::uint64_t>(0xCD9E8D57u) * c;
        a = static_cast<std::uint32_t>(product1 >> 32) ^ b ^ key0;
        b = static_cast<std::uint32_t>(product1);
        c = static_cast<std::uint32_t>(product0 >> 32) ^ d ^ key1;
        d = static_cast<std::uint32_t>(product0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{a, b, c, d}};
}

// A word below this drops its element.
ZFCUDA_HOST_DEVICE inline std::uint64_t dropout_threshold(float probability) {
    return static_cast<std::uint64_t>(static_cast<double>(probability) * 4294967296.0);
}

}  // namespace zfcuda
