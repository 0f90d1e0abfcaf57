// The operands of a warpgroup's product: where a descriptor says that they lie, by the arithmetic of
// hopper_products.h, and the product itself.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator.h"
#include "hopper.h"

namespace simt {

constexpr int kRowsOfA = 64;
constexpr int kPiece = 16;  // bytes that always lie together

struct OperandLayout {
    std::uint32_t start, leading, stride;
    std::uint32_t width;  // of the swizzle in bytes; 16: none
    Major major;
    std::uint32_t element_bytes;

    OperandLayout(std::uint64_t bits, Major major_, bool tf32)
        : start(bits << 4 & 0x3fff0u),
          leading(bits >> 12 & 0x3fff0u),
          stride(bits >> 28 & 0x3fff0u),
          width(16u << ((4 - (bits >> 62)) & 3)),
          major(major_),
          element_bytes(tf32 ? 4 : 2) {}

    // Calls use(offset, row, k) for each 16 bytes, with the first of their elements.
    template <class Use>
    void for_each_piece(int rows, Use use) const {
        const int per_piece = kPiece / static_cast<int>(element_bytes);
        const bool k_major = major == Major::kK;
        const int row_step = k_major ? 1 : per_piece, k_step = k_major ? per_piece : 1;
        for (int row = 0; row < rows; row += row_step) {
            for (int k = 0; k < 2 * per_piece; k += k_step)
                use(address(row / row_step, k / k_step), row, k);
        }
    }

  private:
    // Where the piece lies: (row, k / T) if K-major, else (row / T, k).
    std::uint32_t address(int row_, int k_) const {
        const auto row = static_cast<std::uint32_t>(row_), k = static_cast<std::uint32_t>(k_);
        const std::uint32_t pieces = width / kPiece;
        std::uint32_t at = start;
        if (major == Major::kK) {
            at += row % 8 * width + row / 8 * stride + k * (width == kPiece ? leading : kPiece);
        } else if (width == kPiece) {
            at += k % 8 * kPiece + k / 8 * leading + row * stride;
        } else {
            at += k % 8 * width + k / 8 * stride + row % pieces * kPiece + row / pieces * leading;
        }
        at ^= at >> 3 & (width - kPiece);
        return at & 0x3ffffu;
    }
};

// The operand as rows x depth.
std::vector<float> read_rows(const OperandLayout& layout, int rows, const unsigned char* memory);
// A, from four words of each thread.
std::vector<float> read_registers(const std::vector<std::uint32_t>& words, bool tf32);
// values = a * b, or added to them, as the accumulators of the threads lie, one thread after the
// other.
void multiply(const detail::WarpgroupProduct& product, const std::vector<float>& a,
              const std::vector<float>& b, std::vector<float>& values);

}  // namespace simt
