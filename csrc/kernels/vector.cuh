// Memory access in vectors of 16 bytes, four floats or eight bfloat16, and arithmetic in float.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops.h"
#include "simt/simt.h"

namespace zfcuda {

template <typename T, int Width>
struct alignas(sizeof(T) * Width) Vector {
    T at[Width];

    __host__ __device__ static Vector filled(T value) {
        Vector result;
#pragma unroll
        for (int j = 0; j < Width; ++j)
            result.at[j] = value;
        return result;
    }
};

// As many elements as one access moves.
template <typename T>
constexpr int kVectorWidth = static_cast<int>(16 / sizeof(T));

// At most 16 bytes at a time, which is all that addresses are multiples of: float32 that goes with
// eight bfloat16 takes two accesses.
template <int Width, typename T>
__device__ inline Vector<T, Width> load(const T* source) {
    constexpr int kPiece = Width < kVectorWidth<T> ? Width : kVectorWidth<T>;
    if constexpr (Width == kPiece) {
        return *reinterpret_cast<const Vector<T, Width>*>(source);
    } else {
        Vector<T, Width> result;
#pragma unroll
        for (int i = 0; i < Width; i += kPiece) {
            const auto piece = load<kPiece>(source + i);
#pragma unroll
            for (int j = 0; j < kPiece; ++j)
                result.at[i + j] = piece.at[j];
        }
        return result;
    }
}

template <int Width, typename T>
__device__ inline void store(T* target, const Vector<T, Width>& value) {
    constexpr int kPiece = Width < kVectorWidth<T> ? Width : kVectorWidth<T>;
    if constexpr (Width == kPiece) {
        *reinterpret_cast<Vector<T, Width>*>(target) = value;
    } else {
#pragma unroll
        for (int i = 0; i < Width; i += kPiece) {
            Vector<T, kPiece> piece;
#pragma unroll
            for (int j = 0; j < kPiece; ++j)
                piece.at[j] = value.at[i + j];
            store(target + i, piece);
        }
    }
}

// ---- Elements as floats -------------------------------------------------------------------------

__device__ inline float to_float(float x) {
    return x;
}
__device__ inline float to_float(BFloat16 x) {
    return __bfloat162float(x);
}

template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
    return x;
}
template <>
__device__ inline BFloat16 from_float<BFloat16>(float x) {
    return __float2bfloat16_rn(x);
}

template <typename T, int Width>
__device__ inline Vector<float, Width> to_floats(const Vector<T, Width>& value) {
    Vector<float, Width> result;
#pragma unroll
    for (int j = 0; j < Width; ++j)
        result.at[j] = to_float(value.at[j]);
    return result;
}

template <typename T, int Width>
__device__ inline Vector<T, Width> from_floats(const Vector<float, Width>& value) {
    Vector<T, Width> result;
#pragma unroll
    for (int j = 0; j < Width; ++j)
        result.at[j] = from_float<T>(value.at[j]);
    return result;
}

// ---- Alignment ----------------------------------------------------------------------------------

// Whether each array may be accessed in vectors of `Width` elements.
template <int Width = 4, typename... T>
bool aligned_for_vectors(const T*... arrays) {
    return ((reinterpret_cast<std::uintptr_t>(arrays) % (Width * sizeof(T)) == 0) && ...);
}

// ---- Flat arrays --------------------------------------------------------------------------------

// `Size` consecutive elements per thread of flat arrays with any number of elements: the last
// thread has fewer. If not `Aligned`, or at the end, they are moved one by one.
constexpr int kRunThreads = 256;

template <int Size, bool Aligned>
struct Run {
    std::int64_t first;
    int count;  // none, or 1 to Size

    static dim3 grid(std::int64_t size) {
        return dim3(static_cast<unsigned>((size - 1) / (Size * kRunThreads) + 1));
    }
    static dim3 block() { return dim3(kRunThreads); }

    __device__ explicit Run(std::int64_t size) {
        first = Size * (static_cast<std::int64_t>(blockIdx.x) * kRunThreads + threadIdx.x);
        count = first + Size <= size ? Size : first < size ? static_cast<int>(size - first) : 0;
    }

    template <typename T>
    __device__ Vector<float, Size> load(const T* source) const {
        if (Aligned && count == Size) return to_floats(zfcuda::load<Size>(source + first));
        auto value = Vector<float, Size>::filled(0.0f);
#pragma unroll
        for (int j = 0; j < Size; ++j)
            if (j < count) value.at[j] = to_float(source[first + j]);
        return value;
    }

    template <typename T>
    __device__ void store(T* target, const Vector<float, Size>& value) const {
        if (Aligned && count == Size) {
            zfcuda::store(target + first, from_floats<T>(value));
            return;
        }
#pragma unroll
        for (int j = 0; j < Size; ++j)
            if (j < count) target[first + j] = from_float<T>(value.at[j]);
    }
};

}  // namespace zfcuda
