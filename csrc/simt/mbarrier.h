// Barriers of Hopper: mbarriers, which count arrivals and bytes of asynchronous copies, barriers of
// some warps of a block, and the registers that a warp may have.
//
// An mbarrier goes from phase to phase: a phase is complete when all expected threads have arrived
// and all bytes that were announced in it have come. Whoever waited for it sees what the threads did
// before they arrived, and what the copies wrote.
//
//   simt::Mbarrier                      in shared memory: SIMT_SHARED(simt::Mbarrier, full, kStages)
//   simt::mbarrier_init(barrier, arrivals), simt::mbarrier_init_fence()
//                                       by one thread, one after the other; then a barrier of the
//                                       block
//   simt::mbarrier_arrive(barrier), simt::mbarrier_arrive_expect(barrier, bytes)
//                                       the second announces so many bytes more in this phase
//   simt::copy_async_arrive(barrier)    arrives when all cp.async of this thread so far are done
//   simt::mbarrier_wait(barrier, parity)
//                                       for a phase, of which the first has parity 0; goes on at
//                                       once while the current phase has the other parity,
//                                       whichever phase was meant
//   simt::named_barrier_sync(id, threads), simt::named_barrier_arrive(id, threads)
//                                       of so many threads, whole warps; the second does not wait.
//                                       id: 1 to 15
//   simt::raise_registers<N>(), simt::lower_registers<N>()
//                                       setmaxnreg: this warpgroup has N registers a thread from
//                                       here on
#pragma once

#include <cstdint>

#if defined(__CUDACC__)

#include "sm90a.h"

namespace simt {

struct Mbarrier {
    std::uint64_t state;
};

__device__ inline void mbarrier_init(Mbarrier& barrier, unsigned arrivals) {
    SIMT_SM90A("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&barrier)),
               "r"(arrivals) : "memory");
}

__device__ inline void mbarrier_init_fence() {
    SIMT_SM90A("fence.mbarrier_init.release.cluster;\n" :: : "memory");
}

__device__ inline void mbarrier_arrive(Mbarrier& barrier) {
    SIMT_SM90A(
        "mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&barrier)) : "memory");
}

__device__ inline void mbarrier_arrive_expect(Mbarrier& barrier, unsigned bytes) {
    SIMT_SM90A(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(&barrier)),
        "r"(bytes) : "memory");
}

__device__ inline void mbarrier_wait(Mbarrier& barrier, unsigned parity) {
    SIMT_SM90A(
        "{\n"
        ".reg .pred complete;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
        "@complete bra done;\n"
        "bra again;\n"
        "done:\n"
        "}\n" ::"r"(shared_address(&barrier)),
        "r"(parity) : "memory");
}

__device__ inline void copy_async_arrive(Mbarrier& barrier) {
    SIMT_SM90A("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(
        shared_address(&barrier)) : "memory");
}

__device__ inline void named_barrier_sync(unsigned id, unsigned threads) {
    SIMT_SM90A("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

__device__ inline void named_barrier_arrive(unsigned id, unsigned threads) {
    SIMT_SM90A("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

template <int N>
__device__ inline void raise_registers() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a multiple of 8 from 24 to 256");
    SIMT_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N>
__device__ inline void lower_registers() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a multiple of 8 from 24 to 256");
    SIMT_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

}  // namespace simt

#else

#include "emulator.h"

namespace simt {

struct Mbarrier {
    std::uint64_t state;
};

namespace detail {
void mbarrier_init(Mbarrier& barrier, unsigned arrivals, Site site);
void mbarrier_init_fence();
void mbarrier_arrive(Mbarrier& barrier, unsigned bytes, Site site);
void mbarrier_wait(Mbarrier& barrier, unsigned parity, Site site);
void copy_async_arrive(Mbarrier& barrier, Site site);
void named_barrier(unsigned id, unsigned threads, bool wait, Site site);
void set_registers(int registers, bool raise, Site site);
}  // namespace detail

inline void mbarrier_init(Mbarrier& barrier, unsigned arrivals, Site site = Site::here()) {
    detail::mbarrier_init(barrier, arrivals, site);
}
inline void mbarrier_init_fence() {
    detail::mbarrier_init_fence();
}
inline void mbarrier_arrive(Mbarrier& barrier, Site site = Site::here()) {
    detail::mbarrier_arrive(barrier, 0, site);
}
inline void mbarrier_arrive_expect(Mbarrier& barrier, unsigned bytes, Site site = Site::here()) {
    detail::mbarrier_arrive(barrier, bytes, site);
}
inline void mbarrier_wait(Mbarrier& barrier, unsigned parity, Site site = Site::here()) {
    detail::mbarrier_wait(barrier, parity, site);
}
inline void copy_async_arrive(Mbarrier& barrier, Site site = Site::here()) {
    detail::copy_async_arrive(barrier, site);
}
inline void named_barrier_sync(unsigned id, unsigned threads, Site site = Site::here()) {
    detail::named_barrier(id, threads, true, site);
}
inline void named_barrier_arrive(unsigned id, unsigned threads, Site site = Site::here()) {
    detail::named_barrier(id, threads, false, site);
}
template <int N>
inline void raise_registers(Site site = Site::here()) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a multiple of 8 from 24 to 256");
    detail::set_registers(N, true, site);
}
template <int N>
inline void lower_registers(Site site = Site::here()) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a multiple of 8 from 24 to 256");
    detail::set_registers(N, false, site);
}

}  // namespace simt

#endif
