// Products are exact; sums over the depth of one instruction are taken in float in order of k.
// (Hardware rounds them in its own way.)
#include "operand_layout.h"

#include <cstring>
#include <type_traits>

namespace simt {
namespace {

float convert(bool tf32, const unsigned char* at) {
    if (tf32) {
        std::uint32_t word;
        std::memcpy(&word, at, 4);
        return bit_cast<float>(word & 0xffffe000u);
    }
    std::uint16_t half;
    std::memcpy(&half, at, 2);
    return bf16_to_float(half);
}

template <int N>
void multiply_columns(int depth, const std::vector<float>& a, const std::vector<float>& b,
                      bool accumulate, std::vector<float>& values) {
    std::vector<float> columns(static_cast<std::size_t>(depth * N));
    for (int n = 0; n < N; ++n) {
        for (int k = 0; k < depth; ++k)
            columns[static_cast<std::size_t>(k * N + n)] =
                b[static_cast<std::size_t>(n * depth + k)];
    }
    for (int m = 0; m < kRowsOfA; ++m) {
        float sums[N] = {};
        for (int k = 0; k < depth; ++k) {
            const float factor = a[static_cast<std::size_t>(m * depth + k)];
            const float* line = &columns[static_cast<std::size_t>(k * N)];
            for (int n = 0; n < N; ++n)
                sums[n] += factor * line[n];
        }
        const int thread = m / 16 * 32 + m % 8 * 4, half = m % 16 / 8;
        for (int n = 0; n < N; ++n) {
            const int i = n / 8 * 4 + half * 2 + n % 2;
            float& to = values[static_cast<std::size_t>((thread + n % 8 / 2) * (N / 2) + i)];
            to = accumulate ? to + sums[n] : sums[n];
        }
    }
}

}  // namespace

std::vector<float> read_rows(const OperandLayout& layout, int rows, const unsigned char* memory) {
    const bool tf32 = layout.element_bytes == 4;
    const int per_piece = kPiece / static_cast<int>(layout.element_bytes), depth = 2 * per_piece;
    std::vector<float> values(static_cast<std::size_t>(rows * depth));
    layout.for_each_piece(rows, [&](std::uint32_t offset, int row, int k) {
        for (int e = 0; e < per_piece; ++e) {
            const int at = layout.major == Major::kK ? row * depth + k + e : (row + e) * depth + k;
            values[static_cast<std::size_t>(at)] =
                convert(tf32, memory + offset + static_cast<unsigned>(e) * layout.element_bytes);
        }
    });
    return values;
}

std::vector<float> read_registers(const std::vector<std::uint32_t>& words, bool tf32) {
    const int per_word = tf32 ? 1 : 2, depth = 8 * per_word;
    std::vector<float> values(static_cast<std::size_t>(kRowsOfA * depth));
    for (int thread = 0; thread < 128; ++thread) {
        const int group = thread % 32 / 4, quad = thread % 4;
        for (int i = 0; i < 4; ++i) {
            const int row = thread / 32 * 16 + group + 8 * (i % 2);
            const int k = per_word * quad + 4 * per_word * (i / 2);
            const auto* bytes = reinterpret_cast<const unsigned char*>(
                &words[static_cast<std::size_t>(4 * thread + i)]);
            for (int e = 0; e < per_word; ++e)
                values[static_cast<std::size_t>(row * depth + k + e)] =
                    convert(tf32, bytes + 2 * e);
        }
    }
    return values;
}

void multiply(const detail::WarpgroupProduct& product, const std::vector<float>& a,
              const std::vector<float>& b, std::vector<float>& values) {
    const auto run = [&](auto columns) {
        multiply_columns<columns>(product.tf32 ? 8 : 16, a, b, product.accumulate, values);
    };
    if (product.columns == 64) run(std::integral_constant<int, 64>{});
    if (product.columns == 96) run(std::integral_constant<int, 96>{});
    if (product.columns == 128) run(std::integral_constant<int, 128>{});
    if (product.columns == 192) run(std::integral_constant<int, 192>{});
    if (product.columns == 256) run(std::integral_constant<int, 256>{});
}

}  // namespace simt
