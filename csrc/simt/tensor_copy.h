// Copies by the tensor memory accelerator. One thread begins each; the box lies in shared memory at
// a multiple of 128 bytes, its rows one after the other, swizzled as the map says.
//
//   simt::tensor_load(shared, map, barrier, coordinates...)
//                                       a box of a tiled map, whose first element is at the
//                                       coordinates, innermost first; its bytes, with those that
//                                       are outside and so zero, come to the mbarrier
//   simt::tensor_load_im2col(shared, map, barrier, c, w, h, n, offset_w, offset_h)
//                                       pixels of an im2col map, from the corner (w, h) of image n
//                                       on, at an offset of 0 to 255 from each corner (the tap of
//                                       the filter times its dilation)
//   simt::tensor_store(map, shared, coordinates...)
//                                       the other way; what was stored to `shared` needs
//                                       fence_proxy_async()
//   simt::tensor_store_commit(), simt::tensor_store_wait_read<N>(), simt::tensor_store_wait<N>()
//                                       all but the newest N groups of this thread's stores have
//                                       been read (shared memory may be used again) or are done
#pragma once

#include "mbarrier.h"
#include "tensor_map.h"

#if defined(__CUDACC__)

#include "sm90a.h"

#define SIMT_TENSOR_LOAD(rank, coordinates, ...)                                             \
    SIMT_SM90A(                                                                              \
        "cp.async.bulk.tensor." rank                                                         \
        ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {" coordinates \
        "}], [%2];\n" ::"r"(shared_address(shared)),                                         \
        "l"(&map), "r"(shared_address(&barrier)), __VA_ARGS__ : "memory")
#define SIMT_TENSOR_STORE(rank, coordinates, ...)                                                  \
    SIMT_SM90A("cp.async.bulk.tensor." rank                                                        \
               ".global.shared::cta.tile.bulk_group [%0, {" coordinates "}], [%1];\n" ::"l"(&map), \
               "r"(shared_address(shared)), __VA_ARGS__ : "memory")

namespace simt {

template <typename... Coordinates>
__device__ inline void tensor_load(void* shared, const TensorMap& map, Mbarrier& barrier,
                                   Coordinates... coordinates) {
    constexpr int kRank = sizeof...(Coordinates);
    static_assert(kRank >= 1 && kRank <= 5);
    const int x[] = {static_cast<int>(coordinates)...};
    if constexpr (kRank == 1) {
        SIMT_TENSOR_LOAD("1d", "%3", "r"(x[0]));
    } else if constexpr (kRank == 2) {
        SIMT_TENSOR_LOAD("2d", "%3, %4", "r"(x[0]), "r"(x[1]));
    } else if constexpr (kRank == 3) {
        SIMT_TENSOR_LOAD("3d", "%3, %4, %5", "r"(x[0]), "r"(x[1]), "r"(x[2]));
    } else if constexpr (kRank == 4) {
        SIMT_TENSOR_LOAD("4d", "%3, %4, %5, %6", "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]));
    } else {
        SIMT_TENSOR_LOAD("5d", "%3, %4, %5, %6, %7", "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]),
                         "r"(x[4]));
    }
}

__device__ inline void tensor_load_im2col(void* shared, const TensorMap& map, Mbarrier& barrier,
                                          int c, int w, int h, int n, int offset_w, int offset_h) {
    SIMT_SM90A(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};\n" ::"r"(shared_address(shared)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c), "r"(w), "r"(h), "r"(n),
        "h"(static_cast<std::uint16_t>(offset_w)),
        "h"(static_cast<std::uint16_t>(offset_h)) : "memory");
}

template <typename... Coordinates>
__device__ inline void tensor_store(const TensorMap& map, const void* shared,
                                    Coordinates... coordinates) {
    constexpr int kRank = sizeof...(Coordinates);
    static_assert(kRank >= 1 && kRank <= 5);
    const int x[] = {static_cast<int>(coordinates)...};
    if constexpr (kRank == 1) {
        SIMT_TENSOR_STORE("1d", "%2", "r"(x[0]));
    } else if constexpr (kRank == 2) {
        SIMT_TENSOR_STORE("2d", "%2, %3", "r"(x[0]), "r"(x[1]));
    } else if constexpr (kRank == 3) {
        SIMT_TENSOR_STORE("3d", "%2, %3, %4", "r"(x[0]), "r"(x[1]), "r"(x[2]));
    } else if constexpr (kRank == 4) {
        SIMT_TENSOR_STORE("4d", "%2, %3, %4, %5", "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]));
    } else {
        SIMT_TENSOR_STORE("5d", "%2, %3, %4, %5, %6", "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]),
                          "r"(x[4]));
    }
}

__device__ inline void tensor_store_commit() {
    SIMT_SM90A("cp.async.bulk.commit_group;\n" :: : "memory");
}

template <int Pending>
__device__ inline void tensor_store_wait_read() {
    SIMT_SM90A("cp.async.bulk.wait_group.read %0;\n" ::"n"(Pending) : "memory");
}

template <int Pending>
__device__ inline void tensor_store_wait() {
    SIMT_SM90A("cp.async.bulk.wait_group %0;\n" ::"n"(Pending) : "memory");
}

}  // namespace simt

#undef SIMT_TENSOR_LOAD
#undef SIMT_TENSOR_STORE

#else

namespace simt {

namespace detail {

// Where a copy begins: at `x`, innermost first, and for im2col at `offset` from each corner.
struct TensorPlace {
    int rank;
    int x[5];
    int offset[2];
};

void tensor_load(void* shared, const TensorMap& map, Mbarrier& barrier, const TensorPlace& place,
                 bool im2col, Site site);
void tensor_store(const TensorMap& map, const void* shared, const TensorPlace& place, Site site);
void tensor_store_commit();
void tensor_store_wait(int pending);

// Coordinates, and behind them where in the source the call stands: a default argument cannot
// follow a pack.
struct MapHere {
    const TensorMap& map;
    Site site;
    MapHere(const TensorMap& map_, Site site_ = Site::here()) : map(map_), site(site_) {}
};

}  // namespace detail

template <typename... Coordinates>
inline void tensor_load(void* shared, detail::MapHere map, Mbarrier& barrier,
                        Coordinates... coordinates) {
    static_assert(sizeof...(Coordinates) >= 1 && sizeof...(Coordinates) <= 5);
    detail::tensor_load(shared, map.map, barrier,
                        {sizeof...(Coordinates), {static_cast<int>(coordinates)...}, {}}, false,
                        map.site);
}
inline void tensor_load_im2col(void* shared, const TensorMap& map, Mbarrier& barrier, int c, int w,
                               int h, int n, int offset_w, int offset_h, Site site = Site::here()) {
    detail::tensor_load(shared, map, barrier, {4, {c, w, h, n}, {offset_w, offset_h}}, true, site);
}
template <typename... Coordinates>
inline void tensor_store(detail::MapHere map, const void* shared, Coordinates... coordinates) {
    static_assert(sizeof...(Coordinates) >= 1 && sizeof...(Coordinates) <= 5);
    detail::tensor_store(map.map, shared,
                         {sizeof...(Coordinates), {static_cast<int>(coordinates)...}, {}},
                         map.site);
}
inline void tensor_store_commit() {
    detail::tensor_store_commit();
}
template <int Pending>
inline void tensor_store_wait_read() {
    detail::tensor_store_wait(Pending);
}
template <int Pending>
inline void tensor_store_wait() {
    detail::tensor_store_wait(Pending);
}

}  // namespace simt

#endif
