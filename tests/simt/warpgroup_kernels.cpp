// Products of warpgroups: correct kernels, and a broken one for each rule that they may break.
#include <cstring>

#include "selftest.h"

namespace selftest {
namespace {

constexpr int kThreads = 128;  // a warpgroup
constexpr int kRows = 64, kCols = 64, kDepth = 16;
using Element = std::uint16_t;
using Accumulators = float[kCols / 2];

__device__ Element to_bf16(int small) {
    const float value = static_cast<float>(small);
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<Element>(bits >> 16);
}

// K-major without swizzle: matrices of 8 rows x 16 bytes, those of a row's two halves together.
__device__ int at(int row, int k) {
    return row / 8 * 128 + k / 8 * 64 + row % 8 * 8 + k % 8;
}
__device__ std::uint64_t describe(const Element* operand) {
    return simt::matrix_descriptor(operand, 128, 256, simt::Swizzle::kNone);
}

// A[row][k] = 1 where k = row % 16, B[col][k] = col + k: their product is col + row % 16.
__device__ void fill(Element* a, Element* b, int first_thread = 0) {
    for (int i = threadIdx.x - first_thread; i < kRows * kDepth; i += kThreads) {
        const int row = i / kDepth, k = i % kDepth;
        a[at(row, k)] = to_bf16(k == row % kDepth);
        b[at(row, k)] = to_bf16(row + k);
    }
}

__device__ void clear(Accumulators& d) {
    for (float& value : d)
        value = 0;
}

__device__ void multiply(Accumulators& d, const Element* a, const Element* b) {
    simt::wgmma_bf16<kCols, simt::Major::kK, simt::Major::kK>(d, describe(a), describe(b), true);
}

// As the PTX manual lays the accumulators out.
__device__ void store(const Accumulators& d, float* y) {
    const int thread = threadIdx.x % kThreads, group = thread % 32 / 4, quad = thread % 4;
    for (int i = 0; i < kCols / 2; ++i)
        y[(thread / 32 * 16 + group + i / 2 % 2 * 8) * kCols + i / 4 * 8 + 2 * quad + i % 2] = d[i];
}

void expect_product(const Array<float>& y, int times) {
    for (int row = 0; row < kRows; ++row) {
        for (int col = 0; col < kCols; ++col)
            expect(y[static_cast<std::size_t>(row * kCols + col)] ==
                       static_cast<float>(times * (col + row % kDepth)),
                   "product");
    }
}

// ---- Correct ------------------------------------------------------------------------------------

__global__ void product_kernel(float* y) {
    SIMT_SHARED(Element, a, kRows * kDepth);
    SIMT_SHARED(Element, b, kCols * kDepth);
    fill(a, b);
    simt::fence_proxy_async();
    __syncthreads();
    Accumulators d;
    clear(d);
    simt::warpgroup_arrive();
    multiply(d, a, b);
    multiply(d, a, b);  // of the same accumulators: in order, without an arrive between them
    simt::warpgroup_commit();
    simt::warpgroup_wait<0>();
    store(d, y);
}

void product() {
    Array<float> y("y", kRows * kCols);
    simt::launch<product_kernel>(1, kThreads, 0, nullptr, y.data());
    expect_product(y, 2);
}

// A product is under way while the other buffer is filled; its own is filled after the wait that
// covers it and a barrier.
__global__ void two_buffers_kernel(float* y) {
    SIMT_SHARED(Element, tiles, 4 * kRows * kDepth);
    Accumulators d;
    for (int turn = 0; turn < 4; ++turn) {
        Element* a = tiles + turn % 2 * 2 * kRows * kDepth;
        Element* b = a + kRows * kDepth;
        fill(a, b);
        simt::fence_proxy_async();
        __syncthreads();
        simt::warpgroup_arrive();
        simt::wgmma_bf16<kCols, simt::Major::kK, simt::Major::kK>(d, describe(a), describe(b),
                                                                  turn > 0);
        simt::warpgroup_commit();
        simt::warpgroup_wait<1>();
        __syncthreads();
    }
    simt::warpgroup_wait<0>();
    store(d, y);
}

void two_buffers() {
    Array<float> y("y", kRows * kCols);
    simt::launch<two_buffers_kernel>(1, kThreads, 0, nullptr, y.data());
    expect_product(y, 4);
}

// The second of two warpgroups; A from registers; the registers can be used after the wait.
__global__ void registers_kernel(float* y) {
    SIMT_SHARED(Element, a, kRows * kDepth);
    SIMT_SHARED(Element, b, kCols * kDepth);
    if (threadIdx.x < kThreads) {
        fill(a, b);
        simt::fence_proxy_async();
    }
    __syncthreads();
    if (threadIdx.x < kThreads) return;
    const int thread = threadIdx.x - kThreads, group = thread % 32 / 4, quad = thread % 4;
    std::uint32_t words[4];
    for (int i = 0; i < 4; ++i)
        std::memcpy(&words[i], a + at(thread / 32 * 16 + group + i % 2 * 8, 2 * quad + i / 2 * 8),
                    4);
    Accumulators d;
    clear(d);
    for (int turn = 0; turn < 3; ++turn) {
        simt::warpgroup_arrive();
        simt::wgmma_bf16<kCols, simt::Major::kK>(d, words, describe(b), true);
        simt::wgmma_bf16<kCols, simt::Major::kK>(d, words, describe(b), true);
        simt::warpgroup_commit();
        simt::warpgroup_wait<0>();
    }
    store(d, y);
}

void registers() {
    Array<float> y("y", kRows * kCols);
    simt::launch<registers_kernel>(1, 2 * kThreads, 0, nullptr, y.data());
    expect_product(y, 6);
}

// What cp.async has brought is fenced by the threads that waited for it.
__global__ void copied_kernel(const Element* x, float* y) {
    SIMT_SHARED(Element, tiles, 2 * kRows * kDepth);
    for (int i = threadIdx.x; i < 2 * kRows * kDepth / 8; i += kThreads)
        simt::copy_async<16>(tiles + 8 * i, x + 8 * i);
    simt::copy_async_commit();
    simt::copy_async_wait<0>();
    simt::fence_proxy_async();
    __syncthreads();
    Accumulators d;
    simt::warpgroup_arrive();
    simt::wgmma_bf16<kCols, simt::Major::kK, simt::Major::kK>(
        d, describe(tiles), describe(tiles + kRows * kDepth), false);
    simt::warpgroup_commit();
    simt::warpgroup_wait<0>();
    store(d, y);
}

void copied() {
    std::vector<Element> both(2 * kRows * kDepth);
    for (int i = 0; i < kRows * kDepth; ++i) {
        const int row = i / kDepth, k = i % kDepth;
        both[static_cast<std::size_t>(at(row, k))] = to_bf16(k == row % kDepth);
        both[static_cast<std::size_t>(kRows * kDepth + at(row, k))] = to_bf16(row + k);
    }
    Array<Element> x("x", both);
    Array<float> y("y", kRows * kCols);
    simt::launch<copied_kernel>(1, kThreads, 0, nullptr, x.data(), y.data());
    expect_product(y, 1);
}

// ---- Broken: each leaves out or changes one thing -----------------------------------------------

enum class Broken {
    kMissingArrive,
    kMissingArriveAfterWait,
    kMissingFence,
    kFenceOfHalf,
    kFenceAfterBarrier,
    kMissingBarrier,
    kMissingCommit,
    kReadTooEarly,
    kWrittenTooEarly,
    kOverwritten,
    kOverwrittenByOthers,
    kMissingWarp,
    kExitedWarp,
    kOtherDescriptors,
    kOtherShape,
    kNotWaitedFor,
    kMisalignedDescriptor,
    kLocalDescriptor,
    kBaseOffset,
    kDescriptorBeyond,
};

template <Broken What>
__global__ void broken_product_kernel(float* y) {
    SIMT_SHARED(Element, a, kRows * kDepth);
    SIMT_SHARED(Element, b, kCols * kDepth);
    const auto is = [](Broken what) { return What == what; };
    fill(a, b);
    if (!is(Broken::kMissingFence) && !is(Broken::kFenceAfterBarrier) &&
        !(is(Broken::kFenceOfHalf) && threadIdx.x < 64))
        simt::fence_proxy_async();
    if (!is(Broken::kMissingBarrier)) __syncthreads();
    if (is(Broken::kFenceAfterBarrier)) simt::fence_proxy_async();
    if (is(Broken::kExitedWarp) && threadIdx.x >= 96) return;
    Accumulators d;
    clear(d);
    if (!is(Broken::kMissingArrive)) simt::warpgroup_arrive();
    if (is(Broken::kOtherDescriptors)) {
        multiply(d, threadIdx.x < 32 ? b : a, b);
    } else if (is(Broken::kMisalignedDescriptor)) {
        multiply(d, a + 4, b);
    } else if (is(Broken::kLocalDescriptor)) {
        multiply(d, reinterpret_cast<const Element*>(y), b);
    } else if (is(Broken::kBaseOffset)) {
        const auto wrong = describe(a) | std::uint64_t{1} << 49;
        simt::wgmma_bf16<kCols, simt::Major::kK, simt::Major::kK>(d, wrong, describe(b), true);
    } else if (is(Broken::kDescriptorBeyond)) {
        multiply(d, a, b + 128);  // the last eight columns lie behind
    } else if (!is(Broken::kMissingWarp) || threadIdx.x < 96) {
        multiply(d, a, b);
    }
    if (is(Broken::kOtherShape)) {
        auto& longer = reinterpret_cast<float(&)[48]>(d);
        simt::wgmma_bf16<96, simt::Major::kK, simt::Major::kK>(longer, describe(a), describe(b),
                                                               true);
    }
    if (!is(Broken::kMissingCommit)) simt::warpgroup_commit();
    if (is(Broken::kReadTooEarly)) y[0] = d[3];
    if (is(Broken::kWrittenTooEarly)) d[5] = 1;
    if (is(Broken::kOverwritten) && threadIdx.x == 17) a[at(40, 3)] = 0;
    if (is(Broken::kNotWaitedFor)) return;
    simt::warpgroup_wait<0>();
    if (is(Broken::kOverwrittenByOthers) && threadIdx.x == 17) b[at(40, 3)] = 0;
    if (is(Broken::kMissingArriveAfterWait)) {
        multiply(d, a, b);
        simt::warpgroup_commit();
        simt::warpgroup_wait<0>();
    }
    store(d, y);
}

template <Broken What, int Threads = kThreads>
void broken_product() {
    Array<float> y("y", kRows * kCols);
    simt::launch<broken_product_kernel<What>>(1, Threads, 0, nullptr, y.data());
    expect_product(y, 1);
}

// A from registers that are written to before the wait.
__global__ void a_written_too_early_kernel(float* y) {
    SIMT_SHARED(Element, b, kCols * kDepth);
    for (int i = threadIdx.x; i < kCols * kDepth; i += kThreads)
        b[i] = 0;
    simt::fence_proxy_async();
    __syncthreads();
    std::uint32_t words[4] = {};
    Accumulators d;
    clear(d);
    simt::warpgroup_arrive();
    simt::wgmma_bf16<kCols, simt::Major::kK>(d, words, describe(b), true);
    simt::warpgroup_commit();
    words[1] = threadIdx.x;
    simt::warpgroup_wait<0>();
    store(d, y);
    y[0] = static_cast<float>(words[1]);
}

void a_written_too_early() {
    Array<float> y("y", kRows * kCols);
    simt::launch<a_written_too_early_kernel>(1, kThreads, 0, nullptr, y.data());
}

// All but the newest group have been waited for, and the newest is read.
__global__ void waits_for_too_few_products_kernel(float* y) {
    SIMT_SHARED(Element, a, kRows * kDepth);
    SIMT_SHARED(Element, b, kCols * kDepth);
    fill(a, b);
    simt::fence_proxy_async();
    __syncthreads();
    Accumulators first, second;
    clear(first);
    clear(second);
    simt::warpgroup_arrive();
    multiply(first, a, b);
    simt::warpgroup_commit();
    multiply(second, a, b);
    simt::warpgroup_commit();
    simt::warpgroup_wait<1>();
    store(first, y);
    store(second, y);
    simt::warpgroup_wait<0>();
}

void waits_for_too_few_products() {
    Array<float> y("y", kRows * kCols);
    simt::launch<waits_for_too_few_products_kernel>(1, kThreads, 0, nullptr, y.data());
    expect_product(y, 1);
}

// A product reads what cp.async may still be bringing.
__global__ void product_of_copies_under_way_kernel(const Element* x, float* y) {
    SIMT_SHARED(Element, tiles, 2 * kRows * kDepth);
    for (int i = threadIdx.x; i < 2 * kRows * kDepth / 8; i += kThreads)
        simt::copy_async<16>(tiles + 8 * i, x + 8 * i);
    simt::copy_async_commit();
    simt::fence_proxy_async();
    __syncthreads();
    Accumulators d;
    clear(d);
    simt::warpgroup_arrive();
    multiply(d, tiles, tiles + kRows * kDepth);
    simt::warpgroup_commit();
    simt::warpgroup_wait<0>();
    simt::copy_async_wait<0>();
    store(d, y);
}

void product_of_copies_under_way() {
    Array<Element> x("x", std::vector<Element>(2 * kRows * kDepth));
    Array<float> y("y", kRows * kCols);
    simt::launch<product_of_copies_under_way_kernel>(1, kThreads, 0, nullptr, x.data(), y.data());
}

}  // namespace

std::vector<Case> correct_warpgroup_cases() {
    return {
        {"product", product},
        {"product in two buffers", two_buffers},
        {"product with A in registers", registers},
        {"product of copies", copied},
    };
}

std::vector<Case> broken_warpgroup_cases() {
    return {
        {"product_without_arrive", broken_product<Broken::kMissingArrive>},
        {"product_without_arrive_after_wait", broken_product<Broken::kMissingArriveAfterWait>},
        {"product_without_fence", broken_product<Broken::kMissingFence>},
        {"product_with_half_a_fence", broken_product<Broken::kFenceOfHalf>},
        {"product_with_fence_after_barrier", broken_product<Broken::kFenceAfterBarrier>},
        {"product_without_barrier", broken_product<Broken::kMissingBarrier>},
        {"product_without_commit", broken_product<Broken::kMissingCommit>},
        {"accumulators_read_too_early", broken_product<Broken::kReadTooEarly>},
        {"accumulators_written_too_early", broken_product<Broken::kWrittenTooEarly>},
        {"operand_overwritten", broken_product<Broken::kOverwritten>},
        {"operand_overwritten_without_barrier", broken_product<Broken::kOverwrittenByOthers>},
        {"product_without_a_warp", broken_product<Broken::kMissingWarp>},
        {"product_after_exit", broken_product<Broken::kExitedWarp>},
        {"product_of_three_warps", broken_product<Broken::kMissingBarrier, 96>},
        {"product_of_other_descriptors", broken_product<Broken::kOtherDescriptors>},
        {"product_of_another_shape", broken_product<Broken::kOtherShape>},
        {"product_not_waited_for", broken_product<Broken::kNotWaitedFor>},
        {"misaligned_descriptor", broken_product<Broken::kMisalignedDescriptor>},
        {"descriptor_of_global_memory", broken_product<Broken::kLocalDescriptor>},
        {"descriptor_with_base_offset", broken_product<Broken::kBaseOffset>},
        {"descriptor_beyond", broken_product<Broken::kDescriptorBeyond>},
        {"operand_register_written_too_early", a_written_too_early},
        {"wait_for_too_few_products", waits_for_too_few_products},
        {"product_of_copies_under_way", product_of_copies_under_way},
    };
}

}  // namespace selftest
