// A convolution from one thread an output to tensor cores: every kernel has one idea more than the
// one before it, and what bounds it names the next idea.
//
//   y[n, p, q, k] = sum over r, s, c of
//       x[n, p * stride - pad + r, q * stride - pad + s, c] * w[k, r, s, c]
//
// It is a matrix product: rows are outputs (n, p, q), columns are maps k, the depth is (r, s, c).
// The matrix of x is never stored, but gathered while it is loaded (implicit GEMM).
//
// Bounds are those of an SM from the A100 on: a cycle does 128 float32 FMAs, and 32 lanes load, from
// the L1 cache or from shared memory, 128 bytes in all. benchmarks/ladder.py runs and times the
// kernels; those of the library (csrc/kernels) go on from the last one: more stages, tiles by shape,
// splits of the depth, the products of both gradients, bfloat16.
#include "ladder.h"

#include "simt/simt.h"

namespace ladder {
namespace {

using zfcuda::ConvShape;

constexpr int kThreads = 256;

ZFCUDA_HOST_DEVICE constexpr int divide_up(int a, int b) {
    return a / b + (a % b != 0);
}

// ---- Where things lie ---------------------------------------------------------------------------

// The convolution as a product of (rows, depth) and (cols, depth).
struct Product {
    ConvShape shape;
    int p, q;
    int rows, cols, depth;

    explicit Product(const ConvShape& s)
        : shape(s), p(s.p()), q(s.q()), rows(s.n * p * q), cols(s.k), depth(s.r * s.s * s.c) {}
};

// Of a row: its image, and the pixel there under the filter's first tap. Rows past the last see
// nothing but padding.
struct Corner {
    int image, h, w;

