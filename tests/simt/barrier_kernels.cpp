// mbarriers, named barriers and registers of warpgroups: correct kernels, and a broken one for each
// misuse that the emulator catches.
#include "selftest.h"

namespace selftest {
namespace {

using simt::Mbarrier;

// ---- A producer warp and a consumer warp, and what may be wrong between them --------------------

enum class Fault {
    kNone,
    kNoFullWait,
    kNoEmptyWait,
    kWrongParity,
    kNoFullArrive,
    kTooManyArrivals,
    kOneLaneArrives,
    kCopyAsync,  // none: copies instead of stores
    kCopyAsyncWithoutWait,
};

template <Fault F>
__global__ void producer_consumer_kernel(int tiles, const float* x, float* y) {
    constexpr int kStages = 2;
    constexpr bool kCopies = F == Fault::kCopyAsync || F == Fault::kCopyAsyncWithoutWait;
    SIMT_SHARED(float, stages, kStages * 32);
    SIMT_SHARED(Mbarrier, full, kStages);
    SIMT_SHARED(Mbarrier, empty, kStages);
    begin_barriers(full, kStages, F == Fault::kOneLaneArrives ? 1 : 32);
    begin_barriers(empty, kStages, 32);
    const int lane = threadIdx.x % 32;
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        const int stage = tile % kStages;
        const unsigned parity = tile / kStages % 2;
        float* at = stages + stage * 32;
        if (threadIdx.x < 32) {
            if (F != Fault::kNoEmptyWait) simt::mbarrier_wait(empty[stage], parity ^ 1);
            if constexpr (kCopies) {
                simt::copy_async<4>(at + lane, x + tile * 32 + lane);
                simt::copy_async_arrive(full[stage]);
            } else {
                at[lane] = x[tile * 32 + lane];
                if (F == Fault::kOneLaneArrives) {
                    if (lane == 0) simt::mbarrier_arrive(full[stage]);
                } else if (F != Fault::kNoFullArrive || tile != 3) {
                    simt::mbarrier_arrive(full[stage]);
                }
                if (F == Fault::kTooManyArrivals && tile == 1 && lane == 7)
                    simt::mbarrier_arrive_expect(full[0], 16);
            }
        } else {
            if (F != Fault::kNoFullWait && F != Fault::kCopyAsyncWithoutWait)
                simt::mbarrier_wait(full[stage], parity ^ (F == Fault::kWrongParity));
            sum += at[31 - lane];
            simt::mbarrier_arrive(empty[stage]);
        }
    }
    if (threadIdx.x >= 32) y[lane] = sum;
}

template <Fault F>
void producer_consumer() {
    const int tiles = 7;
    Array<float> x("x", counting(32 * tiles)), y("y", 32);
    simt::launch<producer_consumer_kernel<F>>(1, 64, 0, nullptr, tiles, x.data(), y.data());
    for (int lane = 0; lane < 32; ++lane) {
        const int each = 31 - lane;
        expect(y[lane] == static_cast<float>(tiles * each + 32 * tiles * (tiles - 1) / 2),
               "producer and consumer");
    }
}

// One lane arrives for its warp, which is right after a __syncwarp; the last tile is read by three
// warps, and overwritten when all have said so.
template <bool AllArrive>
__global__ void many_readers_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 32);
    SIMT_SHARED(Mbarrier, full, 1);
    SIMT_SHARED(Mbarrier, empty, 1);
    begin_barriers(full, 1, 1);
    begin_barriers(empty, 1, AllArrive ? 4 : 3);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (warp == 0) {
        for (int round = 0; round < 2; ++round) {
            if (round == 1) simt::mbarrier_wait(empty[0], 0);
            tile[lane] = x[lane] + round;
            __syncwarp();
            if (lane == 0) simt::mbarrier_arrive(full[0]);
        }
    } else {
        simt::mbarrier_wait(full[0], 0);
        const float first = tile[31 - lane];
        __syncwarp();
        if (lane == 0 && (AllArrive || warp != 3)) simt::mbarrier_arrive(empty[0]);
        y[warp * 32 + lane] = first;
    }
}

template <bool AllArrive>
void many_readers() {
    Array<float> x("x", counting(32)), y("y", 5 * 32);
    simt::launch<many_readers_kernel<AllArrive>>(1, 5 * 32, 0, nullptr, x.data(), y.data());
    for (int i = 32; i < 160; ++i)
        expect(y[i] == static_cast<float>(31 - i % 32), "many readers");
}

// ---- Named barriers -----------------------------------------------------------------------------

// Two pairs of warps exchange through a barrier each; a fifth warp waits for all of them.
__global__ void named_kernel(const float* x, float* y) {
    SIMT_SHARED(float, tile, 128);
    const int i = threadIdx.x;
    if (i < 128) {
        for (int round = 0; round < 3; ++round) {
            tile[i] = x[i] + round;
            simt::named_barrier_sync(1 + i / 64, 64);
            const float other = tile[i ^ 63];
            simt::named_barrier_sync(1 + i / 64, 64);
            y[i] = other;
        }
        tile[i] = 2 * x[i];
        simt::named_barrier_arrive(3, 160);
    } else {
        simt::named_barrier_sync(3, 160);
        y[i] = tile[i - 128] + tile[i - 32];
    }
}

