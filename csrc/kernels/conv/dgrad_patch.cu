// The kernels of dgrad_patch.cuh.
#include "dgrad_patch.cuh"

#include "copies.cuh"
#include "epilogue.cuh"
#include "padded_sums.cuh"
#include "run_product.cuh"

namespace zfcuda::conv {

constexpr int kPackThreads = 256;

// ---- Filters ------------------------------------------------------------------------------------

// Filters in the order [tile of columns][k-tile][tap], a tap as its tile has it: taps across, then
// down in groups of kTapRows. One thread a value.
template <class Tile>
__global__ void __launch_bounds__(kPackThreads)
    pack_filters_kernel(ConvShape shape, PatchGrid<Tile> grid, int k_tiles, int total,
                        const typename Tile::Element* w, typename Tile::Element* packed) {
    const int item = static_cast<int>(blockIdx.x * kPackThreads + threadIdx.x);
    if (!inside(item, total)) return;
    const int col = item % Tile::kCols, depth = item / Tile::kCols % Tile::kDepth;
    const int place = item / Tile::kFilters;  // of a tap
    const int tap = place % grid.taps(), tile = place / grid.taps();
    const int k = tile % k_tiles * Tile::kDepth + depth;
    const int column = tile / k_tiles * Tile::kCols + col;

    const int turn = tap / Tile::kTapRows;
    const int down = turn / grid.w.taps * Tile::kTapRows + tap % Tile::kTapRows;
    const int across = turn % grid.w.taps;
    const int rest = column % grid.run;
    const int r =
        column / grid.run + shape.pad_top - grid.h.shift - shape.stride_h * (grid.h.first + down);
    const int s = rest / grid.channels + shape.pad_left - grid.w.shift -
                  shape.stride_w * (grid.w.first + across);
    auto value = from_float<typename Tile::Element>(0.0f);
    if (k < shape.k && column < grid.columns && inside(r, shape.r) && inside(s, shape.s))
        value = w[((static_cast<std::size_t>(k) * shape.r + r) * shape.s + s) * shape.c +
                  rest % grid.channels];
    packed[place * Tile::kFilters + Tile::Multiplier::filter_at(depth, col)] =
        Tile::Multiplier::filter(value);
}

// ---- The patch ----------------------------------------------------------------------------------

// Where a position of the strip lies.
struct StripPlace {
    int n, band, column;

    template <class Tile>
    __device__ StripPlace(const PatchGrid<Tile>& grid, int position) {
        const int bands = position / grid.band;
        column = position - bands * grid.band.divisor;
        n = bands / grid.bands;
        band = bands - n * grid.bands.divisor;
    }
};

constexpr std::uint32_t kNoPixel = 0xffffffffu;

// Fills the table of where the pixels of a patch lie in y, from position `first` of the strip on.
template <class Tile>
__device__ inline void find_patch(const ConvShape& shape, const PatchGrid<Tile>& grid, int first,
                                  std::uint32_t* pixels) {
    for (int i = threadIdx.x; i < grid.patch_pixels(); i += Tile::kThreads) {
        const int row = i / Tile::kPatchCols, col = i % Tile::kPatchCols;
        const StripPlace place(grid, first + col);
        const int p = place.band * Tile::kCellRows + grid.h.first + row;
        const int q = place.column + grid.w.first;
        const bool seen =
            (row < Tile::kCellRows + grid.h.taps - 1) & (col < Tile::kCellCols + grid.w.taps - 1);
        const bool valid = seen & (place.n < shape.n) & inside(p, shape.p()) & inside(q, shape.q());
        const std::uint32_t line = static_cast<std::uint32_t>(place.n) * shape.p() + p;
        pixels[i] = valid ? (line * shape.q() + q) * shape.k : kNoPixel;
    }
}

// Copies the next channels of a patch and of the filters to a stage.
template <class Tile>
class PatchCopies {
  public:
    using Element = typename Tile::Element;

