// The asynchronous proxy: through it, and not as threads do, the copy engine and the products of a
// warpgroup access shared memory.
#pragma once

namespace simt {

// In which order the 16-byte parts of a row lie in shared memory. The swizzle of W bytes flips the
// bits of the address that count 16 bytes within W by those that count 128 bytes: bits 4 .. 6 by
// 7 .. 9 for 128 bytes, 4, 5 by 7, 8 for 64, 4 by 7 for 32. It goes by the address, so tiles begin
// at multiples of 1024, 512 or 256 bytes.
enum class Swizzle { kNone, k32, k64, k128 };

}  // namespace simt

#if defined(__CUDACC__)

namespace simt {

// What this thread has stored in shared memory, and its cp.async that it has waited for, is seen by
// what begins, after a barrier, through the asynchronous proxy. Each thread that stored calls it.
__device__ inline void fence_proxy_async() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#else
    __trap();
#endif
}

}  // namespace simt

#else

namespace simt {

namespace detail {
void fence_proxy_async();
}

inline void fence_proxy_async() {
    detail::fence_proxy_async();
}

}  // namespace simt

#endif
