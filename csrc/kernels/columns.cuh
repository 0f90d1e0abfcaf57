// What is found of each channel by going over all rows: sums, mean and variance; and work on rows
// whose channels have parameters of their own.
//
// reduce_columns. x is (images, rows, channels); each image and channel has a result. A block takes
// a range of the rows of 32 neighbouring channels: the threads across hold a vector of channels
// each, the threads down take turns over the rows, a tree in shared memory joins them. Where the
// channels of all images make few blocks, the rows are cut into ranges, whose results a second
// launch joins the same way. Ranges depend on nothing but the shape, and every order is fixed.
// Bound: memory, the bytes of x.
//
// What is found is a `Column` (see SumColumns): how rows are read, and how results join. What becomes
// of it is a `Finish`.
#pragma once

#include <algorithm>

#include "indexing.cuh"
#include "vector.cuh"

namespace zfcuda {

// ---- Reductions ---------------------------------------------------------------------------------

// A result of neighbouring channels: kParts numbers for each.
template <int Parts, int Width>
struct ColumnParts {
    static constexpr int kParts = Parts;
    Vector<float, Width> part[Parts];

    __device__ static ColumnParts zero() {
        ColumnParts result;
#pragma unroll
        for (int i = 0; i < Parts; ++i)
            result.part[i] = Vector<float, Width>::filled(0.0f);
        return result;
    }
};

// How results join: by addition.
template <int Parts>
struct JoinSums {
    using Join = JoinSums;
    static constexpr int kParts = Parts;

    template <int Width>
    __device__ static void join(ColumnParts<Parts, Width>& a, const ColumnParts<Parts, Width>& b) {
#pragma unroll
        for (int i = 0; i < Parts; ++i)
#pragma unroll
            for (int j = 0; j < Width; ++j)
                a.part[i].at[j] += b.part[i].at[j];
    }
};

struct ColumnTile {
    static constexpr int kThreads = 256;
    static constexpr int kChannels = 32;
    // The least rows of a range, 16 for each thread, and the blocks from which on there are enough
    // for every multiprocessor.
    static constexpr int kRows = 512;
    static constexpr int kBlocks = 1024;
};

// How an array is cut into blocks.
struct ColumnRanges {
    int images;
    std::int64_t rows;  // of an image
    int channels;
    int ranges;
    std::int64_t rows_per_range;  // the last range may have fewer

    ColumnRanges(int images_, std::int64_t rows_, int channels_)
        : images(images_), rows(rows_), channels(channels_), ranges(1), rows_per_range(rows_) {
        const std::int64_t blocks = static_cast<std::int64_t>(images) * tiles();
        const std::int64_t wanted = std::min<std::int64_t>(ColumnTile::kBlocks / blocks,
                                                           (rows - 1) / ColumnTile::kRows + 1);
        if (wanted <= 1) return;
        rows_per_range = (rows - 1) / wanted + 1;
        ranges = static_cast<int>((rows - 1) / rows_per_range + 1);
    }

    // The results of the ranges as rows themselves.
    ColumnRanges second() const {
        ColumnRanges result(*this);
        result.rows = result.rows_per_range = ranges;
        result.ranges = 1;
        return result;
    }

    int tiles() const { return divide_up(channels, ColumnTile::kChannels); }
    std::size_t workspace(int parts) const {
        return ranges == 1 ? 0 : sizeof(float) * parts * ranges * images * channels;
    }
};

// `across`, a power of two: vectors of channels side by side in a block. `partial` is where a range
// leaves its result, (images, ranges, kParts, channels), null where it is the only one.
template <int Width, typename Column, typename Finish>
__global__ void __launch_bounds__(ColumnTile::kThreads)
    reduce_columns_kernel(ColumnRanges cut, int across, FastDivisor tiles, FastDivisor ranges,
                          Column column, Finish finish, float* partial) {
    constexpr int kThreads = ColumnTile::kThreads;
    using Parts = ColumnParts<Column::kParts, Width>;
    SIMT_SHARED(float, scratch, Column::kParts* kThreads* Width);
    const int block = static_cast<int>(blockIdx.x), above = block / tiles;
    const int image = above / ranges, range = above % ranges;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread & (across - 1), down = thread / across, height = kThreads / across;
    const int c = block % tiles * ColumnTile::kChannels + lane * Width;
    const std::int64_t first = range * cut.rows_per_range;
    const std::int64_t last = min(first + cut.rows_per_range, cut.rows);

    Parts parts = Parts::zero();
    if (c < cut.channels) {
        const std::int64_t image_row = image * cut.rows;
        column.template reduce<Width>(image_row + first + down, image_row + last, height, c, parts);
    }
    const auto place = [&](int i, int of) { return scratch + (i * kThreads + of) * Width; };
#pragma unroll
    for (int i = 0; i < Column::kParts; ++i)
        store(place(i, thread), parts.part[i]);
    __syncthreads();
    for (int half = height / 2; half > 0; half /= 2) {
        if (down < half) {
            Parts other;
#pragma unroll
            for (int i = 0; i < Column::kParts; ++i)
                other.part[i] = load<Width>(place(i, thread + half * across));
            Column::join(parts, other);
#pragma unroll
            for (int i = 0; i < Column::kParts; ++i)
                store(place(i, thread), parts.part[i]);
        }
        __syncthreads();
    }
    if (down > 0 || c >= cut.channels) return;
    if (partial == nullptr) {
        finish(image, c, parts);
        return;
    }
#pragma unroll
    for (int i = 0; i < Column::kParts; ++i)
        store(partial + (static_cast<std::int64_t>(above) * Column::kParts + i) * cut.channels + c,
              parts.part[i]);
}

// The results of the ranges of a column.
template <typename Join>
struct PartialColumns : Join {
    const float* partial;
    int channels;

