// One broken kernel for each class of bug that the emulator catches.
#include "selftest.h"

namespace selftest {
namespace {

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xffffffffu;

// ---- Barriers -----------------------------------------------------------------------------------

__global__ void missing_barrier_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    tile[i] = x[i];
    y[i] = tile[kThreads - 1 - i];  // another thread's
}

__global__ void reused_too_early_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    for (int round = 0; round < 2; ++round) {
        tile[i] = x[i] + round;  // while others still read what the last round wrote
        __syncthreads();
        y[round * kThreads + i] = tile[kThreads - 1 - i];
    }
}

__global__ void missing_warp_barrier_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    tile[i] = x[i];
    // A shuffle waits for the lanes, but it does not order their accesses to memory.
    const float other = __shfl_xor_sync(kAll, x[i], 1);
    y[i] = tile[i ^ 1] + other;
}

__global__ void half_a_warp_barrier_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    tile[i] = x[i];
    __syncwarp(i % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
    y[i] = tile[i ^ 16];  // of the other half
}

__global__ void divergent_barrier_kernel(float* y) {
    if (threadIdx.x < 32) {
        y[threadIdx.x] = 1;
        __syncthreads();
    } else {
        y[threadIdx.x] = 2;
        __syncthreads();
    }
}

__global__ void barrier_against_shuffle_kernel(float* y) {
    if (threadIdx.x == 5) {
        __syncthreads();
    } else {
        y[threadIdx.x] = __shfl_sync(kAll, 1.0f, 0);
    }
    __syncthreads();
}

__global__ void exited_lane_kernel(float* y) {
    if (threadIdx.x == 40) return;
    y[threadIdx.x] = __shfl_down_sync(kAll, 1.0f, 1);
}

__global__ void mask_without_caller_kernel(float* y) {
    y[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 0);
}

// ---- Asynchronous copies ------------------------------------------------------------------------

__global__ void missing_wait_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 4 * kThreads);
    const int i = threadIdx.x;
    simt::copy_async<16>(tile + 4 * i, x + 4 * i);
    simt::copy_async_commit();
    __syncthreads();
    y[i] = tile[4 * (kThreads - 1 - i)];
}

__global__ void wait_for_too_few_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 2 * kThreads);
    const int i = threadIdx.x;
    for (int stage = 0; stage < 2; ++stage) {
        simt::copy_async<4>(tile + stage * kThreads + i, x + stage * kThreads + i);
        simt::copy_async_commit();
    }
    simt::copy_async_wait<1>();
    y[i] = tile[kThreads + i];  // the newest group
}

__global__ void missing_barrier_after_wait_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    simt::copy_async<4>(tile + i, x + i);
    simt::copy_async_commit();
    simt::copy_async_wait<0>();  // for this thread's own copies only
    y[i] = tile[kThreads - 1 - i];
}

__global__ void copy_over_readers_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    tile[i] = x[i];
    __syncthreads();
    y[i] = tile[kThreads - 1 - i];
    simt::copy_async<4>(tile + i, x + i);  // which another thread may not have read yet
    simt::copy_async_commit();
    simt::copy_async_wait<0>();
}

// ---- Bounds -------------------------------------------------------------------------------------

__global__ void static_overrun_kernel(float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    float* inside = tile;
    inside[i + 1] = 0;
    y[i] = 0;
}

__global__ void dynamic_overrun_kernel(float* y) {
    float* tile = simt::dynamic_shared<float>();
    const int i = threadIdx.x;
    tile[i - 1] = 0;
    y[i] = 0;
}

__global__ void global_overrun_kernel(int n, const float* x, float* y) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    if (i <= n) y[i] = x[0];
}

__global__ void global_read_overrun_kernel(const float* x, float* y) {
    y[threadIdx.x] = x[static_cast<int>(threadIdx.x) - 1];
}

