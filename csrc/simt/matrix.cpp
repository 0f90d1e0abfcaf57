// Fragment layouts as in the PTX manual, with group = lane / 4 and quad = lane % 4. Products are
// exact; a sum over the depth of one instruction is taken in float in order of k. (Hardware rounds
// it in its own way.)
#include "matrix.h"

#include <cstring>

namespace simt {
namespace {

constexpr int kRows = 16;
constexpr int kColumns = 8;

struct Tile {
    float a[kRows][16];
    float b[16][kColumns];
};

float convert(detail::Collective kind, std::uint32_t word, int half) {
    if (kind == detail::Collective::kMmaTf32) return bit_cast<float>(word & 0xffffe000u);
    const auto bits = static_cast<std::uint16_t>(word >> (16 * half));
    return kind == detail::Collective::kMmaBf16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

}  // namespace

void load_matrix(bool transpose, const detail::MatrixOperands (&operands)[32]) {
    std::uint16_t matrices[4][8][8];
    for (int lane = 0; lane < 32; ++lane)
        std::memcpy(matrices[lane / 8][lane % 8], operands[lane].a, 16);
    for (int lane = 0; lane < 32; ++lane) {
        auto* r = static_cast<std::uint32_t*>(operands[lane].d);
        const int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 4; ++i) {
            const auto& m = matrices[i];
            const std::uint32_t low = transpose ? m[pair][group] : m[group][pair];
            const std::uint32_t high = transpose ? m[pair + 1][group] : m[group][pair + 1];
            r[i] = low | high << 16;
        }
    }
}

void multiply_matrices(detail::Collective kind, const detail::MatrixOperands (&operands)[32]) {
    // Registers hold one element of a 4-column (tf32) or two of an 8-column (16-bit) step of k.
    const int elements = kind == detail::Collective::kMmaTf32 ? 1 : 2;
    Tile tile;
    for (int lane = 0; lane < 32; ++lane) {
        const auto* a = static_cast<const std::uint32_t*>(operands[lane].a);
        const auto* b = static_cast<const std::uint32_t*>(operands[lane].b);
        const int group = lane / 4, first = elements * (lane % 4);
        for (int e = 0; e < elements; ++e) {
            for (int i = 0; i < 4; ++i)
                tile.a[group + 8 * (i % 2)][first + e + 4 * elements * (i / 2)] =
                    convert(kind, a[i], e);
            for (int i = 0; i < 2; ++i)
                tile.b[first + e + 4 * elements * i][group] = convert(kind, b[i], e);
        }
    }
    float sums[kRows][kColumns] = {};
    for (int m = 0; m < kRows; ++m) {
        for (int k = 0; k < 8 * elements; ++k) {
            for (int n = 0; n < kColumns; ++n)
                sums[m][n] += tile.a[m][k] * tile.b[k][n];
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        auto* d = static_cast<float*>(operands[lane].d);
        const int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 4; ++i)
            d[i] += sums[group + 8 * (i / 2)][pair + i % 2];
    }
}

}  // namespace simt
