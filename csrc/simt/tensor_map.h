// Tensor maps: what the copy engine has to know of an array in global memory, and of the boxes that
// it copies. The host makes them; a kernel takes one as `const __grid_constant__ TensorMap map`.
//
// Dimensions come innermost first, and the innermost one is dense. What a map cannot say is
// std::invalid_argument, with the name of the field, its value and what is allowed: the limits are
// those of the CUDA driver, and a swizzled box is as wide as its swizzle.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "proxy.h"

#if defined(__CUDACC__)
#include <cuda.h>
#endif

namespace simt {

enum class TensorType { kBf16, kFp16, kFloat, kTf32 };  // kTf32: floats, rounded when they are read

// Boxes of up to five dimensions, at any coordinates. A box spans box[i] elements of dimension i
// and takes each steps[i]-th of them (steps[0] is 1). What lies outside the array is read as zero
// and not written.
struct TiledTensor {
    TensorType type;
    const void* address;
    int rank;
    std::uint64_t sizes[5];
    std::uint64_t strides[4];  // in bytes, of dimensions 1, 2, ...
    std::uint32_t box[5];
    std::uint32_t steps[5];
    Swizzle swizzle;
};

// Rows of a convolution's implicit matrix: `channels` channels of `pixels` pixels, of images with
// sizes {C, W, H, N}. A pixel is where the corner of the filter stands. Corners go from `lower` in
// steps of `steps` to size - 1 + `upper`, first along W, then along H, then to the next image; all
// pairs are {W, H}. With padding p in front and q behind, filter size r and dilation d:
// lower = -p, upper = q - (r - 1) d, steps = the stride. Pixels outside their image are zero.
struct Im2colTensor {
    TensorType type;
    const void* address;
    std::uint64_t sizes[4];
    std::uint64_t strides[3];
    int lower[2], upper[2];
    std::uint32_t channels, pixels;
    std::uint32_t steps[2];
    Swizzle swizzle;
};

namespace detail {

inline std::size_t size_of(TensorType type) {
    return type == TensorType::kBf16 || type == TensorType::kFp16 ? 2 : 4;
}

inline std::uint32_t swizzle_bytes(Swizzle swizzle) {
    return swizzle == Swizzle::kNone ? 0 : 16u << static_cast<int>(swizzle);
}

[[noreturn]] inline void refuse(const std::string& name, std::int64_t value,
                                const std::string& allowed) {
    throw std::invalid_argument("tensor map: " + name + " must be " + allowed + ", got " +
                                std::to_string(value));
}

inline std::string element(const char* name, int i) {
    return std::string(name) + "[" + std::to_string(i) + "]";
}

inline void require_between(const std::string& name, std::int64_t value, std::int64_t least,
                            std::int64_t most) {
    if (value < least || value > most)
        refuse(name, value, "from " + std::to_string(least) + " to " + std::to_string(most));
}

// What both kinds have; `row`, in elements, is the innermost dimension of a box.
inline void require_array(TensorType type, const void* address, int rank,
                          const std::uint64_t* sizes, const std::uint64_t* strides,
                          const char* row_name, std::uint32_t row, Swizzle swizzle) {
    if (!address || reinterpret_cast<std::uintptr_t>(address) % 16 != 0)
        refuse("address", static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(address)),
               "a multiple of 16, and not null");
    for (int i = 0; i < rank; ++i)
        require_between(element("sizes", i), static_cast<std::int64_t>(sizes[i]), 1,
                        std::int64_t{1} << 32);
    std::uint64_t dense = sizes[0] * size_of(type);
    for (int i = 0; i + 1 < rank; ++i) {
        const auto stride = static_cast<std::int64_t>(strides[i]);
        if (stride % 16 != 0 || stride >= std::int64_t{1} << 40)
            refuse(element("strides", i), stride, "a multiple of 16 bytes, and less than 2^40");
        if (strides[i] < dense)
            refuse(element("strides", i), stride,
                   "at least the " + std::to_string(dense) + " bytes of the dimensions below");
        dense = strides[i] * sizes[i + 1];
    }
    require_between(row_name, row, 1, 256);
    const auto bytes = static_cast<std::int64_t>(row * size_of(type));
    if (bytes % 16 != 0) refuse(row_name, row, "a multiple of 16 bytes wide");
    if (swizzle != Swizzle::kNone && bytes != swizzle_bytes(swizzle))
        refuse(row_name, row,
               "as wide as the swizzle of " + std::to_string(swizzle_bytes(swizzle)) + " bytes");
}

inline void require_valid(const TiledTensor& tensor) {
    require_between("rank", tensor.rank, 1, 5);
    require_array(tensor.type, tensor.address, tensor.rank, tensor.sizes, tensor.strides, "box[0]",
                  tensor.box[0], tensor.swizzle);
    for (int i = 0; i < tensor.rank; ++i) {
        require_between(element("box", i), tensor.box[i], 1, 256);
        require_between(element("steps", i), tensor.steps[i], 1, i == 0 ? 1 : 8);
    }
}

inline void require_valid(const Im2colTensor& tensor) {
    require_array(tensor.type, tensor.address, 4, tensor.sizes, tensor.strides, "channels",
                  tensor.channels, tensor.swizzle);
    require_between("pixels", tensor.pixels, 1, 1024);
    for (int i = 0; i < 2; ++i) {
        require_between(element("lower", i), tensor.lower[i], -128, 127);
        require_between(element("upper", i), tensor.upper[i], -128, 127);
        require_between(element("steps", i), tensor.steps[i], 1, 8);
        const auto corners =
            static_cast<std::int64_t>(tensor.sizes[i + 1]) + tensor.upper[i] - tensor.lower[i];
        if (corners < 1) refuse(element("upper", i), tensor.upper[i], "such that a corner is left");
    }
}

}  // namespace detail