__global__ void copy_overrun_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 4 * kThreads);
    simt::copy_async<16>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x + 4);
    simt::copy_async_commit();
    simt::copy_async_wait<0>();
    y[threadIdx.x] = tile[4 * threadIdx.x];
}

__global__ void local_overrun_kernel(int n, float* y) {
    float sums[4] = {};
    for (int i = 0; i < n; ++i)
        sums[i] += 1;
    y[threadIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
}

__global__ void null_kernel(const float* bias, float* y) {
    y[threadIdx.x] = bias[0];
}

// ---- Alignment ----------------------------------------------------------------------------------

__global__ void misaligned_vector_kernel(const float* x, float* y) {
    const float4 v = *reinterpret_cast<const float4*>(x + 1 + 4 * threadIdx.x);
    y[threadIdx.x] = v.x + v.w;
}

__global__ void misaligned_copy_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads + 8);
    simt::copy_async<16>(tile + 2, x);
    simt::copy_async_commit();
    simt::copy_async_wait<0>();
    y[threadIdx.x] = tile[2];
}

// ---- Uninitialised reads ------------------------------------------------------------------------

__global__ void uninitialised_shared_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, kThreads);
    const int i = threadIdx.x;
    if (i != 17) tile[i] = x[i];
    __syncthreads();
    y[i] = tile[i];
}

__global__ void uninitialised_global_kernel(float* y) {
    y[threadIdx.x] += 1;
}

// ---- Races in global memory ---------------------------------------------------------------------

__global__ void race_between_blocks_kernel(float* y) {
    y[threadIdx.x] = static_cast<float>(blockIdx.x);
}

__global__ void halo_of_next_block_kernel(float* y) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    y[i] = 1;
    __syncthreads();
    if (i + kThreads < static_cast<int>(gridDim.x) * kThreads) y[i] += y[i + kThreads];
}

__global__ void race_in_global_memory_kernel(float* y) {
    y[threadIdx.x / 2] = static_cast<float>(threadIdx.x);
}

__global__ void update_without_atomic_kernel(int* count) {
    *count = *count + 1;
}

// ---- What no GPU could do -----------------------------------------------------------------------

__global__ void throwing_kernel(float* y) {
    if (threadIdx.x == 9) throw std::out_of_range("nine");
    y[threadIdx.x] = 0;
}

// ---- Limits -------------------------------------------------------------------------------------

__global__ void nothing_kernel() {}

__global__ void too_much_static_kernel(float* y) {
    SIMT_SHARED(float, tile, 12 * 1024 + 1);
    tile[threadIdx.x] = 0;
    y[threadIdx.x] = 0;
}

__global__ void no_room_kernel(float* y) {
    SIMT_SHARED(float, tile, kThreads);
    tile[threadIdx.x] = simt::dynamic_shared<float>() == nullptr;
    y[threadIdx.x] = 0;
}

__global__ void dynamic_without_launch_kernel(float* y) {
    y[threadIdx.x] = simt::dynamic_shared<float>()[0];
}

template <auto Kernel>
void from_x_to_y(int blocks = 1) {
    Array<float> x("x", counting(4 * kThreads)), y("y", 4 * kThreads);
    simt::launch<Kernel>(blocks, kThreads, 0, nullptr, x.data(), y.data());
    for (int i = 0; i < kThreads; ++i)
        expect(y[i] == y[i], "y holds a value that nothing wrote");
}

template <auto Kernel>
void to_y(int blocks = 1, std::size_t shared_bytes = 0) {
    Array<float> y("y", 4 * kThreads);
    simt::launch<Kernel>(blocks, kThreads, shared_bytes, nullptr, y.data());
}

void global_overrun() {
    const int n = 2 * kThreads - 10;
    Array<float> x("x", counting(1)), y("y", n);
    simt::launch<global_overrun_kernel>(2, kThreads, 0, nullptr, n, x.data(), y.data());
}

}  // namespace

