// Fetching what comes next from memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "blocking.h"

namespace zfcuda {

// Fetches an array that comes next, a part at each of `steps` calls. The processor foresees a row's
// next lines, but not the next row (three times the speed was measured on large maps).
template <typename T>
class Fetch {
  public:
    Fetch(const T* array, std::int64_t size, int steps)
        : at_(array), end_(array + size), part_(size / steps + 1) {}

    void step() {
        constexpr int kLine = 64 / sizeof(T);
        for (const T* stop = std::min(end_, at_ + part_); at_ < stop; at_ += kLine)
            __builtin_prefetch(at_, 0, 3);
    }

  private:
    const T *at_, *end_;
    std::int64_t part_;
};

// Fetches rows of floats that come next, while so many steps are made: as evenly as possible, since
// the processor waits for lines if too many are fetched at once.
class FetchRows {
  public:
    // `count` rows of `floats` floats, `distance` floats apart. Of at most two arrays, before spread().
    void add(const float* first, int count, std::int64_t distance, std::int64_t floats) {
        if (floats == 0 || count == 0) return;
        arrays_[array_count_++] = {first, distance, floats, count};
        lines_ += ceil_div(floats, kLineFloats) * std::int64_t{count};
    }

    void spread(std::int64_t steps) {
        if (lines_ == 0 || steps == 0) return;
        interval_ = static_cast<int>(std::max<std::int64_t>(1, steps / lines_));
        at_once_ = static_cast<int>((lines_ * interval_ + steps - 1) / steps);
    }

    // Steps between two calls of step().
    int interval() const { return interval_; }

    void step() {
        for (int i = 0; i < at_once_ && array_ < array_count_; ++i) {
            Rows& rows = arrays_[array_];
            __builtin_prefetch(rows.first + at_, 0, 2);
            at_ += kLineFloats;
            if (at_ < rows.floats) continue;
            at_ = 0;
            rows.first += rows.distance;
            if (--rows.count == 0) ++array_;
        }
    }

  private:
    struct Rows {
        const float* first;
        std::int64_t distance, floats;
        int count;
    };

    Rows arrays_[2];
    int array_count_ = 0, array_ = 0;
    int interval_ = std::numeric_limits<int>::max(), at_once_ = 0;
    std::int64_t at_ = 0, lines_ = 0;
};

}  // namespace zfcuda