#if defined(__CUDACC__)

struct TensorMap {
    CUtensorMap map;
};

namespace detail {

inline CUtensorMapDataType driver_type(TensorType type) {
    switch (type) {
        case TensorType::kBf16:
            return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
        case TensorType::kFp16:
            return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
        case TensorType::kFloat:
            return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
        default:
            return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
    }
}

inline CUtensorMapSwizzle driver_swizzle(Swizzle swizzle) {
    switch (swizzle) {
        case Swizzle::kNone:
            return CU_TENSOR_MAP_SWIZZLE_NONE;
        case Swizzle::k32:
            return CU_TENSOR_MAP_SWIZZLE_32B;
        case Swizzle::k64:
            return CU_TENSOR_MAP_SWIZZLE_64B;
        default:
            return CU_TENSOR_MAP_SWIZZLE_128B;
    }
}

// A function of the driver, to which nothing is linked.
template <typename Function>
Function driver_function(const char* name) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found),
          name);
#else
    check(cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found), name);
#endif
    if (found != cudaDriverEntryPointSuccess)
        throw std::runtime_error(std::string(name) + ": this CUDA driver does not have it");
    return reinterpret_cast<Function>(function);
}

inline void require_success(CUresult result, const char* what) {
    if (result != CUDA_SUCCESS)
        throw std::runtime_error(std::string(what) + ": the CUDA driver refuses, with error " +
                                 std::to_string(static_cast<int>(result)));
}

}  // namespace detail

inline TensorMap tiled_map(const TiledTensor& tensor) {
    detail::require_valid(tensor);
    static const auto encode =
        detail::driver_function<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
    TensorMap map;
    const auto sizes = reinterpret_cast<const cuuint64_t*>(tensor.sizes);
    const auto strides = reinterpret_cast<const cuuint64_t*>(tensor.strides);
    detail::require_success(
        encode(&map.map, detail::driver_type(tensor.type), static_cast<cuuint32_t>(tensor.rank),
               const_cast<void*>(tensor.address), sizes, strides, tensor.box, tensor.steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, detail::driver_swizzle(tensor.swizzle),
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeTiled");
    return map;
}

inline TensorMap im2col_map(const Im2colTensor& tensor) {
    detail::require_valid(tensor);
    static const auto encode =
        detail::driver_function<decltype(&cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
    TensorMap map;
    const auto sizes = reinterpret_cast<const cuuint64_t*>(tensor.sizes);
    const auto strides = reinterpret_cast<const cuuint64_t*>(tensor.strides);
    const cuuint32_t steps[4] = {1, tensor.steps[0], tensor.steps[1], 1};
    detail::require_success(
        encode(&map.map, detail::driver_type(tensor.type), 4, const_cast<void*>(tensor.address),
               sizes, strides, tensor.lower, tensor.upper, tensor.channels, tensor.pixels, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, detail::driver_swizzle(tensor.swizzle),
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeIm2col");
    return map;
}

#else

// As large as the driver's.
struct alignas(64) TensorMap {
    static constexpr std::uint32_t kMagic = 0x746d6170;

    std::uint32_t magic = 0;
    TensorType type{};
    Swizzle swizzle{};
    bool im2col = false;
    std::uint8_t rank = 0;
    std::uint8_t steps[5] = {};
    std::uint16_t box[5] = {};  // im2col: channels, pixels
    std::int8_t lower[2] = {}, upper[2] = {};
    std::uint32_t last[5] = {};  // sizes - 1
    std::uint64_t address = 0;
    std::uint64_t strides[4] = {};
};
static_assert(sizeof(TensorMap) == 128);

inline TensorMap tiled_map(const TiledTensor& tensor) {
    detail::require_valid(tensor);
    TensorMap map;
    map.magic = TensorMap::kMagic;
    map.type = tensor.type;
    map.swizzle = tensor.swizzle;
    map.rank = static_cast<std::uint8_t>(tensor.rank);
    map.address = reinterpret_cast<std::uintptr_t>(tensor.address);
    for (int i = 0; i < tensor.rank; ++i) {
        map.box[i] = static_cast<std::uint16_t>(tensor.box[i]);
        map.steps[i] = static_cast<std::uint8_t>(tensor.steps[i]);
        map.last[i] = static_cast<std::uint32_t>(tensor.sizes[i] - 1);
        if (i + 1 < tensor.rank) map.strides[i] = tensor.strides[i];
    }
    return map;
}

inline TensorMap im2col_map(const Im2colTensor& tensor) {
    detail::require_valid(tensor);
    TensorMap map;
    map.magic = TensorMap::kMagic;
    map.type = tensor.type;
    map.swizzle = tensor.swizzle;
    map.im2col = true;
    map.rank = 4;
    map.address = reinterpret_cast<std::uintptr_t>(tensor.address);
    map.box[0] = static_cast<std::uint16_t>(tensor.channels);
    map.box[1] = static_cast<std::uint16_t>(tensor.pixels);
    for (int i = 0; i < 4; ++i)
        map.last[i] = static_cast<std::uint32_t>(tensor.sizes[i] - 1);
    for (int i = 0; i < 3; ++i)
        map.strides[i] = tensor.strides[i];
    for (int i = 0; i < 2; ++i) {
        map.steps[i] = static_cast<std::uint8_t>(tensor.steps[i]);
        map.lower[i] = static_cast<std::int8_t>(tensor.lower[i]);
        map.upper[i] = static_cast<std::int8_t>(tensor.upper[i]);
    }
    return map;
}

#endif

}  // namespace simt
