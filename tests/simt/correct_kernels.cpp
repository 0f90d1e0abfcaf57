// Correct kernels that come close to what the checks forbid: none may be reported. Those of matrix
// products are in correct_products.cpp.
#include "selftest.h"

namespace selftest {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// ---- Sum: shuffles in a warp, shared memory between warps ---------------------------------------

__global__ void sum_kernel(int n, const float* x, float* y) {
    SIMT_SHARED(float, part, 8);
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i];
    for (int delta = 16; delta > 0; delta /= 2)
        sum += __shfl_down_sync(kAll, sum, delta);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 8; ++i)
            sum += part[i];
        y[0] = sum;
    }
}

void sum() {
    Array<float> x("x", counting(1000)), y("y", 1);
    simt::launch<sum_kernel>(1, 256, 0, nullptr, 1000, x.data(), y.data());
    expect(y[0] == 499500.0f, "sum");
}

// ---- A pipeline of asynchronous copies, with a tail that is filled with zeros -------------------

template <int Stages>
__global__ void pipeline_kernel(int n, const float* x, float* y) {
    float* stages = simt::dynamic_shared<float>();
    const int threads = blockDim.x, i = threadIdx.x;
    const int tiles = (n + threads - 1) / threads;
    const auto load = [&](int tile) {
        if (tile < tiles) {
            const int at = tile * threads + i;
            simt::copy_async<4>(stages + tile % Stages * threads + i, at < n ? x + at : x, at < n);
        }
        simt::copy_async_commit();
    };
    for (int tile = 0; tile < Stages - 1; ++tile)
        load(tile);
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        simt::copy_async_wait<Stages - 2>();
        __syncthreads();
        load(tile + Stages - 1);
        sum += stages[tile % Stages * threads + threads - 1 - i];
    }
    y[i] = sum;
}

template <int Stages>
void pipeline() {
    const int n = 1000, threads = 96;
    Array<float> x("x", counting(n)), y("y", threads);
    simt::launch<pipeline_kernel<Stages>>(1, threads, Stages * threads * sizeof(float), nullptr, n,
                                          x.data(), y.data());
    for (int i = 0; i < threads; ++i) {
        float expected = 0;
        for (int k = threads - 1 - i; k < n; k += threads)
            expected += static_cast<float>(k);
        expect(y[i] == expected, "pipeline");
    }
}

// ---- Exchange inside a warp through shared memory -----------------------------------------------

__global__ void warp_exchange_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 128);
    const int i = threadIdx.x;
    tile[i] = x[i];
    __syncwarp();
    const float next = tile[i ^ 31];
    __syncwarp();
    tile[i] = next;
    __syncwarp(i % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
    y[i] = tile[i ^ 15];
}

void warp_exchange() {
    Array<float> x("x", counting(128)), y("y", 128);
    simt::launch<warp_exchange_kernel>(1, 128, 0, nullptr, x.data(), y.data());
    for (int i = 0; i < 128; ++i)
        expect(y[i] == static_cast<float>(i ^ 15 ^ 31), "warp_exchange");
}

// ---- Threads that leave early do not hold up a barrier ------------------------------------------

__global__ void early_exit_kernel(int n, float* y) {
    SIMT_SHARED(float, tile, 100);
    const int i = threadIdx.x;
    if (i >= n) return;
    tile[i] = static_cast<float>(i);
    __syncthreads();
    y[i] = tile[n - 1 - i];
}

void early_exit() {
    Array<float> y("y", 70);
    simt::launch<early_exit_kernel>(1, 128, 0, nullptr, 70, y.data());
    for (int i = 0; i < 70; ++i)
        expect(y[i] == static_cast<float>(69 - i), "early_exit");
}

// ---- Atomics ------------------------------------------------------------------------------------

__global__ void histogram_kernel(int n, const std::uint8_t* x, int* count) {
    SIMT_SHARED(int, local, 16);
    for (int i = threadIdx.x; i < 16; i += blockDim.x)
        local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[x[i]], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < 16; i += blockDim.x)
        atomicAdd(&count[i], local[i]);
}

void histogram() {
    std::vector<std::uint8_t> values(1000);
    for (int i = 0; i < 1000; ++i)
        values[i] = static_cast<std::uint8_t>(i * i % 16);
    std::vector<int> expected(16, 0);
    for (const std::uint8_t v : values)
        ++expected[v];
    Array<std::uint8_t> x("x", values);
    Array<int> count("count", std::vector<int>(16, 0));
    simt::launch<histogram_kernel>(3, 64, 0, nullptr, 1000, x.data(), count.data());
    for (int i = 0; i < 16; ++i)
        expect(count[i] == expected[i], "histogram");
}

