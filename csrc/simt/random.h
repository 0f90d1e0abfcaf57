// A small deterministic random generator (SplitMix64).
#pragma once

#include <cstdint>

namespace simt {

class Random {
  public:
    explicit Random(std::uint64_t seed = 0) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    // Uniform in [0, n).
    unsigned below(unsigned n) {
        return static_cast<unsigned>((next() >> 32) * static_cast<std::uint64_t>(n) >> 32);
    }

  private:
    std::uint64_t state_;
};

}  // namespace simt