    // Begins at channel `k`.
    __device__ PatchCopies(const ConvShape& shape, const PatchGrid<Tile>& grid,
                           const std::uint32_t* pixels, const Element* y, const Element* filters,
                           int k)
        : pixels_(pixels),
          y_(y),
          filters_(filters),
          channels_(shape.k),
          patch_pixels_(grid.patch_pixels()),
          plane_(grid.plane()),
          filter_size_(grid.taps() * Tile::kFilters) {
        k_ = k + threadIdx.x % 2 * Tile::kVector;
    }

    __device__ void load(Element* stage) {
        constexpr int kAtOnce = 4, kStep = Tile::kThreads / 2;
        Element* const plane = stage + threadIdx.x % 2 * plane_;
#pragma unroll 1
        for (int pixel = threadIdx.x / 2; pixel < patch_pixels_; pixel += kAtOnce * kStep) {
            std::uint32_t at[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i)
                at[i] = pixel + i * kStep < patch_pixels_ ? pixels_[pixel + i * kStep] : kNoPixel;
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                const int own = pixel + i * kStep;
                const bool valid = (at[i] != kNoPixel) & (k_ < channels_);
                if (own < patch_pixels_)
                    simt::copy_async<16>(plane + own * Tile::kVector, y_ + (valid ? at[i] + k_ : 0),
                                         valid);
            }
        }
        Element* const target = stage + 2 * plane_;
#pragma unroll 1
        for (int i = threadIdx.x * Tile::kVector; i < filter_size_;
             i += Tile::kThreads * Tile::kVector)
            simt::copy_async<16>(target + i, filters_ + i);
        filters_ += filter_size_;
        k_ += Tile::kDepth;
    }

  private:
    const std::uint32_t* pixels_;
    const Element* y_;
    const Element* filters_;
    int channels_, patch_pixels_, plane_, filter_size_, k_;
};

// ---- The kernel ---------------------------------------------------------------------------------

// acc += one stage.
template <class Tile>
__device__ inline void add_stage(const typename Tile::Multiplier& multiplier,
                                 const PatchGrid<Tile>& grid, const typename Tile::Element* stage,
                                 typename Tile::Multiplier::Accumulators& acc) {
    constexpr int kSteps = Tile::Multiplier::kSteps;
    const int turns = grid.taps() / Tile::kTapRows, taps_across = grid.w.taps;
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
        const auto* patch = stage + step * grid.plane();
        const auto* filters = stage + 2 * grid.plane() + step * (Tile::kFilters / kSteps);
        int across = 0;
#pragma unroll 1
        for (int turn = 0; turn < turns; ++turn) {
            multiplier.add(patch, filters, acc);
            patch += Tile::kVector;
            filters += Tile::kTapRows * Tile::kFilters;
            if (++across == taps_across) {
                across = 0;
                patch += Tile::kTapRows * Tile::kPitch - taps_across * Tile::kVector;
            }
        }
    }
}

// Whether columns may be stored in pairs: two lie side by side in x, both inside or both outside.
template <class Tile>
bool may_store_pairs(const ConvShape& shape, const PatchGrid<Tile>& grid) {
    const auto is_even = [&](std::int64_t pixels) { return pixels * shape.c % 2 == 0; };
    return is_even(shape.stride_w) && is_even(shape.w) && is_even(grid.w.shift);
}