    __device__ Corner(const Product& of, int row) {
        const int pixels = of.p * of.q, pixel = row % pixels;
        image = row / pixels;
        h = row < of.rows ? pixel / of.q * of.shape.stride_h - of.shape.pad_top : -(1 << 30);
        w = pixel % of.q * of.shape.stride_w - of.shape.pad_left;
    }
};

// Where the value is that the product has at this depth; null in the padding and past either end.
__device__ inline const float* x_at(const Product& of, const float* x, const Corner& corner,
                                    int depth) {
    const ConvShape& shape = of.shape;
    const int tap = depth / shape.c;
    const int h = corner.h + tap / shape.s, w = corner.w + tap % shape.s;
    if (depth >= of.depth || h < 0 || h >= shape.h || w < 0 || w >= shape.w) return nullptr;
    return x + ((corner.image * shape.h + h) * shape.w + w) * shape.c + depth % shape.c;
}

__device__ inline const float* w_at(const Product& of, const float* w, int col, int depth) {
    return col < of.cols && depth < of.depth ? w + col * of.depth + depth : nullptr;
}

__device__ inline float load(const float* at) {
    return at ? *at : 0.0f;
}

__device__ inline float4 load4(const float* at) {
    return *reinterpret_cast<const float4*>(at);
}

__device__ inline void store(const Product& of, float* y, int row, int col, float sum) {
    if (row < of.rows && col < of.cols) y[row * of.cols + col] = sum;
}

// ---- 1. One thread an output --------------------------------------------------------------------
//
// Neighbours have neighbouring maps: a warp shares what it reads of x and stores side by side.
//
// Bound: two loads for every FMA, at best an eighth of what the FMA units do. But each lane reads a
// filter of its own, so that a load of w touches 32 lines of the cache and takes 32 cycles, not one.
__global__ void naive_kernel(Product of, const float* x, const float* w, float* y) {
    const unsigned output = blockIdx.x * kThreads + threadIdx.x;
    const int row = static_cast<int>(output / of.cols), col = static_cast<int>(output % of.cols);
    const Corner corner(of, row);
    if (row >= of.rows) return;
    const ConvShape& shape = of.shape;
    float sum = 0.0f;
    for (int r = 0; r < shape.r; ++r) {
        for (int s = 0; s < shape.s; ++s) {
            const int depth = (r * shape.s + s) * shape.c;
            const float* const from = x_at(of, x, corner, depth);
            if (!from) continue;
            for (int c = 0; c < shape.c; ++c)
                sum = fmaf(from[c], w[col * of.depth + depth + c], sum);
        }
    }
    y[row * of.cols + col] = sum;
}

// ---- 2. Shared memory ---------------------------------------------------------------------------
//
// A block computes 16 x 16 outputs and walks along the depth in k-tiles of 16: every value is loaded
// once, by neighbours side by side, and serves 16 outputs. A pitch of 17 words puts the rows of b,
// which the lanes read one each, into different banks.
//
// Bound: still two loads for every FMA, now from shared memory, a cycle each: an eighth.
constexpr int kSmall = 16;

__global__ void shared_kernel(Product of, const float* x, const float* w, float* y) {
    SIMT_SHARED(float, a, kSmall* kSmall);
    SIMT_SHARED(float, b, kSmall*(kSmall + 1));
    const int i = threadIdx.x / kSmall, j = threadIdx.x % kSmall;
    const int row0 = blockIdx.x * kSmall, col0 = blockIdx.y * kSmall;
    const Corner corner(of, row0 + i);
    float sum = 0.0f;
    for (int depth = 0; depth < of.depth; depth += kSmall) {
        a[i * kSmall + j] = load(x_at(of, x, corner, depth + j));
        b[i * (kSmall + 1) + j] = load(w_at(of, w, col0 + i, depth + j));
        __syncthreads();
        for (int d = 0; d < kSmall; ++d)
            sum = fmaf(a[i * kSmall + d], b[j * (kSmall + 1) + d], sum);
        __syncthreads();
    }
    store(of, y, row0 + i, col0 + j, sum);
}

// ---- 3. Registers -------------------------------------------------------------------------------
//
// A thread computes 8 x 8 outputs, a block 128 x 128: of each depth a thread reads 8 values of
// either operand for 64 FMAs. k-tiles lie depth by depth, and the outputs of a thread are 16 apart,
// so that lanes read neighbouring words; a pitch of 4 words more than a multiple of 32 lets a warp
// store the 4 rows by 8 depths that it has loaded into different banks.
//
// Bound: 16 loads for 64 FMAs keep the load units as busy as the FMA units, and nothing is left for
// the copies: four values a thread and k-tile, for each a division to find its tap. Meanwhile
// everybody waits for memory.
constexpr int kSide = 128;  // of a block's outputs
constexpr int kEach = 8;    // of a thread's
constexpr int kApart = kSide / kEach;

__device__ inline void store_each(const Product& of, float* y, const float (&sums)[kEach][kEach]) {
    const int row = blockIdx.x * kSide + threadIdx.x / kApart;
    const int col = blockIdx.y * kSide + threadIdx.x % kApart;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j)
            store(of, y, row + i * kApart, col + j * kApart, sums[i][j]);
}

__global__ void __launch_bounds__(kThreads, 2)
    registers_kernel(Product of, const float* x, const float* w, float* y) {
    constexpr int kDepth = 8, kPitch = kSide + 4, kLines = kThreads / kDepth;
    SIMT_SHARED(float, a, kDepth* kPitch);
    SIMT_SHARED(float, b, kDepth* kPitch);
    const int line = threadIdx.x / kDepth, d0 = threadIdx.x % kDepth;  // that this thread loads
    const int row0 = blockIdx.x * kSide + line, col0 = blockIdx.y * kSide + line;
    const Corner corners[] = {Corner(of, row0), Corner(of, row0 + kLines),
                              Corner(of, row0 + 2 * kLines), Corner(of, row0 + 3 * kLines)};
    const float* const my_a = a + threadIdx.x / kApart;
    const float* const my_b = b + threadIdx.x % kApart;
    float sums[kEach][kEach] = {};
    for (int depth = 0; depth < of.depth; depth += kDepth) {
#pragma unroll
        for (int i = 0; i < kSide / kLines; ++i) {
            const int to = d0 * kPitch + line + i * kLines;
            a[to] = load(x_at(of, x, corners[i], depth + d0));
            b[to] = load(w_at(of, w, col0 + i * kLines, depth + d0));
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
            float as[kEach], bs[kEach];
#pragma unroll
            for (int i = 0; i < kEach; ++i) {
                as[i] = my_a[d * kPitch + i * kApart];
                bs[i] = my_b[d * kPitch + i * kApart];
            }
#pragma unroll
            for (int i = 0; i < kEach; ++i)
#pragma unroll
                for (int j = 0; j < kEach; ++j)
                    sums[i][j] = fmaf(as[i], bs[j], sums[i][j]);
        }
        __syncthreads();
    }
    store_each(of, y, sums);
}

// ---- 4. Vectors, copied asynchronously ----------------------------------------------------------
//
// cp.async writes to shared memory past the registers, and nobody waits: the next k-tile is under
// way while this one is multiplied (two stages). Copies are 16 bytes, four depths of one row, where
// the channels allow it: a quarter of the addresses and divisions. So the rows of a k-tile lie one
// after the other, and are read 16 bytes at a time too: 16 loads for 256 FMAs. A pitch of 20 words,
// an odd number of 16 bytes, puts the rows that eight lanes read into different banks.
//
// Bound: the FMA units.
constexpr int kTileDepth = 16;

struct Ffma {
    static constexpr int kPitch = 20;
    float sums[kEach][kEach] = {};