__global__ void atomics_kernel(int* v, float* f) {
    const int i = threadIdx.x;
    atomicSub(&v[0], i);
    atomicMin(&v[1], i - 5);
    atomicMax(&v[2], i + 5);
    atomicAnd(&v[3], ~(1 << i % 32));
    atomicOr(&v[4], 1 << i % 32);
    atomicXor(&v[5], i);
    atomicCAS(&v[6], 0, 7);
    atomicInc(reinterpret_cast<unsigned*>(&v[7]), 9u);
    atomicAdd(f, 0.5f);
}

void atomics() {
    Array<int> v("v", std::vector<int>{0, 0, 0, -1, 0, 0, 0, 0});
    Array<float> f("f", std::vector<float>{1});
    simt::launch<atomics_kernel>(1, 64, 0, nullptr, v.data(), f.data());
    expect(v[0] == -2016 && v[1] == -5 && v[2] == 68 && v[3] == 0 && v[4] == -1 && v[5] == 0 &&
               v[6] == 7 && v[7] == 4 && f[0] == 33,
           "atomics");
}

// ---- The last block adds up what all have written -----------------------------------------------

__global__ void last_block_kernel(const float* x, float* part, unsigned* ticket, float* y) {
    SIMT_SHARED(int, last, 1);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    part[i] = 2 * x[i];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last[0]) return;
    float sum = 0;
    for (unsigned block = 0; block < gridDim.x; ++block)
        sum += part[block * blockDim.x + threadIdx.x];
    y[threadIdx.x] = sum;
}

void last_block() {
    Array<float> x("x", counting(5 * 32)), part("part", 5 * 32), y("y", 32);
    Array<unsigned> ticket("ticket", std::vector<unsigned>{0});
    simt::launch<last_block_kernel>(5, 32, 0, nullptr, x.data(), part.data(), ticket.data(),
                                    y.data());
    for (int i = 0; i < 32; ++i)
        expect(y[i] == static_cast<float>(2 * (5 * i + 32 * 10)), "last_block");
}

// ---- Bytes side by side, written by different threads and blocks --------------------------------

__global__ void bytes_kernel(int n, std::uint8_t* y) {
    SIMT_SHARED(std::uint8_t, tile, 96);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = static_cast<std::uint8_t>(i);
    __syncthreads();
    if (i < n) y[i] = tile[threadIdx.x];
}

void bytes() {
    Array<std::uint8_t> y("y", 101);
    simt::launch<bytes_kernel>(9, 13, 0, nullptr, 101, y.data());
    for (int i = 0; i < 101; ++i)
        expect(y[i] == i, "bytes");
}

// ---- Vectors, reductions at barriers, votes -----------------------------------------------------

__global__ void vectors_kernel(const float4* x, float2* y) {
    const float4 v = __ldg(x + threadIdx.x);
    y[2 * threadIdx.x] = make_float2(v.x, v.y);
    y[2 * threadIdx.x + 1] = make_float2(v.z, v.w);
}

void vectors() {
    Array<float4> x("x", std::vector<float4>{{1, 2, 3, 4}, {5, 6, 7, 8}});
    Array<float2> y("y", 4);
    simt::launch<vectors_kernel>(1, 2, 0, nullptr, x.data(), y.data());
    for (int i = 0; i < 4; ++i)
        expect(y[i].x == static_cast<float>(2 * i + 1) && y[i].y == static_cast<float>(2 * i + 2),
               "vectors");
}

__global__ void votes_kernel(int* y) {
    const int i = threadIdx.x;
    const int count = __syncthreads_count(i % 3 == 0);
    const int all = __syncthreads_and(i < 64), any = __syncthreads_or(i == 70);
    const unsigned odd = __ballot_sync(kAll, i & 1);
    const int some = __any_sync(kAll, i == 40), every = __all_sync(kAll, i < 64);
    const unsigned match = __match_any_sync(kAll, i % 4);
    const int sum = __reduce_add_sync(kAll, i), least = __reduce_min_sync(kAll, 5 - i);
    if (i == 32) {
        const int results[] = {
            count, all,  any, static_cast<int>(odd), some, every, static_cast<int>(match),
            sum,   least};
        for (int k = 0; k < 9; ++k)
            y[k] = results[k];
    }
}

void votes() {
    Array<int> y("y", 9);
    simt::launch<votes_kernel>(1, 64, 0, nullptr, y.data());
    const int expected[] = {
        22, 1, 0, static_cast<int>(0xaaaaaaaau), 1, 1, 0x11111111, (32 + 63) * 16, -58};
    for (int k = 0; k < 9; ++k)
        expect(y[k] == expected[k], "votes " + std::to_string(k));
}

