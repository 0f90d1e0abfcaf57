// The dialect that kernels are written in.
//
// A kernel is CUDA C++ with CUDA's own names (`__global__`, `threadIdx`, `__syncthreads`,
// `__shfl_xor_sync`, `float4`, ...), except for what only nvcc can parse or only a GPU can execute.
// That goes through the names below: under nvcc each is the instruction; under a host compiler it
// is a functional model of it, and the kernel runs in the SIMT emulator. So kernels use no
// `<<<>>>`, no raw `asm`, and no `__shared__` of their own.
//
//   simt::launch<kernel<Tile>>(grid, block, shared_bytes, stream, args...)
//                                       a checked launch: throws on failure
//   SIMT_SHARED(float, tile, kRows * kPitch)
//                                       a static shared array, 128-byte aligned
//   simt::dynamic_shared<float>()       the launch's dynamic shared memory, 1024-byte aligned
//   simt::max_shared_bytes(), simt::shared_bytes_of_sm(), simt::multiprocessors()
//                                       of the current device: how much shared memory a launch
//                                       may ask for, how much the blocks of an SM share, each
//                                       kReservedBytes besides its own, and how many SMs there are
//   simt::copy_async<16>(shared, global, valid)
//                                       cp.async; zero-fills if not valid
//   simt::copy_async_commit(), simt::copy_async_wait<N>()
//                                       all but the newest N groups are done
//   simt::load_matrix_x4(r, row), simt::load_matrix_x4_trans(r, row)
//                                       ldmatrix; `row`: this lane's 16-byte row
//   simt::mma_m16n8k8_tf32(d, a, b), simt::mma_m16n8k16_bf16(d, a, b)
//                                       d += a * b on the tensor cores
//   simt::to_tf32(x)                    round to nearest, as bits; ties to even, before sm_90
//                                       away from zero
//   simt::max_nan(x, y)                 the larger; NaN if either is
//   simt::add_bf16x2(a, b)              sums of two pairs of bfloat16, each rounded to nearest
//   simt::spread_signs<First>(x)        two halves of a word, all ones where bytes First and First
//                                       + 1 of x have their highest bit set, else zero
//   simt::approximate_sqrt(x)           within 2^-22 of it; 0 of what is not normal
// and what only compute capability 9.0 has (hopper.h).
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#define SIMT_SHARED(type, name, ...) __shared__ __align__(128) type name[__VA_ARGS__]

namespace simt {

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
    }
}

inline int current_device() {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    return device;
}

// An attribute of the current device; each device is asked once.
template <cudaDeviceAttr Attribute>
int device_attribute() {
    static const std::vector<int> values = [] {
        int devices = 0;
        check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
        std::vector<int> found(devices);
        for (int device = 0; device < devices; ++device) {
            check(cudaDeviceGetAttribute(&found[device], Attribute, device),
                  "cudaDeviceGetAttribute");
        }
        return found;
    }();
    return values.at(current_device());
}

inline int multiprocessors() {
    return device_attribute<cudaDevAttrMultiProcessorCount>();
}
inline std::size_t max_shared_bytes() {
    return device_attribute<cudaDevAttrMaxSharedMemoryPerBlockOptin>();
}
inline std::size_t shared_bytes_of_sm() {
    return device_attribute<cudaDevAttrMaxSharedMemoryPerMultiprocessor>();
}

constexpr std::size_t kReservedBytes = 1024;

template <auto Kernel>
std::size_t static_shared_bytes() {
    static const std::size_t bytes = [] {
        cudaFuncAttributes attributes;
        check(cudaFuncGetAttributes(&attributes, Kernel), "cudaFuncGetAttributes");
        return attributes.sharedSizeBytes;
    }();
    return bytes;
}

// More than 48 KB of shared memory, static and dynamic together, needs permission, once per kernel
// and device.
template <auto Kernel>
void permit_shared_bytes(std::size_t bytes) {
    static std::mutex mutex;
    static std::map<int, std::size_t> permitted;
    const std::lock_guard lock(mutex);
    std::size_t& already = permitted[current_device()];
    if (already >= bytes) return;
    check(cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
    already = bytes;
}

template <auto Kernel, typename... Arguments>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, Arguments... arguments) {
    if (shared_bytes > 0 && shared_bytes + static_shared_bytes<Kernel>() > 48 * 1024)
        permit_shared_bytes<Kernel>(shared_bytes);
    Kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
    check(cudaGetLastError(), __PRETTY_FUNCTION__);
}

template <typename T>
__device__ inline T* dynamic_shared() {
    extern __shared__ __align__(1024) unsigned char simt_dynamic_shared[];
    return reinterpret_cast<T*>(simt_dynamic_shared);
}

__device__ inline std::uint32_t shared_address(const void* shared) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

template <int Bytes>
__device__ inline void copy_async(void* shared, const void* global, bool valid = true) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async moves 4, 8 or 16 bytes");
    const int size = valid ? Bytes : 0;
    if constexpr (Bytes == 16) {
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)),
            "l"(global), "r"(size)
            : "memory");
    } else {
        asm volatile(
            "cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(shared_address(shared)),
            "l"(global), "n"(Bytes), "r"(size)
            : "memory");
    }
}

__device__ inline void copy_async_commit() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

template <int Pending>
__device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}

__device__ inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void load_matrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                        const std::uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_m16n8k16_fp16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Before sm_90 no instruction rounds; the tensor cores ignore the 13 low bits. Without the product
// ptxas rounds in place and then moves each operand to where mma.sync wants it, up to four times.
__device__ inline std::uint32_t to_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    std::uint32_t bits = __float_as_uint(x);
    if (isfinite(x)) bits += 0x1000u;
#else
    std::uint32_t bits;
    asm("cvt.rn.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
#endif
    return __float_as_uint(__fmul_rn(__uint_as_float(bits), 1.0f));
}

__device__ inline float max_nan(float x, float y) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;\n" : "=f"(larger) : "f"(x), "f"(y));
    return larger;
}

// As a product with one, which sm_80 has, too.
__device__ inline std::uint32_t add_bf16x2(std::uint32_t a, std::uint32_t b) {
    std::uint32_t sums;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(sums) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return sums;
}

template <int First>
__device__ inline std::uint32_t spread_signs(std::uint32_t x) {
    static_assert(First >= 0 && First < 3, "a word has four bytes");
    std::uint32_t halves;
    asm("prmt.b32 %0, %1, 0, %2;\n" : "=r"(halves) : "r"(x), "n"(0x9988 + 0x1111 * First));
    return halves;
}

__device__ inline float approximate_sqrt(float x) {
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;\n" : "=f"(root) : "f"(x));
    return root;
}

}  // namespace simt

#else

#include "emulator.h"

#endif

#include "hopper.h"