    __device__ void add(const float* a, const float* b) {
        a += threadIdx.x / kApart * kPitch;
        b += threadIdx.x % kApart * kPitch;
        // Not unrolled: later loads would be hoisted into registers that are not there.
#pragma unroll 1
        for (int d = 0; d < kTileDepth; d += 4) {
            float4 as[kEach];
#pragma unroll
            for (int i = 0; i < kEach; ++i)
                as[i] = load4(a + i * kApart * kPitch + d);
#pragma unroll
            for (int j = 0; j < kEach; ++j) {
                const float4 bs = load4(b + j * kApart * kPitch + d);
#pragma unroll
                for (int i = 0; i < kEach; ++i) {
                    float& sum = sums[i][j];
                    sum = fmaf(as[i].x, bs.x, sum);
                    sum = fmaf(as[i].y, bs.y, sum);
                    sum = fmaf(as[i].z, bs.z, sum);
                    sum = fmaf(as[i].w, bs.w, sum);
                }
            }
        }
    }

    __device__ void store_all(const Product& of, float* y) const { store_each(of, y, sums); }
};

// Copies four depths of a row, `at(depth)`, or zeros for what is null. `any`: an address for those.
template <int Width, class At>
__device__ inline void copy_four(float* to, const float* any, const At& at, int depth) {
#pragma unroll
    for (int e = 0; e < 4; e += Width) {
        const float* from = at(depth + e);
        simt::copy_async<4 * Width>(to + e, from ? from : any, from != nullptr);
    }
}

template <class Math, int Width>
__global__ void __launch_bounds__(kThreads, 2)
    pipelined_kernel(Product of, const float* x, const float* w, float* y) {
    constexpr int kTile = kSide * Math::kPitch;  // of one operand
    constexpr int kLines = kThreads / 4;
    SIMT_SHARED(float, stages, 2 * 2 * kTile);
    const int line = threadIdx.x / 4, d0 = threadIdx.x % 4 * 4;  // that this thread copies
    const int row0 = blockIdx.x * kSide + line, col0 = blockIdx.y * kSide + line;
    const Corner corners[] = {Corner(of, row0), Corner(of, row0 + kLines)};
    const auto copy = [&](int k_tile) {
        float* const to = stages + k_tile % 2 * 2 * kTile + line * Math::kPitch + d0;
        const int depth = k_tile * kTileDepth + d0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float* const at = to + i * kLines * Math::kPitch;
            copy_four<Width>(at, x, [&](int d) { return x_at(of, x, corners[i], d); }, depth);
            copy_four<Width>(
                at + kTile, w, [&](int d) { return w_at(of, w, col0 + i * kLines, d); }, depth);
        }
    };
    const int k_tiles = divide_up(of.depth, kTileDepth);
    copy(0);
    simt::copy_async_commit();
    Math math;
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        if (k_tile + 1 < k_tiles) copy(k_tile + 1);
        simt::copy_async_commit();  // an empty group at the end, so that one may always be pending
        simt::copy_async_wait<1>();
        __syncthreads();
        const float* const a = stages + k_tile % 2 * 2 * kTile;
        math.add(a, a + kTile);
        __syncthreads();  // before the next copy writes over it
    }
    math.store_all(of, y);
}