std::vector<Case> broken_cases() {
    return {
        {"missing_barrier", [] { from_x_to_y<missing_barrier_kernel>(); }},
        {"reused_too_early", [] { from_x_to_y<reused_too_early_kernel>(); }},
        {"missing_warp_barrier", [] { from_x_to_y<missing_warp_barrier_kernel>(); }},
        {"half_a_warp_barrier", [] { from_x_to_y<half_a_warp_barrier_kernel>(); }},
        {"divergent_barrier", [] { to_y<divergent_barrier_kernel>(); }},
        {"barrier_against_shuffle", [] { to_y<barrier_against_shuffle_kernel>(); }},
        {"exited_lane", [] { to_y<exited_lane_kernel>(); }},
        {"mask_without_caller", [] { to_y<mask_without_caller_kernel>(); }},
        {"missing_wait", [] { from_x_to_y<missing_wait_kernel>(); }},
        {"wait_for_too_few", [] { from_x_to_y<wait_for_too_few_kernel>(); }},
        {"missing_barrier_after_wait", [] { from_x_to_y<missing_barrier_after_wait_kernel>(); }},
        {"copy_over_readers", [] { from_x_to_y<copy_over_readers_kernel>(); }},
        {"static_overrun", [] { to_y<static_overrun_kernel>(); }},
        {"dynamic_overrun", [] { to_y<dynamic_overrun_kernel>(1, kThreads * sizeof(float)); }},
        {"global_overrun", global_overrun},
        {"global_read_overrun", [] { from_x_to_y<global_read_overrun_kernel>(); }},
        {"copy_overrun", [] { from_x_to_y<copy_overrun_kernel>(); }},
        {"local_overrun",
         [] {
             Array<float> y("y", kThreads);
             simt::launch<local_overrun_kernel>(1, kThreads, 0, nullptr, 5, y.data());
         }},
        {"null",
         [] {
             Array<float> y("y", kThreads);
             simt::launch<null_kernel>(1, kThreads, 0, nullptr, nullptr, y.data());
         }},
        {"misaligned_vector", [] { from_x_to_y<misaligned_vector_kernel>(); }},
        {"misaligned_copy", [] { from_x_to_y<misaligned_copy_kernel>(); }},
        {"uninitialised_shared", [] { from_x_to_y<uninitialised_shared_kernel>(); }},
        {"uninitialised_global", [] { to_y<uninitialised_global_kernel>(); }},
        {"race_between_blocks", [] { to_y<race_between_blocks_kernel>(2); }},
        {"halo_of_next_block", [] { to_y<halo_of_next_block_kernel>(4); }},
        {"race_in_global_memory", [] { to_y<race_in_global_memory_kernel>(); }},
        {"update_without_atomic",
         [] {
             Array<int> count("count", std::vector<int>{0});
             simt::launch<update_without_atomic_kernel>(1, kThreads, 0, nullptr, count.data());
         }},
        {"throwing", [] { to_y<throwing_kernel>(); }},
        {"too_many_threads", [] { simt::launch<nothing_kernel>(1, 1025, 0, nullptr); }},
        {"too_many_threads_in_a_cube",
         [] { simt::launch<nothing_kernel>(1, dim3(32, 32, 2), 0, nullptr); }},
        {"too_deep_block", [] { simt::launch<nothing_kernel>(1, dim3(1, 1, 65), 0, nullptr); }},
        {"empty_grid", [] { simt::launch<nothing_kernel>(dim3(0, 1, 1), 32, 0, nullptr); }},
        {"too_high_grid", [] { simt::launch<nothing_kernel>(dim3(1, 65536), 32, 0, nullptr); }},
        {"too_much_dynamic", [] { simt::launch<nothing_kernel>(1, 32, 227 * 1024 + 1, nullptr); }},
        {"too_much_static", [] { to_y<too_much_static_kernel>(); }},
        {"too_much_together", [] { to_y<no_room_kernel>(1, 227 * 1024 - 128); }},
        {"dynamic_without_launch", [] { to_y<dynamic_without_launch_kernel>(); }},
    };
}

}  // namespace selftest