__global__ void shuffles_kernel(int* y) {
    const int i = threadIdx.x;
    y[i] = __shfl_sync(kAll, i, 5, 8);
    y[32 + i] = __shfl_up_sync(kAll, i, 3, 16);
    y[64 + i] = __shfl_down_sync(kAll, i, 3, 16);
    y[96 + i] = __shfl_xor_sync(kAll, i, 9);
    // Each half of the warp by itself, one twice.
    const unsigned half = i < 16 ? 0x0000ffffu : 0xffff0000u;
    y[128 + i] = i < 16 ? __shfl_sync(half, __shfl_sync(half, i, 3), 1) : __shfl_sync(half, i, 20);
    y[160 + i] = static_cast<int>(__shfl_xor_sync(kAll, 4.0 * i, 1));
}

void shuffles() {
    Array<int> y("y", 192);
    simt::launch<shuffles_kernel>(1, 32, 0, nullptr, y.data());
    for (int i = 0; i < 32; ++i) {
        expect(y[i] == i / 8 * 8 + 5, "shfl");
        expect(y[32 + i] == (i % 16 < 3 ? i : i - 3), "shfl_up");
        expect(y[64 + i] == (i % 16 > 12 ? i : i + 3), "shfl_down");
        expect(y[96 + i] == (i ^ 9), "shfl_xor");
        expect(y[128 + i] == (i < 16 ? 3 : 20), "shfl of halves");
        expect(y[160 + i] == 4 * (i ^ 1), "shfl of double");
    }
}

// ---- Bank conflicts: test_emulator.py reads how many wavefronts too many each line takes --------

__global__ void banks_kernel(const float* ones, float* y) {
    SIMT_SHARED(float, tile, 32 * 36);
    SIMT_SHARED(float, stage, 33 * 32 + 128);
    const int lane = threadIdx.x;
    for (int i = 0; i < 36; ++i)
        tile[32 * i + lane] = ones[lane];          // conflicts: 0
    simt::copy_async<16>(stage + 4 * lane, ones);  // conflicts: 0
    float* half = stage + 128 + 4 * (lane % 8 < 4);
    simt::copy_async<16>(half + 32 * lane, ones);  // conflicts: 12
    simt::copy_async_commit();
    simt::copy_async_wait<0>();
    __syncwarp();
    float sum = tile[5];                       // conflicts: 0
    sum += tile[lane + 7];                     // conflicts: 0
    sum += tile[2 * lane + 1];                 // conflicts: 1
    sum += tile[33 * lane];                    // conflicts: 0
    sum += tile[32 * lane + 3];                // conflicts: 31
    if (lane % 2) sum += tile[32 * lane + 1];  // conflicts: 15
    for (int i = 0; i < lane; ++i)
        sum += tile[32 * lane + i];                          // conflicts: 465
    sum += reinterpret_cast<const short*>(tile)[lane] != 0;  // conflicts: 0
    const float2* twos = reinterpret_cast<const float2*>(tile);
    const float2 near = twos[lane];      // conflicts: 0
    const float2 far = twos[16 * lane];  // conflicts: 30
    const float4* fours = reinterpret_cast<const float4*>(tile);
    const float4 line = fours[lane];        // conflicts: 0
    const float4 rows = fours[9 * lane];    // conflicts: 0
    const float4 column = fours[8 * lane];  // conflicts: 28
    sum += near.y + far.y + line.w + rows.w + column.w;
    std::uint32_t r[4];
    simt::load_matrix_x4(r, tile + 36 * lane);        // conflicts: 0
    simt::load_matrix_x4_trans(r, tile + 32 * lane);  // conflicts: 28
    stage[32 * lane] = sum;                           // conflicts: 31
    __syncwarp();
    y[31 - lane] = stage[32 * (31 - lane)];  // conflicts: 31
}

void banks() {
    Array<float> ones("ones", std::vector<float>(32, 1.0f)), y("y", 32);
    simt::launch<banks_kernel>(1, 32, 0, nullptr, ones.data(), y.data());
    for (int lane = 0; lane < 32; ++lane)
        expect(y[lane] == static_cast<float>(10 + lane + lane % 2 + lane % 2), "banks");
}

}  // namespace

std::vector<Case> correct_cases() {
    return {
        {"sum", sum},
        {"pipeline of 2", pipeline<2>},
        {"pipeline of 4", pipeline<4>},
        {"warp_exchange", warp_exchange},
        {"early_exit", early_exit},
        {"histogram", histogram},
        {"atomics", atomics},
        {"last_block", last_block},
        {"bytes", bytes},
        {"vectors", vectors},
        {"votes", votes},
        {"shuffles", shuffles},
        {"banks", banks},
    };
}

}  // namespace selftest
