// Crops of uint8 images as float32 batches, on the CPU.
//
// y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], j' = j or mirrored, zero
// outside the image. Rows are independent; each is cut at the image's edges once, what is inside is
// one vectorised pass, or a walk over the pixels where it is mirrored. Rows of large results go past
// the caches, by way of a row in the first-level cache: what is read next stays there.
//
// Images in files are read by the threads that crop them, as much at a time as stays in a core's own
// cache: what is used of a file comes from memory once, and nothing of it goes back there. Read, not
// mapped: where a disk fails or a file has become shorter, that is an error, and a mapped page would
// end the process.
#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "../ops.h"
#include "blocking.h"
#include "parallel.h"
#include "simd.h"
#include "stored_images.h"
#include "streams.h"

namespace zfcuda {
namespace {

// Of a crop, which a thread takes at a time. The threads that read the next batch want the cores,
// too: halves of equal size left one thread waiting for the other.
constexpr int kTaskRows = 64;

// The same, in bytes of rows of the image, where they are read from a file.
constexpr int kReadBytes = 192 * 1024;

constexpr int kCutShort = -1;

void convert(const std::uint8_t* from, const float* mean, int count, float* to) {
    if (mean)
        for (int i = 0; i < count; ++i)
            to[i] = from[i] - mean[i];
    else
        for (int i = 0; i < count; ++i)
            to[i] = from[i];
}

// The same for pixels of kChannels (c, if that is 0) written backwards; `to` is the last one.
template <int kChannels>
void convert_mirrored(const std::uint8_t* from, const float* mean, int pixels, int c, float* to) {
    if (kChannels) c = kChannels;
    for (int j = 0; j < pixels; ++j, from += c, to -= c) {
        if (mean)
            for (int i = 0; i < c; ++i)
                to[i] = from[i] - mean[j * c + i];
        else
            for (int i = 0; i < c; ++i)
                to[i] = from[i];
    }
}

// A row of the result, in `out`, of a row of an image and of the mean, which may be null.
void crop_row(const CropShape& sh, const std::uint8_t* image, const float* mean, std::int64_t left,
              bool flip, float* out) {
    const int row_floats = sh.out_w * sh.c;
    // Columns first..end of the crop, before it is mirrored, lie in the image.
    const std::int64_t first = std::clamp<std::int64_t>(-left, 0, sh.out_w);
    const std::int64_t end = std::clamp<std::int64_t>(sh.w - left, first, sh.out_w);
    if (first == end) {
        std::fill(out, out + row_floats, 0.0f);
        return;
    }
    const std::int64_t at = (left + first) * sh.c;
    const std::uint8_t* from = image + at;
    const float* from_mean = mean ? mean + at : nullptr;
    const int pixels = static_cast<int>(end - first);
    float* low = out + (flip ? sh.out_w - end : first) * sh.c;
    float* last = low + (pixels - 1) * sh.c;
    if (!flip)
        convert(from, from_mean, pixels * sh.c, low);
    else if (sh.c == 3)
        convert_mirrored<3>(from, from_mean, pixels, 3, last);
    else
        convert_mirrored<0>(from, from_mean, pixels, sh.c, last);
    std::fill(out, low, 0.0f);
    std::fill(last + sh.c, out + row_floats, 0.0f);
}

// Where rows [first, end) of image n lie; null where they cannot be read.
struct InMemory {
    const std::uint8_t* images;
    std::int64_t image_bytes, row_bytes;

    const std::uint8_t* operator()(std::int64_t n, std::int64_t first, std::int64_t) const {
        return images + n * image_bytes + first * row_bytes;
    }
};

struct InFiles {
    const std::int32_t* files;
    const std::int64_t* offsets;
    std::int32_t* failures;
    std::int64_t row_bytes;
    std::vector<std::uint8_t> rows;  // that were read last

    const std::uint8_t* operator()(std::int64_t n, std::int64_t first, std::int64_t end) {
        const std::int64_t wanted = (end - first) * row_bytes;
        if (wanted > static_cast<std::int64_t>(rows.size())) rows.resize(wanted);
        for (std::int64_t done = 0; done < wanted;) {
            const std::int64_t count = pread(files[n], rows.data() + done, wanted - done,
                                             offsets[n] + first * row_bytes + done);
            if (count > 0) {
                done += count;
            } else if (count == 0 || errno != EINTR) {
                const std::int32_t failure = count == 0 ? kCutShort : errno;
#pragma omp atomic write
                failures[n] = failure;
                return nullptr;
            }
        }
        return rows.data();
    }
};

// All crops, a task of up to `task_rows` rows of one of them at a time. Each thread has a `Reader` of
// its own, a copy of this one.
template <typename Reader>
void crop(const CropShape& sh, int task_rows, const Reader& reader, const float* mean,
          const std::int32_t* corners, const std::uint8_t* flips, float* y) {
    const int row_floats = sh.out_w * sh.c;
    const std::int64_t image_row = std::int64_t{sh.w} * sh.c;
    const std::int64_t floats = std::int64_t{sh.n} * sh.out_h * row_floats;
    const bool stream = streams(floats, row_floats, y);
    const int parts = ceil_div(sh.out_h, task_rows);
    Tasks tasks(std::int64_t{sh.n} * parts);
#pragma omp parallel if (worth_threads(floats))
    {
        std::vector<float> kept(stream ? row_floats : 0);
        Reader read = reader;
        tasks.run([&](std::int64_t task) {
            const std::int64_t n = task / parts;
            const int begin = static_cast<int>(task % parts) * task_rows;
            const int end = std::min(sh.out_h, begin + task_rows);
            const std::int64_t top = corners[2 * n], left = corners[2 * n + 1];
            // Rows of the image that the task needs.
            const std::int64_t first = std::clamp<std::int64_t>(top + begin, 0, sh.h);
            const std::int64_t last = std::clamp<std::int64_t>(top + end, first, sh.h);
            const std::uint8_t* rows = first < last ? read(n, first, last) : nullptr;
            float* out = y + (n * sh.out_h + begin) * row_floats;
            for (std::int64_t h = top + begin; h < top + end; ++h, out += row_floats) {
                float* made = stream ? kept.data() : out;
                if (rows && h >= first && h < last)
                    crop_row(sh, rows + (h - first) * image_row,
                             mean ? mean + h * image_row : nullptr, left, flips[n] != 0, made);
                else
                    std::fill(made, made + row_floats, 0.0f);
                if (stream) copy_past_caches(made, row_floats, out);
            }
        });
        if (stream) simd::stream_fence();
    }
}

}  // namespace

void crop_images(const CropShape& sh, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream) {
    const std::int64_t row_bytes = std::int64_t{sh.w} * sh.c;
    crop(sh, kTaskRows, InMemory{images, sh.h * row_bytes, row_bytes}, mean, corners, flips, y);
}

void crop_stored_images(const CropShape& sh, const std::int32_t* files, const std::int64_t* offsets,
                        const float* mean, const std::int32_t* corners, const std::uint8_t* flips,
                        float* y, std::int32_t* failures) {
    std::fill(failures, failures + sh.n, 0);
    const std::int64_t row_bytes = std::int64_t{sh.w} * sh.c;
    const int rows =
        static_cast<int>(std::clamp<std::int64_t>(kReadBytes / row_bytes, 1, sh.out_h));
    crop(sh, rows, InFiles{files, offsets, failures, row_bytes, {}}, mean, corners, flips, y);
}

}  // namespace zfcuda
