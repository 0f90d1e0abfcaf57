// Tensor copies: correct kernels, and a broken one for each misuse that the emulator catches.
// Expectations are made by hand: of swizzles from tables by rows, of im2col from the loops of a
// convolution.
#include "selftest.h"

namespace selftest {
namespace {

using simt::Im2colTensor;
using simt::Mbarrier;
using simt::Swizzle;
using simt::TensorMap;
using simt::TensorType;
using simt::TiledTensor;

// ---- One box of a tiled map ---------------------------------------------------------------------

struct Place {
    int rank;
    int x[5];
};

__device__ void load_box(float* box, const TensorMap& map, Mbarrier& barrier, Place at) {
    const int* x = at.x;
    if (at.rank == 1) simt::tensor_load(box, map, barrier, x[0]);
    if (at.rank == 2) simt::tensor_load(box, map, barrier, x[0], x[1]);
    if (at.rank == 3) simt::tensor_load(box, map, barrier, x[0], x[1], x[2]);
    if (at.rank == 4) simt::tensor_load(box, map, barrier, x[0], x[1], x[2], x[3]);
    if (at.rank == 5) simt::tensor_load(box, map, barrier, x[0], x[1], x[2], x[3], x[4]);
}

__global__ void box_kernel(const __grid_constant__ TensorMap map, Place at, int words, float* y) {
    float* box = simt::dynamic_shared<float>();
    SIMT_SHARED(Mbarrier, full, 1);
    begin_barriers(full, 1, 1);
    if (threadIdx.x == 0) {
        simt::mbarrier_arrive_expect(full[0], static_cast<unsigned>(words) * 4);
        load_box(box, map, full[0], at);
    }
    simt::mbarrier_wait(full[0], 0);
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        y[i] = box[i];
}

// The box as it lies in shared memory.
std::vector<float> box_of(const TensorMap& map, Place at, int words, Array<float>& y) {
    simt::launch<box_kernel>(1, 64, static_cast<std::size_t>(words) * 4, nullptr, map, at, words,
                             y.data());
    return {y.data(), y.data() + words};
}

// A row of W bytes is 16-byte parts; where part c of row r lies, by hand: with 128 bytes it changes
// place from row to row, with 64 every second and with 32 every fourth row.
int swizzled_part(Swizzle swizzle, int r, int c) {
    if (swizzle == Swizzle::k128) return c ^ (r % 8);
    if (swizzle == Swizzle::k64) return c ^ (r / 2 % 4);
    if (swizzle == Swizzle::k32) return c ^ (r / 4 % 2);
    return c;
}

template <Swizzle S, int Row>
void swizzle() {
    const int rows = 24, width = 40;
    const std::vector<float> values = counting(30 * width);
    Array<float> x("x", values), y("y", rows * Row);
    const TensorMap map = simt::tiled_map(
        {TensorType::kFloat, x.data(), 2, {width, 30}, {width * 4}, {Row, rows}, {1, 1}, S});
    const std::vector<float> box = box_of(map, {2, {4, 3}}, rows * Row, y);
    for (int r = 0; r < rows; ++r) {
        for (int i = 0; i < Row; ++i) {
            const int at = r * Row + 4 * swizzled_part(S, r, i / 4) + i % 4;
            expect(box[at] == static_cast<float>((3 + r) * width + 4 + i), "swizzle");
        }
    }
}

// Coordinates beyond both ends of every dimension, and steps.
void boxes() {
    const int sizes[3] = {10, 6, 5};
    Array<float> x("x", counting(12 * 6 * 5)), y("y", 256);  // rows of 12, of which 10 count
    const auto value = [&](int a, int b, int c) {
        const bool inside = a >= 0 && a < sizes[0] && b >= 0 && b < sizes[1] && c >= 0 && c < 5;
        return inside ? static_cast<float>((c * 6 + b) * 12 + a) : 0.0f;
    };
    const TensorMap map = simt::tiled_map({TensorType::kFloat,
                                           x.data(),
                                           3,
                                           {10, 6, 5},
                                           {12 * 4, 12 * 4 * 6},
                                           {8, 5, 4},
                                           {1, 2, 3},
                                           Swizzle::kNone});
    for (const int a : {-3, 0, 5, 9, 12, -8}) {
        for (const int b : {-3, 0, 4}) {
            for (const int c : {-2, 1, 4}) {
                const std::vector<float> box = box_of(map, {3, {a, b, c}}, 8 * 3 * 2, y);
                for (int i = 0; i < 48; ++i) {
                    const int at = i % 8, row = i / 8 % 3, plane = i / 24;
                    expect(box[i] == value(a + at, b + 2 * row, c + 3 * plane), "box");
                }
            }
        }
    }
    const std::vector<float> line = box_of(
        simt::tiled_map({TensorType::kFloat, x.data(), 1, {360}, {}, {256}, {1}, Swizzle::kNone}),
        {1, {200}}, 256, y);
    for (int i = 0; i < 256; ++i)
        expect(line[i] == (i < 160 ? static_cast<float>(200 + i) : 0.0f), "line");
    const std::vector<float> five = box_of(simt::tiled_map({TensorType::kFloat,
                                                            x.data(),
                                                            5,
                                                            {4, 3, 2, 5, 3},
                                                            {16, 48, 96, 480},
                                                            {4, 2, 1, 2, 2},
                                                            {1, 1, 1, 1, 1},
                                                            Swizzle::kNone}),
                                           {5, {0, 1, 1, 4, 1}}, 32, y);
    for (int i = 0; i < 32; ++i) {
        const int b = i / 4 % 2, d = i / 8 % 2, e = i / 16;
        const float expected =
            static_cast<float>(i % 4 + (1 + b) * 4 + 12 + (4 + d) * 24 + (1 + e) * 120);
        expect(five[i] == (d == 0 ? expected : 0.0f), "five dimensions");
    }
}

void tf32_is_rounded() {
    Array<float> y("y", 4);
    Array<float> x("x", std::vector<float>{1.0f, 1.0f + 0x1p-11f, 1.0f + 0x1.8p-10f, -3.0000001f});
    const std::vector<float> box =
        box_of(simt::tiled_map({TensorType::kTf32, x.data(), 1, {4}, {}, {4}, {1}, Swizzle::kNone}),
               {1, {0}}, 4, y);
    expect(box[0] == 1.0f && box[1] == 1.0f && box[2] == 1.0f + 0x1p-9f && box[3] == -3.0f, "tf32");
}

// ---- im2col: rows of the implicit matrix of a convolution ---------------------------------------

__global__ void im2col_kernel(const __grid_constant__ TensorMap map, int c, int w, int h, int n,
                              int offset_w, int offset_h, int words, float* y) {
    float* box = simt::dynamic_shared<float>();
    SIMT_SHARED(Mbarrier, full, 1);
    begin_barriers(full, 1, 1);
    if (threadIdx.x == 0) {
        simt::tensor_load_im2col(box, map, full[0], c, w, h, n, offset_w, offset_h);
        simt::mbarrier_arrive_expect(full[0], static_cast<unsigned>(words) * 4);
    }
    simt::mbarrier_wait(full[0], 0);
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        y[i] = box[i];
}

struct Convolution {
    int n, h, w, c, r, s;
    int stride_h, stride_w, dilation_h, dilation_w;
    int top, bottom, left, right;
    int p() const { return (h + top + bottom - (r - 1) * dilation_h - 1) / stride_h + 1; }
    int q() const { return (w + left + right - (s - 1) * dilation_w - 1) / stride_w + 1; }
};

// Pixels from `first` on, of two taps: the pixels of the implicit matrix in the order (n, p, q).
void im2col_rows(const Convolution& conv, int pixels, int channels, Swizzle swizzle) {
    const int padded = (conv.c + 3) / 4 * 4;
    Array<float> x("x", counting(conv.n * conv.h * conv.w * padded));
    const auto u = [](int v) { return static_cast<std::uint64_t>(v); };
    const TensorMap map = simt::im2col_map(
        {TensorType::kFloat,
         x.data(),
         {u(conv.c), u(conv.w), u(conv.h), u(conv.n)},
         {u(4 * padded), u(4 * padded * conv.w), u(4 * padded * conv.w * conv.h)},
         {-conv.left, -conv.top},
         {conv.right - (conv.s - 1) * conv.dilation_w,
          conv.bottom - (conv.r - 1) * conv.dilation_h},
         static_cast<std::uint32_t>(channels),
         static_cast<std::uint32_t>(pixels),
         {static_cast<std::uint32_t>(conv.stride_w), static_cast<std::uint32_t>(conv.stride_h)},
         swizzle});
    Array<float> y("y", static_cast<std::size_t>(pixels) * channels);
    const int p = conv.p(), q = conv.q(), total = conv.n * p * q;
    for (const int first : {0, q - 1, total / 2, total - 1}) {
        for (const int tap : {0, conv.r * conv.s - 1}) {
            const int r = tap / conv.s, s = tap % conv.s, c0 = tap == 0 ? 0 : channels;
            simt::launch<im2col_kernel>(1, 64, static_cast<std::size_t>(pixels) * channels * 4,
                                        nullptr, map, c0, first % q * conv.stride_w - conv.left,
                                        first / q % p * conv.stride_h - conv.top, first / (p * q),
                                        s * conv.dilation_w, r * conv.dilation_h, pixels * channels,
                                        y.data());
            for (int pixel = 0; pixel < pixels; ++pixel) {
                const int m = first + pixel;
                const int at_w = m % q * conv.stride_w - conv.left + s * conv.dilation_w;
                const int at_h = m / q % p * conv.stride_h - conv.top + r * conv.dilation_h;
                const int at_n = m / (p * q);
                const bool inside =
                    at_w >= 0 && at_w < conv.w && at_h >= 0 && at_h < conv.h && at_n < conv.n;
                for (int i = 0; i < channels; ++i) {
                    const int c = c0 + i;
                    const float expected =
                        inside && c < conv.c
                            ? static_cast<float>(((at_n * conv.h + at_h) * conv.w + at_w) * padded +
                                                 c)
                            : 0.0f;
                    const int lies =
                        pixel * channels + 4 * swizzled_part(swizzle, pixel, i / 4) + i % 4;
                    expect(y[lies] == expected, "im2col");
                }
            }
        }
    }
}

void im2col() {
    im2col_rows({2, 5, 7, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, 40, 4, Swizzle::kNone);
    im2col_rows({3, 8, 9, 32, 3, 2, 2, 2, 1, 1, 0, 1, 2, 0}, 24, 32, Swizzle::k128);
    im2col_rows({2, 9, 6, 12, 2, 3, 3, 2, 2, 1, 1, 2, 0, 1}, 17, 8, Swizzle::k32);
    im2col_rows({1, 11, 11, 20, 5, 5, 4, 4, 1, 2, 2, 2, 4, 4}, 8, 16, Swizzle::k64);
    im2col_rows({5, 1, 1, 4, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0}, 6, 4, Swizzle::kNone);
}

// ---- Stores -------------------------------------------------------------------------------------

enum class StoreFault { kNone, kNoFence, kFenceOfOneThread, kNoWait, kNoCommit, kReusedTooEarly };

template <StoreFault F>
__global__ void store_kernel(const __grid_constant__ TensorMap map, int x0, int x1) {
    float* tile = simt::dynamic_shared<float>();
    for (int round = 0; round < 2; ++round) {
        for (int r = 0; r < 8; ++r)
            tile[r * 32 + (threadIdx.x / 4 ^ r) * 4 + threadIdx.x % 4] =
                static_cast<float>(1000 * round + 32 * r + threadIdx.x);
        if (F != StoreFault::kNoFence && (F != StoreFault::kFenceOfOneThread || threadIdx.x == 0))
            simt::fence_proxy_async();
        __syncthreads();
        if (threadIdx.x == 0) {
            simt::tensor_store(map, tile, x0, x1 + 8 * round);
            if (F != StoreFault::kNoCommit) simt::tensor_store_commit();
            if (F != StoreFault::kReusedTooEarly && F != StoreFault::kNoWait)
                simt::tensor_store_wait_read<0>();
            if (F == StoreFault::kReusedTooEarly) simt::tensor_store_wait_read<1>();
        }
        if (F == StoreFault::kNoWait) return;
        __syncthreads();
    }
    if (threadIdx.x == 0) simt::tensor_store_wait<0>();
}

template <StoreFault F>
void store() {
    Array<float> y("y", std::vector<float>(36 * 20, -1.0f));
    const TensorMap map = simt::tiled_map(
        {TensorType::kFloat, y.data(), 2, {33, 14}, {36 * 4}, {32, 8}, {1, 1}, Swizzle::k128});
    simt::launch<store_kernel<F>>(1, 32, 1024, nullptr, map, 4, -3);
    for (int row = 0; row < 20; ++row) {
        for (int i = 0; i < 36; ++i) {
            const int r = row + 3, c = i - 4;
            const bool inside = row < 13 && i < 33 && c >= 0;
            const float expected =
                inside ? static_cast<float>(1000 * (r / 8) + 32 * (r % 8) + c) : -1.0f;
            expect(y[row * 36 + i] == expected, "store");
        }
    }
}

// ---- A pipeline of loads, and what may be wrong with one ----------------------------------------

enum class LoadFault {
    kNone,
    kNoWait,
    kNoEmptyWait,
    kTooFewBytes,
    kTooManyBytes,
    kNoInitFence,
    kMisaligned,
    kWrongKind,
    kWrongRank,
    kNotWaitedForAtAll,
    kStoredOver,
    kOutOfBounds,
};

template <LoadFault F>
__global__ void loads_kernel(const __grid_constant__ TensorMap map, int tiles, float* y) {
    constexpr int kStages = 3;
    SIMT_SHARED(float, stages, kStages * 256 + 32);
    SIMT_SHARED(Mbarrier, full, kStages);
    SIMT_SHARED(Mbarrier, empty, kStages);
    if (F == LoadFault::kNoInitFence) {
        if (threadIdx.x < kStages) {
            simt::mbarrier_init(full[threadIdx.x], 1);
            simt::mbarrier_init(empty[threadIdx.x], 2);
        }
        __syncthreads();
    } else {
        begin_barriers(full, kStages, 1);
        begin_barriers(empty, kStages, 2);
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp == 2) {
        if (lane != 0) return;
        if (F == LoadFault::kStoredOver) stages[0] = 1;
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % kStages;
            float* at = stages + stage * 256 + (F == LoadFault::kMisaligned ? 4 : 0);
            if (F != LoadFault::kNoEmptyWait)
                simt::mbarrier_wait(empty[stage], (tile / kStages & 1) ^ 1);
            const unsigned bytes = F == LoadFault::kTooFewBytes    ? 512
                                   : F == LoadFault::kTooManyBytes ? 1040
                                                                   : 1024;
            simt::mbarrier_arrive_expect(full[stage], bytes);
            if constexpr (F == LoadFault::kWrongKind) {
                simt::tensor_load_im2col(at, map, full[stage], 0, 0, 0, 0, 0, 0);
            } else if constexpr (F == LoadFault::kWrongRank) {
                simt::tensor_load(at, map, full[stage], 0);
            } else {  // two boxes a stage
                simt::tensor_load(at, map, full[stage], 0, 8 * tile);
                simt::tensor_load(at + 128, map, full[stage], 0, 8 * tile + 4);
            }
        }
        return;
    }
    if (F == LoadFault::kNotWaitedForAtAll) return;
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        const int stage = tile % kStages;
        if (F != LoadFault::kNoWait) simt::mbarrier_wait(full[stage], tile / kStages & 1);
        for (int i = warp * 128; i < warp * 128 + 128; i += 32)
            sum += stages[stage * 256 + i + lane];
        __syncwarp();
        if (lane == 0) simt::mbarrier_arrive(empty[stage]);
    }
    y[threadIdx.x] = sum;
}

template <LoadFault F>
void loads() {
    const int tiles = F == LoadFault::kNotWaitedForAtAll ? 2 : 8;
    Array<float> x("x", counting(tiles * 256 - 32)), y("y", 64);
    const TensorMap map = simt::tiled_map(
        {TensorType::kFloat,
         x.data(),
         2,
         {32, static_cast<std::uint64_t>(8 * tiles - (F == LoadFault::kOutOfBounds ? 0 : 1))},
         {128},
         {32, 4},
         {1, 1},
         Swizzle::kNone});
    simt::launch<loads_kernel<F>>(1, 96, 0, nullptr, map, tiles, y.data());
    for (int i = 0; i < 64; ++i) {
        float expected = 0;
        for (int tile = 0; tile < tiles; ++tile) {
            for (int row = i / 32 * 4; row < i / 32 * 4 + 4; ++row) {
                if (8 * tile + row < 8 * tiles - 1)
                    expected += static_cast<float>((8 * tile + row) * 32 + i % 32);
            }
        }
        expect(y[i] == expected, "loads");
    }
}

}  // namespace