    PartialColumns(const float* partial_, int channels_) : partial(partial_), channels(channels_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int c,
                           ColumnParts<Join::kParts, Width>& result) const {
#pragma unroll 4
        for (std::int64_t row = first; row < last; row += step) {
            ColumnParts<Join::kParts, Width> other;
#pragma unroll
            for (int i = 0; i < Join::kParts; ++i)
                other.part[i] = load<Width>(partial + (row * Join::kParts + i) * channels + c);
            Join::join(result, other);
        }
    }
};

template <int Width, typename Column, typename Finish>
void launch_reduce_columns(const ColumnRanges& cut, const Column& column, const Finish& finish,
                           float* partial, Stream stream) {
    int across = ColumnTile::kChannels / Width;
    while (across / 2 * Width >= cut.channels)
        across /= 2;
    const std::int64_t blocks = static_cast<std::int64_t>(cut.images) * cut.ranges * cut.tiles();
    simt::launch<reduce_columns_kernel<Width, Column, Finish>>(
        dim3(static_cast<unsigned>(blocks)), dim3(ColumnTile::kThreads), 0, stream, cut, across,
        FastDivisor(cut.tiles()), FastDivisor(cut.ranges), column, finish, partial);
}

// finish(image, channel, result) for all images and channels. `Width`: of the vectors in which the
// column is read.
template <int Width, typename Column, typename Finish>
void reduce_columns(const ColumnRanges& cut, const Column& column, const Finish& finish,
                    void* workspace, Stream stream) {
    if (cut.ranges == 1) {
        launch_reduce_columns<Width>(cut, column, finish, nullptr, stream);
        return;
    }
    auto* partial = static_cast<float*>(workspace);
    launch_reduce_columns<Width>(cut, column, finish, partial, stream);
    const PartialColumns<typename Column::Join> ranges(partial, cut.channels);
    launch_reduce_columns<1>(cut.second(), ranges, finish, nullptr, stream);
}

// The sum of x.
template <typename T>
struct SumColumns : JoinSums<1> {
    const T* x;
    int channels;

    SumColumns(const T* x_, int channels_) : x(x_), channels(channels_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int c,
                           ColumnParts<1, Width>& sum) const {
#pragma unroll 4
        for (std::int64_t row = first; row < last; row += step) {
            const auto value = to_floats(load<Width>(x + row * channels + c));
#pragma unroll
            for (int j = 0; j < Width; ++j)
                sum.part[0].at[j] += value.at[j];
        }
    }
};

// out[c] = sum, of one image.
struct FinishSum {
    float* out;

    template <int Width>
    __device__ void operator()(int, int c, const ColumnParts<1, Width>& sum) const {
        store(out + c, sum.part[0]);
    }
};

// ---- Rows with parameters of their channels -----------------------------------------------------

// Threads over (rows, channels): each has one vector of channels of up to kRows rows, so that the
// channels' parameters are read once for all of them, and all loads are in flight at once. Its rows
// are `groups` apart: neighbours read and write what lies side by side.
template <int Width>
struct RowGroups {
    static constexpr int kRows = 4;
    static constexpr int kThreads = 256;

    int rows, groups;
    FastDivisor vectors;  // of a row

    RowGroups(std::int64_t rows_, int channels)
        : rows(static_cast<int>(rows_)),
          groups(divide_up(static_cast<int>(rows_), kRows)),
          vectors(channels / Width) {}

    dim3 grid() const { return dim3(static_cast<unsigned>(divide_up(total(), kThreads))); }
    static dim3 block() { return dim3(kThreads); }
    __host__ __device__ int total() const { return groups * vectors.divisor; }

    struct Place {
        int group, c;
        bool inside;
    };
    __device__ Place place() const {
        const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
        return {i / vectors, i % vectors * Width, i < total()};
    }

    // visit(r, first element) for each of the rows, which lie `pitch` elements apart.
    template <typename Visit>
    __device__ void for_each_row(const Place& at, int pitch, Visit visit) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            if (at.group < rows - r * groups) visit(r, (at.group + r * groups) * pitch + at.c);
        }
    }

    // The same for rows without anything between them.
    template <typename Visit>
    __device__ void for_each_row(const Place& at, Visit visit) const {
        for_each_row(at, vectors.divisor * Width, visit);
    }
};

}  // namespace zfcuda
