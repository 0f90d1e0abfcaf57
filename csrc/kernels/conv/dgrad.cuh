// Transposed convolution: the data gradient, and the deconvnet's filtering.
//
//   x[n,h,w,c] = sum of y[n,p,q,k] * w[k,r,s,c] over h = p*stride_h - pad_top + r*dilation_h,
//                                                    w = q*stride_w - pad_left + s*dilation_w
//
// Cut by phases (conv_phases.h), each of which is a convolution of stride 1 over y: the operand is
// the same, `Windows` or `TapWindows`, as in the forward direction. Each phase is a product (in
// groups, one for each): its pixels (rows) with the channels C (cols) over its taps x K (depth); one
// without taps has depth 0 and yields zeros. Phases are the fastest index of the grid: those of one
// region run together and share y in L2. Bound: 2*N*P*Q*K*R*S*C flops; y, w and x once each in
// bytes. The few channels of images would leave most columns empty: those go by dgrad_patch.cuh.
#pragma once

#include "main_loop.cuh"
#include "run_product.cuh"
#include "tiles.cuh"
#include "windows.cuh"

namespace zfcuda::conv {

// ---- Phases -------------------------------------------------------------------------------------

// How a convolution is cut into phases and their products into tiles: divisors that only the
// launcher knows, so that a block finds its place without a division, in uniform registers.
struct PhaseGrid {
    FastDivisor phases_h, phases_w, stride_h, stride_w, tiles_n, tiles_m;

    PhaseGrid(const ConvShape& s, int tile_rows, int tile_cols)
        : phases_h(phase_count(s.h, s.stride_h)),
          phases_w(phase_count(s.w, s.stride_w)),
          stride_h(s.stride_h),
          stride_w(s.stride_w),
          tiles_n(divide_up(s.group_c(), tile_cols)),
          tiles_m(divide_up(s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w),
                            tile_rows)) {}
};

// The phase and the tile of its product. Phases are the fastest index, then columns, then rows, then
// groups. Phases with fewer pixels leave the last tiles without work.
template <bool Dense>
struct PhaseTile {
    int phase_h, phase_w, group, tile_m, tile_n;

    __device__ PhaseTile(const PhaseGrid& grid, const TileIndex& index) {
        const int tile = static_cast<int>(index.tile);
        const int a = tile / grid.phases_w, b = a / grid.phases_h;
        phase_w = tile % grid.phases_w;
        phase_h = a % grid.phases_h;
        tile_m = b / grid.tiles_n;
        tile_n = b % grid.tiles_n;
        group = Dense ? 0 : tile_m / grid.tiles_m;
        if (!Dense) tile_m = tile_m % grid.tiles_m;
    }
};

template <bool Dense>
__device__ inline PhaseAxis phase_axis(int phase, int size, int window, const FastDivisor& stride,
                                       int pad, int dilation) {
    if constexpr (Dense)
        return PhaseAxis(phase, size, window, stride, pad);
    else
        return PhaseAxis(phase, size, window, stride.divisor, pad, dilation);
}

// The taps of a filter that a phase meets, last first: tap (i, j) of `rows` x `cols` is filter row
// row0 - i * row_step and column col0 - j * col_step.
struct PhaseTaps {
    int row0, row_step, rows;
    int col0, col_step, cols;
};

template <bool Dense>
struct Phase {
    PhaseAxis h, w;

    __device__ Phase(const ConvShape& s, const PhaseGrid& grid, int phase_h, int phase_w)
        : h(phase_axis<Dense>(phase_h, s.h, s.r, grid.stride_h, s.pad_top, s.dilation_h)),
          w(phase_axis<Dense>(phase_w, s.w, s.s, grid.stride_w, s.pad_left, s.dilation_w)) {}

    __device__ int pixels(int n) const { return n * h.pixels * w.pixels; }
    __device__ int depth(int k) const { return h.taps * w.taps * k; }

