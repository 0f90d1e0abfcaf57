// The tiles of dgrad_patch.cuh: what multiplies a patch of y in shared memory with filters.
//
// A block has four warps and computes 8 x 64 cells by kCols columns, a warp 8 x 16 of the cells. A
// stage of shared memory holds 32 bytes of channels, kDepth, of each pixel of the patch, in two
// planes of 16 bytes a pixel: what eight lanes read, or ldmatrix as the rows of a matrix, are
// neighbours across. kTapRows taps that lie below each other are multiplied together: a row of the
// patch is read once for as many rows of cells.
//
// Bound, for 16 columns and 4 tap rows: a warp reads 11 matrices of the patch and 4 of the filters,
// 60 cycles of shared memory, for 64 instructions, which take 102 of Hopper's tensor cores and 128
// of an A100's. In float32: 76 cycles for 192 of FMAs, 55 loads for 768 instructions.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/indexing.cuh"
#include "kernels/vector.cuh"
#include "mma.cuh"
#include "plan.h"

namespace zfcuda::conv {

// ---- Tensor cores -------------------------------------------------------------------------------

__device__ inline std::uint32_t rounded_word(Tf32, std::uint32_t word) {
    return simt::to_tf32(__uint_as_float(word));
}
__device__ inline std::uint32_t rounded_word(Bf16, std::uint32_t word) {
    return word;
}

// acc[u][b] is the fragment of 16 cells of row u and of columns 8b to 8b + 7: of cells group and
// group + 8, columns 2 * quad and 2 * quad + 1. Filters lie as lanes want them, all columns side by
// side.
template <class Tile>
class PatchMma {
  public:
    using Element = typename Tile::Element;
    static constexpr int kBlocks = Tile::kCols / 8;
    using Accumulators = float[Tile::kCellRows][kBlocks][4];
    static constexpr int kSteps = 1;  // in which a stage's channels are multiplied
    // Results of a thread: rows of cells, cells of each, columns of each.
    static constexpr int kCellRows = Tile::kCellRows, kCells = 2, kColumns = 2 * kBlocks;

    // Where the filters of a tap have a value.
    __device__ static int filter_at(int depth, int col) {
        const int half = depth / (4 * kPerWord), quad = depth / kPerWord % 4;
        return (((col % 8 * 4 + quad) * kBlocks + col / 8) * 2 + half) * kPerWord +
               depth % kPerWord;
    }
    __device__ static Element filter(Element value) {
        if constexpr (std::is_same_v<typename Tile::Math, Tf32>)
            return __uint_as_float(simt::to_tf32(value));
        else
            return value;
    }

    // `plane`: elements of a plane of the patch.
    __device__ explicit PatchMma(int plane) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        cell_ = warp * 16 + lane / 4;
        column_ = lane % 4 * 2;
        patch_ = lane / 16 * plane + (warp * 16 + lane % 16) * Tile::kVector;
        filters_ = lane * (2 * kBlocks * kPerWord);
    }

    __device__ int cell_row() const { return 0; }
    __device__ int cell(int i) const { return cell_ + 8 * i; }
    __device__ int column(int i) const { return column_ + i / 2 * 8 + i % 2; }
    __device__ static float& at(Accumulators& acc, int row, int cell, int column) {
        return acc[row][column / 2][cell * 2 + column % 2];
    }

    // acc += the patch from `patch` on times kTapRows taps.
    __device__ void add(const Element* patch, const Element* filters, Accumulators& acc) const {
        Vector<std::uint32_t, 2 * kBlocks> b[Tile::kTapRows];
#pragma unroll
        for (int j = 0; j < Tile::kTapRows; ++j)
            b[j] = load<2 * kBlocks>(
                reinterpret_cast<const std::uint32_t*>(filters + filters_ + j * Tile::kFilters));
#pragma unroll
        for (int p = 0; p < Tile::kCellRows + Tile::kTapRows - 1; ++p) {
            std::uint32_t a[4];
            simt::load_matrix_x4(a, patch + patch_ + p * Tile::kPitch);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                a[i] = rounded_word(typename Tile::Math(), a[i]);
#pragma unroll
            for (int j = 0; j < Tile::kTapRows; ++j) {
                const int u = p - j;
                if (u < 0 || u >= Tile::kCellRows) continue;
#pragma unroll
                for (int block = 0; block < kBlocks; ++block) {
                    const std::uint32_t words[2] = {b[j].at[2 * block], b[j].at[2 * block + 1]};
                    multiply_add(typename Tile::Math(), acc[u][block], a, words);
                }
            }
        }
    }

