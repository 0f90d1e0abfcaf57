// Memory access in vectors: a `Vector<float, 4>` is one 16-byte load or store.
#pragma once

#include <cstddef>
#include <cstdint>

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

template <int Width, typename T>
__device__ inline Vector<T, Width> load(const T* source) {
    return *reinterpret_cast<const Vector<T, Width>*>(source);
}

template <int Width, typename T>
__device__ inline void store(T* target, const Vector<T, Width>& value) {
    *reinterpret_cast<Vector<T, Width>*>(target) = value;
}

// Whether each array may be accessed in vectors of four elements.
template <typename... T>
bool aligned_for_vectors(const T*... arrays) {
    return ((reinterpret_cast<std::uintptr_t>(arrays) % (4 * sizeof(T)) == 0) && ...);
}

// Four consecutive elements per thread of flat arrays with any number of elements: the last thread
// has fewer. If not `Aligned`, or at the end, they are moved one by one.
constexpr int kQuadThreads = 256;

inline dim3 quad_grid(std::int64_t size) {
    return dim3(static_cast<unsigned>((size - 1) / (4 * kQuadThreads) + 1));
}

template <bool Aligned>
struct Quad {
    std::int64_t first;
    int count;  // none, or 1 to 4

    __device__ explicit Quad(std::int64_t size) {
        first = 4 * (static_cast<std::int64_t>(blockIdx.x) * kQuadThreads + threadIdx.x);
        count = first + 4 <= size ? 4 : first < size ? static_cast<int>(size - first) : 0;
    }

    __device__ Vector<float, 4> load(const float* source) const {
        if (Aligned && count == 4) return zfcuda::load<4>(source + first);
        auto value = Vector<float, 4>::filled(0.0f);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < count) value.at[j] = source[first + j];
        return value;
    }

    __device__ void store(float* target, const Vector<float, 4>& value) const {
        if (Aligned && count == 4) {
            zfcuda::store<4>(target + first, value);
            return;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < count) target[first + j] = value.at[j];
    }
};

}  // namespace zfcuda