    __device__ PhaseTaps taps(const ConvShape& s) const {
        if constexpr (Dense)
            return {h.tap0, s.stride_h, h.taps, w.tap0, s.stride_w, w.taps};
        else
            return {h.tap0, h.tap_step, h.taps, w.tap0, w.tap_step, w.taps};
    }

    // Completes the description of y with the windows of this phase. (The run of a phase without
    // taps is never read, but divided by.)
    template <class T>
    __device__ WindowedImage<T> windows(WindowedImage<T> y, int k) const {
        y.taps = h.taps;
        y.run = max(w.taps, 1) * k;
        return y;
    }

    // The same tap by tap: `y` from the first channel of a group on, which has `run` of them.
    template <class T>
    __device__ TappedImage<T> windows(const ConvShape& s, const T* y, int run) const {
        return {y, s.p(), s.q(), s.k, h.taps, max(w.taps, 1), h.step, w.step, run};
    }

    // The window of pixel number `pixel`, whose results begin at channel `first_c`.
    template <class Image>
    __device__ WindowRow window(const ConvShape& s, const Image& image, int pixel,
                                int first_c) const {
        if (pixel >= pixels(s.n)) return no_window_row();
        const PhasePixel at = locate(pixel);
        const int h0 = at.i + h.origin, w0 = at.j + w.origin;
        if constexpr (Dense)
            return window_row(at.n, h0, w0, s.p(), s.q(), s.k, w.taps, offset(s, at));
        else
            return tap_window_row(image, at.n, h0, w0, offset(s, at) + first_c);
    }

    struct PhasePixel {
        int n, i, j;
    };
    __device__ PhasePixel locate(int pixel) const {
        const int row = pixel / w.pixels, n = row / h.pixels;
        return {n, row - n * h.pixels, pixel - row * w.pixels};
    }
    // Where the pixel lies in x.
    __device__ std::uint32_t offset(const ConvShape& s, const PhasePixel& at) const {
        const std::uint32_t row =
            static_cast<std::uint32_t>(at.n) * s.h + h.first + at.i * s.stride_h;
        return (row * s.w + w.first + at.j * s.stride_w) * s.c;
    }
};

// ---- Operands -----------------------------------------------------------------------------------

// Filters transposed (B of dgrad): value (c, (i, j, k)) is w[k, row of tap i, column of tap j, c].
template <class Tile, int V>
class TransposedFilters {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template MNMajor<Tile::kCols>;

    // `filters` of `channels` channels, those of a group.
    __device__ TransposedFilters(const ConvShape& shape, int filters, int channels,
                                 const PhaseTaps& taps, const Element* w, int first, int depth)
        : w_(w), taps_(taps), shape_{filters, shape.r * shape.s * channels, shape.s, channels} {
        c_ = first + Copy::row();
        depth += Copy::depth(0);
        const int tap = depth / filters;
        k_ = depth - tap * filters;
        const int i = taps.cols > 0 ? tap / taps.cols : 0;
        r_ = taps.row0 - i * taps.row_step;
        s_ = taps.col0 - (tap - i * taps.cols) * taps.col_step;
    }

    __device__ void load(Element* k_tile) {
        Copies<Copy, Layout, Element, V> copies(k_tile);
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            if (Copy::has(pass)) {
                const bool valid = (r_ >= 0) & (c_ < shape_.channels);
                const std::uint32_t at = static_cast<std::uint32_t>(k_) * shape_.filter +
                                         (r_ * shape_.width + s_) * shape_.channels + c_;
                copies.copy(pass, w_ + (valid ? at : 0), valid);
            }
            // The next pass's depth; after the last pass, the first depth of the next k-tile.
            advance(pass + 1 < Copy::kPasses
                        ? Copy::kDepthsPerPass
                        : Tile::kDepth - (Copy::kPasses - 1) * Copy::kDepthsPerPass);
        }
        copies.finish();
    }

  private:
    using Copy = MNMajorCopy<Tile, Tile::kCols, V>;

    __device__ void advance(int depths) {
        k_ += depths;
        while (k_ >= shape_.filters && r_ >= 0) {
            k_ -= shape_.filters;
            s_ -= taps_.col_step;
            if (s_ < 0) {
                s_ = taps_.col0;
                r_ -= taps_.row_step;
            }
        }
    }

    const Element* w_;
    PhaseTaps taps_;
    struct {
        int filters, filter, width, channels;
    } shape_;
    int c_, k_, r_, s_;
};