void named() {
    Array<float> x("x", counting(128)), y("y", 160);
    simt::launch<named_kernel>(1, 160, 0, nullptr, x.data(), y.data());
    for (int i = 0; i < 128; ++i)
        expect(y[i] == static_cast<float>((i ^ 63) + 2), "named barriers of pairs");
    for (int i = 0; i < 32; ++i)
        expect(y[128 + i] == static_cast<float>(2 * i + 2 * (i + 96)), "a named barrier of all");
}

template <int Fault>
__global__ void named_misused_kernel(float* y) {
    SIMT_SHARED(float, tile, 128);
    const int i = threadIdx.x;
    tile[i] = static_cast<float>(i);
    if (Fault == 0 && i >= 64) simt::named_barrier_sync(1 + (i >= 96), 32);  // not those it reads
    if (Fault == 1) simt::named_barrier_sync(16, 128);
    if (Fault == 2) simt::named_barrier_sync(1, 100);
    if (Fault == 3) simt::named_barrier_sync(1, i < 64 ? 128 : 64);
    if (Fault == 4 && i < 64) simt::named_barrier_sync(1, 128);  // and the others never come
    if (Fault == 5 && (i < 16 || (i >= 32 && i < 48))) simt::named_barrier_arrive(1, 32);
    y[i] = tile[Fault == 0 && i >= 64 ? i ^ 32 : i];
}

template <int Fault>
void named_misused() {
    Array<float> y("y", 128);
    simt::launch<named_misused_kernel<Fault>>(1, 128, 0, nullptr, y.data());
}

// ---- mbarriers, misused -------------------------------------------------------------------------

template <int Fault>
__global__ void mbarrier_misused_kernel(float* y) {
    SIMT_SHARED(Mbarrier, barrier, 2);
    if (Fault == 0) simt::mbarrier_arrive(barrier[0]);
    if (threadIdx.x == 0) {
        simt::mbarrier_init(barrier[0], Fault == 1 ? 0 : 1);
        if (Fault == 2) simt::mbarrier_init(barrier[0], 1);
    }
    if (Fault != 3) __syncthreads();
    if (threadIdx.x == 33) {
        if (Fault == 4) reinterpret_cast<float*>(barrier)[0] = 1;
        if (Fault == 5) {
            simt::mbarrier_arrive_expect(barrier[0], (1 << 20) - 1);
            simt::mbarrier_arrive_expect(barrier[0], 16);
        }
        simt::mbarrier_arrive(barrier[0]);
        if (Fault == 6) simt::mbarrier_wait(barrier[0], 1 + 1);
        if (Fault == 7) simt::mbarrier_wait(barrier[0], 1);
    }
    y[threadIdx.x] = 0;
}

template <int Fault>
void mbarrier_misused() {
    Array<float> y("y", 64);
    simt::launch<mbarrier_misused_kernel<Fault>>(1, 64, 0, nullptr, y.data());
}

// ---- Registers ----------------------------------------------------------------------------------

template <int Raised>
__global__ void __launch_bounds__(384, 1) registers_kernel(float* y) {
    if (threadIdx.x < 128) {
        simt::lower_registers<40>();
    } else {
        simt::raise_registers<Raised>();
    }
    y[threadIdx.x] = 1;
}

template <int Raised>
void registers() {
    Array<float> y("y", 384);
    simt::launch<registers_kernel<Raised>>(1, 384, 0, nullptr, y.data());
}

}  // namespace

std::vector<Case> correct_barrier_cases() {
    return {
        {"producer and consumer", producer_consumer<Fault::kNone>},
        {"producer of copies", producer_consumer<Fault::kCopyAsync>},
        {"many readers", many_readers<true>},
        {"named barriers", named},
        {"registers", registers<232>},
    };
}

std::vector<Case> broken_barrier_cases() {
    return {
        {"no_wait_for_full", producer_consumer<Fault::kNoFullWait>},
        {"no_wait_for_empty", producer_consumer<Fault::kNoEmptyWait>},
        {"wrong_parity", producer_consumer<Fault::kWrongParity>},
        {"missing_arrival", producer_consumer<Fault::kNoFullArrive>},
        {"too_many_arrivals", producer_consumer<Fault::kTooManyArrivals>},
        {"one_lane_arrives", producer_consumer<Fault::kOneLaneArrives>},
        {"no_wait_for_copies", producer_consumer<Fault::kCopyAsyncWithoutWait>},
        {"reader_that_does_not_arrive", many_readers<false>},
        {"other_named_barrier", named_misused<0>},
        {"named_barrier_16", named_misused<1>},
        {"named_barrier_of_100", named_misused<2>},
        {"named_barrier_of_two_sizes", named_misused<3>},
        {"named_barrier_waits_for_ever", named_misused<4>},
        {"named_barrier_of_half_warps", named_misused<5>},
        {"mbarrier_not_initialised", mbarrier_misused<0>},
        {"mbarrier_of_nobody", mbarrier_misused<1>},
        {"mbarrier_initialised_twice", mbarrier_misused<2>},
        {"mbarrier_without_barrier", mbarrier_misused<3>},
        {"mbarrier_overwritten", mbarrier_misused<4>},
        {"mbarrier_of_too_many_bytes", mbarrier_misused<5>},
        {"mbarrier_of_parity_2", mbarrier_misused<6>},
        {"mbarrier_waits_for_ever", mbarrier_misused<7>},
        {"too_many_registers", registers<240>},
    };
}

}  // namespace selftest