// ---- 5. Tensor cores ----------------------------------------------------------------------------
//
// The same pipeline, but mma.sync multiplies 16 x 8 by 8 x 8 values, rounded to tf32, for a warp. Of
// 8 warps each computes 64 x 32 outputs in fragments of 16 x 8. A fragment wants depths q and q + 4
// of its rows from lane q of four; which depths these are does not matter, as long as both operands
// agree: so a lane loads the 16 bytes of depths 4q to 4q + 3, two for either step of 8 depths. Eight
// lanes read two rows side by side, 128 bytes of all banks, without a pitch.
//
// Bound: a k-tile costs a warp 12 loads of 16 bytes, 48 cycles of shared memory, for 32 mma, 64
// cycles of an A100's tensor cores: together with the copies nearly the limit, and on an H100 it
// is. Larger steps need wgmma, which reads shared memory by itself.
struct Mma {
    static constexpr int kPitch = kTileDepth;
    static constexpr int kRows = 64, kCols = 32;  // of a warp
    float sums[kRows / 16][kCols / 8][4] = {};

    __device__ static int row0() { return threadIdx.x / 32 / (kSide / kCols) * kRows; }
    __device__ static int col0() { return threadIdx.x / 32 % (kSide / kCols) * kCols; }

    // The words of this lane's row, from `row` on: two for each step.
    __device__ static void read(std::uint32_t (&words)[2][2], const float* tile, int row) {
        const int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
        const float4 four = load4(tile + (row + group) * kPitch + quad * 4);
        words[0][0] = simt::to_tf32(four.x);
        words[0][1] = simt::to_tf32(four.y);
        words[1][0] = simt::to_tf32(four.z);
        words[1][1] = simt::to_tf32(four.w);
    }

    __device__ void add(const float* a, const float* b) {
        std::uint32_t bs[kCols / 8][2][2];
#pragma unroll
        for (int j = 0; j < kCols / 8; ++j)
            read(bs[j], b, col0() + j * 8);
#pragma unroll
        for (int i = 0; i < kRows / 16; ++i) {
            std::uint32_t upper[2][2], lower[2][2];
            read(upper, a, row0() + i * 16);
            read(lower, a, row0() + i * 16 + 8);
#pragma unroll
            for (int step = 0; step < 2; ++step) {
                const std::uint32_t as[] = {upper[step][0], lower[step][0], upper[step][1],
                                            lower[step][1]};
#pragma unroll
                for (int j = 0; j < kCols / 8; ++j)
                    simt::mma_m16n8k8_tf32(sums[i][j], as, bs[j][step]);
            }
        }
    }

    __device__ void store_all(const Product& of, float* y) const {
        const int row = blockIdx.x * kSide + row0() + threadIdx.x % 32 / 4;
        const int col = blockIdx.y * kSide + col0() + threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < kRows / 16; ++i)
#pragma unroll
            for (int j = 0; j < kCols / 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    store(of, y, row + i * 16 + e / 2 * 8, col + j * 8 + e % 2, sums[i][j][e]);
    }
};

// ---- Launches -----------------------------------------------------------------------------------

template <auto Kernel, int Side>
void launch_tiles(const ConvShape& shape, const float* x, const float* w, float* y, void* stream) {
    const Product of(shape);
    const dim3 grid(divide_up(of.rows, Side), divide_up(of.cols, Side));
    simt::launch<Kernel>(grid, kThreads, 0, stream, of, x, w, y);
}

void launch_naive(const ConvShape& shape, const float* x, const float* w, float* y, void* stream) {
    const Product of(shape);
    const dim3 grid(divide_up(of.rows * of.cols, kThreads));
    simt::launch<naive_kernel>(grid, kThreads, 0, stream, of, x, w, y);
}

// 16 bytes at a time where no four depths that are copied together belong to two taps.
template <class Math>
void launch_pipelined(const ConvShape& shape, const float* x, const float* w, float* y,
                      void* stream) {
    const auto addresses =
        reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(w);
    if (shape.c % 4 == 0 && addresses % 16 == 0) {
        launch_tiles<pipelined_kernel<Math, 4>, kSide>(shape, x, w, y, stream);
    } else {
        launch_tiles<pipelined_kernel<Math, 1>, kSide>(shape, x, w, y, stream);
    }
}

}  // namespace

std::vector<Step> steps() {
    return {
        {"one thread an output", launch_naive},
        {"shared memory", launch_tiles<shared_kernel, kSmall>},
        {"registers", launch_tiles<registers_kernel, kSide>},
        {"asynchronous vectors", launch_pipelined<Ffma>},
        {"tensor cores", launch_pipelined<Mma>},
    };
}

}  // namespace ladder
