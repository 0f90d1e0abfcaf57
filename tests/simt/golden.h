// Tiny kernels, one for each wrapper of the dialect, for the same run on the emulator and on a GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace golden {

using Words = std::vector<std::uint32_t>;

// A kernel of one warp, or of one warpgroup, that reads and writes 32-bit words.
struct Case {
    const char* name;
    int input_words, output_words;
    Words (*run)(const Words& input);
};

std::vector<Case> cases();

// Why the kernels cannot run here; empty if they can.
std::string unavailable_reason();

}  // namespace golden