std::vector<Case> correct_tensor_cases() {
    return {
        {"no swizzle", swizzle<Swizzle::kNone, 20>},
        {"swizzle of 32 bytes", swizzle<Swizzle::k32, 8>},
        {"swizzle of 64 bytes", swizzle<Swizzle::k64, 16>},
        {"swizzle of 128 bytes", swizzle<Swizzle::k128, 32>},
        {"boxes", boxes},
        {"tf32 is rounded", tf32_is_rounded},
        {"im2col", im2col},
        {"tensor stores", store<StoreFault::kNone>},
        {"tensor loads", loads<LoadFault::kNone>},
    };
}

std::vector<Case> broken_tensor_cases() {
    return {
        {"load_without_wait", loads<LoadFault::kNoWait>},
        {"load_over_readers", loads<LoadFault::kNoEmptyWait>},
        {"load_of_too_few_bytes", loads<LoadFault::kTooFewBytes>},
        {"load_of_too_many_bytes", loads<LoadFault::kTooManyBytes>},
        {"load_without_init_fence", loads<LoadFault::kNoInitFence>},
        {"load_misaligned", loads<LoadFault::kMisaligned>},
        {"load_of_other_kind", loads<LoadFault::kWrongKind>},
        {"load_of_other_rank", loads<LoadFault::kWrongRank>},
        {"load_not_waited_for", loads<LoadFault::kNotWaitedForAtAll>},
        {"load_over_a_store", loads<LoadFault::kStoredOver>},
        {"load_out_of_bounds", loads<LoadFault::kOutOfBounds>},
        {"store_without_fence", store<StoreFault::kNoFence>},
        {"store_with_fence_of_one_thread", store<StoreFault::kFenceOfOneThread>},
        {"store_not_waited_for", store<StoreFault::kNoWait>},
        {"store_without_commit", store<StoreFault::kNoCommit>},
        {"store_reused_too_early", store<StoreFault::kReusedTooEarly>},
    };
}

}  // namespace selftest