// ---- The kernel ---------------------------------------------------------------------------------

// `Dense`: the shape is.
template <class Tile, int VA, int VB, bool Dense>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    dgrad_kernel(ConvShape shape, PhaseGrid grid, WindowedImage<typename Tile::Element> y,
                 const typename Tile::Element* w, Epilogue<typename Tile::Element> epilogue,
                 typename Tile::Element* x, TiledWork work) {
    using A = WindowsOf<Tile, VA, Dense>;
    using B = TransposedFilters<Tile, VB>;
    using Loop = typename Tile::template Loop<A, B>;

    const auto index = work.at(blockIdx.x);
    const PhaseTile<Dense> at(grid, index);
    const Phase<Dense> phase(shape, grid, at.phase_h, at.phase_w);
    const int group_c = Dense ? shape.c : shape.group_c();
    const int group_k = Dense ? shape.k : shape.group_k();
    const int first_row = at.tile_m * Tile::kRows, first_col = at.tile_n * Tile::kCols;
    // Of a phase smaller than the first the last tiles have no rows, and nothing to sum.
    const int depth = first_row < phase.pixels(shape.n) ? phase.depth(group_k) : 0;
    const DepthRange range(index, depth, Tile::kDepth, work.k_tiles_per_split);

    const auto image = [&] {
        if constexpr (Dense)
            return phase.windows(y, group_k);
        else
            return phase.windows(shape, y.data + at.group * group_k, group_k);
    }();
    auto* rows = simt::dynamic_shared<WindowRow>();
    auto* stages = reinterpret_cast<typename Tile::Element*>(rows + Tile::kRows);
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads)
        rows[i] = phase.window(shape, image, first_row + i, at.group * group_c);
    __syncthreads();

    A a(image, rows, range.first);
    const std::size_t filters = static_cast<std::size_t>(group_k) * shape.r * shape.s * group_c;
    B b(shape, group_k, group_c, phase.taps(shape), w + at.group * filters, first_col, range.first);
    typename Loop::Accumulators acc;
    Loop::run(a, b, range.k_tiles, stages, acc);

    store_part<Tile, Loop>(
        work, index, acc, [&](int row) { return rows[row].output; }, first_col, group_c, epilogue,
        x);
}

template <class Tile, int VA, int VB, bool Dense, class T>
void launch_dgrad(const ConvShape& shape, const T* y, const T* w, const Launch<T>& launch) {
    using Loop =
        typename Tile::template Loop<WindowsOf<Tile, VA, Dense>, TransposedFilters<Tile, VB>>;
    const WindowedImage<T> image{y, shape.p(), shape.q() * shape.k, 0, 0};
    simt::launch<dgrad_kernel<Tile, VA, VB, Dense>>(
        dim3(launch.work.count()), dim3(Tile::kThreads),
        sizeof(WindowRow) * Tile::kRows + Loop::kBytes, launch.stream, shape,
        PhaseGrid(shape, Tile::kRows, Tile::kCols), image, w, launch.epilogue, launch.y,
        launch.work);
}

// Defined in dgrad_sm90a.cu.
extern template void launch_dgrad<Wgmma192x256<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                                  const BFloat16*,
                                                                  const Launch<BFloat16>&);
extern template void launch_dgrad<Wgmma128x256<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                                  const BFloat16*,
                                                                  const Launch<BFloat16>&);
extern template void launch_dgrad<Wgmma128x128<Bf16>, 8, 8, true>(const ConvShape&, const BFloat16*,
                                                                  const BFloat16*,
                                                                  const Launch<BFloat16>&);

}  // namespace zfcuda::conv