  private:
    static constexpr int kPerWord = 4 / sizeof(Element);
    int cell_, column_, patch_, filters_;
};

// ---- FMA instructions ---------------------------------------------------------------------------

// acc[u][c] is of row u of this thread's half of the rows, and of column c: a lane has a column of
// four cells.
template <class Tile>
class PatchFfma {
  public:
    static constexpr int kCellRows = Tile::kCellRows / 2, kCells = 1, kColumns = Tile::kCols;
    using Accumulators = float[kCellRows][kColumns];
    static constexpr int kSteps = 2;  // the planes

    __device__ static int filter_at(int depth, int col) { return depth * kColumns + col; }
    __device__ static float filter(float value) { return value; }

    __device__ explicit PatchFfma(int) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        cell_row_ = lane / 16 * kCellRows;
        cell_ = warp * 16 + lane % 16;
    }

    __device__ int cell_row() const { return cell_row_; }
    __device__ int cell(int) const { return cell_; }
    __device__ int column(int i) const { return i; }
    __device__ static float& at(Accumulators& acc, int row, int, int column) {
        return acc[row][column];
    }

    __device__ void add(const float* patch, const float* filters, Accumulators& acc) const {
        Vector<float, 4> a[kCellRows + Tile::kTapRows - 1];
        patch += cell_row_ * Tile::kPitch + cell_ * 4;
#pragma unroll
        for (int p = 0; p < kCellRows + Tile::kTapRows - 1; ++p)
            a[p] = load<4>(patch + p * Tile::kPitch);
#pragma unroll
        for (int j = 0; j < Tile::kTapRows; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int col = 0; col < kColumns; col += 4) {
                    const auto b = load<4>(filters + j * Tile::kFilters + e * kColumns + col);
#pragma unroll
                    for (int u = 0; u < kCellRows; ++u)
#pragma unroll
                        for (int f = 0; f < 4; ++f)
                            acc[u][col + f] = fmaf(a[u + j].at[e], b.at[f], acc[u][col + f]);
                }
    }

  private:
    int cell_row_, cell_;
};

// ---- The tile -----------------------------------------------------------------------------------

template <class Math_, int Cols, int TapRows>
struct PatchTile {
    using Math = Math_;
    using Element = typename Math::Element;
    static constexpr bool kIsMma = !std::is_same_v<Math, Fp32>;
    static constexpr MainLoop kMainLoop = kIsMma ? MainLoop::kMma : MainLoop::kFfma;
    static constexpr int kCellRows = 8, kCellCols = 64;
    static constexpr int kRows = kCellRows * kCellCols, kCols = Cols;
    static constexpr int kTapRows = TapRows;
    static constexpr int kVector = kVectorWidth<Element>;
    static constexpr int kDepth = 2 * kVector;
    static constexpr int kThreads = 4 * kWarp;
    static constexpr int kMinBlocks = 3;
    static constexpr int kPatchCols = 72, kMaxTapsAcross = kPatchCols - kCellCols + 1;
    static constexpr int kPitch = kPatchCols * kVector;  // of a row of a plane
    static constexpr int kFilters = kDepth * kCols;      // of a tap in a stage
    // Of the time that a product of 64 x 64 a warp needs: a guess until measured.
    static constexpr double kEfficiency =
        kIsMma ? (kCols < 16 ? 0.6 : 0.9) : (kCols < 8 ? 0.6 : 0.9);

    using Multiplier = std::conditional_t<kIsMma, PatchMma<PatchTile>, PatchFfma<PatchTile>>;
};

// Those to choose from, for a number of tap rows.
template <class Math, int TapRows>
struct PatchTiles {
    static constexpr int V = kVectorWidth<Element<Math>>;
    using List = TileList<V, V, PatchTile<Math, 16, TapRows>, PatchTile<Math, 8, TapRows>>;
};
template <int TapRows>
struct PatchTiles<Fp32, TapRows> {
    using List = TileList<4, 4, PatchTile<Fp32, 12, TapRows>, PatchTile<Fp32, 4, TapRows>>;
};

// use(tiles) with those whose tap rows, multiplied by a whole number, exceed `taps` by the least.
template <class Math, class Use>
void with_patch_tiles(int taps, Use use) {
    const int twos = divide_up(taps, 2) * 2, threes = divide_up(taps, 3) * 3;
    const int fours = divide_up(taps, 4) * 4;
    if (fours <= twos && fours <= threes)
        use(typename PatchTiles<Math, 4>::List{});
    else if (threes <= twos)
        use(typename PatchTiles<Math, 3>::List{});
    else
        use(typename PatchTiles<Math, 2>::List{});
}

}  // namespace zfcuda::conv