// Stores this thread's results to the pixels of its cells, V columns at a time, from position
// `first` of the strip and column `first_col` on.
template <int V, class Tile, class T>
__device__ inline void store_cells(const ConvShape& shape, const PatchGrid<Tile>& grid,
                                   const typename Tile::Multiplier& mine,
                                   typename Tile::Multiplier::Accumulators& acc, int first,
                                   int first_col, T* x) {
    using Multiplier = typename Tile::Multiplier;
    const std::uint32_t row_size = static_cast<std::uint32_t>(shape.w) * shape.c;
#pragma unroll
    for (int i = 0; i < Multiplier::kCells; ++i) {
        const StripPlace place(grid, first + mine.cell(i));
        if (place.n >= shape.n) continue;
        const int cell_row = place.band * Tile::kCellRows + mine.cell_row();
#pragma unroll
        for (int j = 0; j < Multiplier::kColumns; j += V) {
            const int column = first_col + mine.column(j), rest = column % grid.run;
            const int h0 = cell_row * shape.stride_h + column / grid.run - grid.h.shift;
            const int w = place.column * shape.stride_w + rest / grid.channels - grid.w.shift;
            if ((column >= grid.columns) | (place.column >= grid.w.cells) | !inside(w, shape.w))
                continue;
            const std::uint32_t line = static_cast<std::uint32_t>(place.n) * shape.h + h0;
            std::uint32_t at = line * row_size + w * shape.c + rest % grid.channels;
#pragma unroll
            for (int u = 0; u < Multiplier::kCellRows; ++u) {
                if (inside(h0 + u * shape.stride_h, shape.h)) {
                    Vector<float, V> result;
#pragma unroll
                    for (int e = 0; e < V; ++e)
                        result.at[e] = Multiplier::at(acc, u, i, j + e);
                    store(x + at, from_floats<T>(result));
                }
                at += shape.stride_h * row_size;
            }
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    dgrad_patch_kernel(ConvShape shape, PatchGrid<Tile> grid, const typename Tile::Element* y,
                       const typename Tile::Element* w, const typename Tile::Element* filters,
                       typename Tile::Element* x, int k_tiles_per_split, bool pairs) {
    using Multiplier = typename Tile::Multiplier;
    using T = typename Tile::Element;

    const auto index = TileIndex::of_block();
    const int tile_m = static_cast<int>(index.tile) / grid.tiles_n;
    const int tile_n = static_cast<int>(index.tile) % grid.tiles_n;
    const int first = tile_m * Tile::kCellCols, first_col = tile_n * Tile::kCols;
    const DepthRange range(index, shape.k, Tile::kDepth, k_tiles_per_split);

    auto* pixels = simt::dynamic_shared<std::uint32_t>();
    auto* read = reinterpret_cast<T*>(pixels + grid.patch_pixels());
    auto* write = read + grid.stage();
    find_patch(shape, grid, first, pixels);
    __syncthreads();

    const int k_tile = tile_n * divide_up(shape.k, Tile::kDepth) + range.first / Tile::kDepth;
    PatchCopies<Tile> copies(shape, grid, pixels, y,
                             filters + k_tile * grid.taps() * Tile::kFilters, range.first);
    const Multiplier multiplier(grid.plane());
    typename Multiplier::Accumulators acc;
#pragma unroll
    for (int u = 0; u < Multiplier::kCellRows; ++u)
#pragma unroll
        for (int i = 0; i < Multiplier::kCells * Multiplier::kColumns; ++i)
            Multiplier::at(acc, u, i / Multiplier::kColumns, i % Multiplier::kColumns) = 0.0f;

    copies.load(read);
    simt::copy_async_commit();
    for (int k_tiles = range.k_tiles; k_tiles > 0; --k_tiles) {
        simt::copy_async_wait<0>();
        // Everybody's copies have landed, and nobody still reads the stage that is written next.
        __syncthreads();
        if (k_tiles > 1) copies.load(write);
        simt::copy_async_commit();
        add_stage(multiplier, grid, read, acc);
        T* const next = write;
        write = read;
        read = next;
    }

    constexpr int kOfRow = Multiplier::kCells * Multiplier::kColumns;
    compute_nans_again<Multiplier::kCellRows * kOfRow>(
        [&](int i) -> float& {
            return Multiplier::at(acc, i / kOfRow, i % kOfRow / Multiplier::kColumns,
                                  i % Multiplier::kColumns);
        },
        [&](int i) {
            const StripPlace place(grid,
                                   first + multiplier.cell(i % kOfRow / Multiplier::kColumns));
            const int column = first_col + multiplier.column(i % Multiplier::kColumns);
            const int cell_row = place.band * Tile::kCellRows + multiplier.cell_row() + i / kOfRow;
            const int rest = column % grid.run;
            const int h = cell_row * shape.stride_h + column / grid.run - grid.h.shift;
            const int across = place.column * shape.stride_w + rest / grid.channels - grid.w.shift;
            if (place.n >= shape.n || column >= grid.columns || place.column >= grid.w.cells ||
                !inside(h, shape.h) || !inside(across, shape.w))
                return 0.0f;
            const int end = min(range.first + range.k_tiles * Tile::kDepth, shape.k);
            return sum_of_cell(shape, y, w, place.n, h, across, rest % grid.channels, range.first,
                               end);
        });
    const std::size_t size = static_cast<std::size_t>(shape.n) * shape.h * shape.w * shape.c;
    const auto store_to = [&](auto* result) {
        result += index.split * size;
        if (pairs)
            store_cells<2>(shape, grid, multiplier, acc, first, first_col, result);
        else
            store_cells<1>(shape, grid, multiplier, acc, first, first_col, result);
    };
    if (std::is_same_v<T, float> || index.splits == 1)
        store_to(x);
    else
        store_to(reinterpret_cast<float*>(x));
}

template <class Tile, class T>
void launch_dgrad_patch(const ConvShape& shape, const Plan& plan, const T* y, const T* w, T* x,
                        void* workspace, Stream stream) {
    const PatchGrid<Tile> grid(shape);
    const auto values = static_cast<int>(grid.filter_values(shape.k));
    T* const filters = static_cast<T*>(workspace);
    simt::launch<pack_filters_kernel<Tile>>(dim3(divide_up(values, kPackThreads)),
                                            dim3(kPackThreads), 0, stream, shape, grid,
                                            divide_up(shape.k, Tile::kDepth), values, w, filters);

    void* const sums = static_cast<char*>(workspace) + grid.filter_bytes(shape.k);
    const bool pairs = may_store_pairs(shape, grid) && aligned_for_vectors<2>(x);
    simt::launch<dgrad_patch_kernel<Tile>>(
        dim3(static_cast<unsigned>(grid.tiles_m(shape.n) * grid.tiles_n.divisor), plan.splits),
        dim3(Tile::kThreads), grid.shared_bytes(), stream, shape, grid, y, w, filters,
        plan.splits > 1 ? static_cast<T*>(sums) : x, plan.k_tiles_per_split, pairs);
    if (plan.splits > 1) {
        const std::int64_t size = std::int64_t{shape.n} * shape.h * shape.w * shape.c;
        Epilogue<T> whole;
        whole.vectorised = size % 4 == 0 && aligned_for_vectors(x);
        add_splits(AsResult(), plan.splits, size, shape.c, static_cast<const float*>(sums), whole,
                   x, stream);
    }
}

template <class Math>
std::size_t dgrad_patch_workspace(const ConvShape& shape, const Plan& plan) {
    std::size_t bytes = 0;
    for_each_patch_tile<Math>(shape, [&](auto tile, const Product& product, int) {
        using Tile = decltype(tile);
        if (!(kKernel<Tile> == plan.kernel)) return;
        bytes = PatchGrid<Tile>(shape).filter_bytes(shape.k);
        if (plan.splits > 1) bytes += sizeof(float) * plan.splits * product.size;
    });
    return bytes;
}

template <class Math>
void dgrad_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* y,
                 const Element<Math>* w, Element<Math>* x, void* workspace, Stream stream) {
    for_each_patch_tile<Math>(shape, [&](auto tile, const Product&, int) {
        using Tile = decltype(tile);
        if (kKernel<Tile> == plan.kernel)
            launch_dgrad_patch<Tile>(shape, plan, y, w, x, workspace, stream);
    });
}

template decltype(dgrad_patch<Fp32>) dgrad_patch<Fp32>;
template decltype(dgrad_patch<Tf32>) dgrad_patch<Tf32>;
template decltype(dgrad_patch<Bf16>) dgrad_patch<Bf16>;
template decltype(dgrad_patch_workspace<Fp32>) dgrad_patch_workspace<Fp32>;
template decltype(dgrad_patch_workspace<Tf32>) dgrad_patch_workspace<Tf32>;
template decltype(dgrad_patch_workspace<Bf16>) dgrad_patch_workspace<Bf16>;

}  // namespace zfcuda::conv
