// How Winograd's tiles lie on a batch of images, and where their pixels are.
//
// A convolution with stride s is a stride-1 convolution of s * s phases, each the pixels of one
// remainder by the stride, with up to ceil(R / s) taps of an axis: so the 5 x 5 stride-2 layer has
// 3 x 3 taps of 4 phases.
//
// The images of the batch are laid side by side, rows x columns of them, on one plane, and the
// plane is cut into tiles of outputs, say 4 x 4, since 13 = 3 * 4 + 1 pixels would waste most of
// the last tile of every image. Neighbours keep a distance so that no window sees both, but for
// zeros: where an image ends in padding and the next one begins with padding, they share it.
// Sixteen images of 13 x 13 take 14 * 14 tiles this way, and 16 * 16 apart, each in tiles of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../../blocking.h"
#include "transform.h"

namespace zfcuda::conv::winograd {

// One axis. Output u of an image reads the source pixels step * (u + t) + e + offset, t < 3 taps, e
// < step phases; those outside [0, size) are zero.
struct Axis {
    int outputs;
    int size, step, offset;
    int taps;

    // Distance of two images on the plane.
    int period() const {
        const int reach = outputs + taps - 1;
        const int lead = std::max(0, ceil_div(1 - offset - step, step));
        const int trail = std::max(0, reach - ceil_div(size - offset, step));
        return reach - std::min({lead, trail, taps - 1});
    }

    // Tiles that `images` of them take.
    int tiles(int images) const {
        return ceil_div(static_cast<std::int64_t>(images - 1) * period() + outputs,
                        tile_size(taps));
    }
};

struct Grid {
    Axis h, w;
    int images, columns;                       // images in all, and side by side
    int period_h, period_w, tiles_h, tiles_w;  // of the plane
    bool apart;  // images one below the other, each in tiles_h tiles of its own

    // Of images that share tiles, unless they must not or would gain nothing.
    Grid(const Axis& h, const Axis& w, int images, bool must_be_apart = false)
        : h(h), w(w), images(images), columns(1), period_h(h.period()), period_w(w.period()) {
        for (int c = 2; c <= images; ++c)
            if (tiles_of(c) < tiles_of(columns)) columns = c;
        const std::int64_t tiles_apart = std::int64_t{images} * h.tiles(1) * w.tiles(1);
        apart = must_be_apart || tiles_apart <= tiles_of(columns);
        if (apart) columns = 1;
        tiles_h = h.tiles(apart ? 1 : ceil_div(images, columns));
        tiles_w = w.tiles(columns);
    }

    int tiles() const { return (apart ? images : 1) * tiles_h * tiles_w; }

  private:
    std::int64_t tiles_of(int c) const {
        return static_cast<std::int64_t>(h.tiles(ceil_div(images, c))) * w.tiles(c);
    }
};

// The plane's coordinates from one on, resolved: which image along the axis, and which u within.
struct TileAxis {
    int image[kPoints], u[kPoints];

    TileAxis(int first, int period) : TileAxis(first / period, first % period, period) {}

    // Of one image alone.
    static TileAxis of_image(int image, int first) {
        return TileAxis(image, first, std::numeric_limits<int>::max());
    }

  private:
    TileAxis(int n, int at, int period) {
        for (int i = 0; i < kPoints; ++i) {
            image[i] = n;
            u[i] = at;
            if (++at < period) continue;
            at = 0;
            ++n;
        }
    }
};

// Of the pixels of a tile's cells, how far those of its rows (or columns) lie from the array's first.
struct CellOffsets {
    static constexpr std::int64_t kOutside = std::numeric_limits<std::int64_t>::min() / 4;
    std::int64_t at[kPoints];

    // index(u): the pixel's place in its image, or a negative number if it has none.
    template <typename Index>
    CellOffsets(const TileAxis& axis, std::int64_t image_distance, std::int64_t distance,
                const Index& index) {
        for (int i = 0; i < kPoints; ++i) {
            const int place = index(axis.u[i]);
            at[i] = place < 0 ? kOutside : axis.image[i] * image_distance + place * distance;
        }
    }
};

struct TilePosition {
    const Grid& grid;
    TileAxis rows, cols;

    TilePosition(const Grid& grid, int tile)
        : grid(grid),
          rows(rows_of(grid, tile / grid.tiles_w)),
          cols(tile % grid.tiles_w * tile_size(grid.w.taps), grid.period_w) {}

    // The pixels of an array (images, h, w, channels) that the tile's first Size x Size cells are;
    // row(u) and column(u) are their places in an image, or negative; `absent` where there is none.
    template <int Size, typename T, typename Row, typename Column>
    void pixels(T* array, int h, int w, int channels, T* absent, const Row& row,
                const Column& column, T* (&pixels)[Size][Size]) const {
        const std::int64_t line = std::int64_t{w} * channels, image = h * line;
        const CellOffsets down(rows, grid.columns * image, line, row);
        const CellOffsets across(cols, image, channels, column);
        for (int i = 0; i < Size; ++i) {
            // The last row of images may be shorter.
            const int end = std::min(grid.columns, grid.images - rows.image[i] * grid.columns);
            for (int j = 0; j < Size; ++j) {
                const std::int64_t at = down.at[i] + across.at[j];
                pixels[i][j] = at >= 0 && cols.image[j] < end ? array + at : absent;
            }
        }
    }

    // The source's of phase (eh, ew).
    void source_pixels(const float* images, int channels, int eh, int ew, const float* zeros,
                       const float* (&pixels)[kPoints][kPoints]) const {
        const auto along = [](const Axis& axis, int phase) {
            return [&axis, phase](int u) {
                const int place = axis.step * u + phase + axis.offset;
                return place < axis.size ? place : -1;
            };
        };
        this->pixels(images, grid.h.size, grid.w.size, channels, zeros, along(grid.h, eh),
                     along(grid.w, ew), pixels);
    }

  private:
    static TileAxis rows_of(const Grid& grid, int row) {
        const int size = tile_size(grid.h.taps);
        if (!grid.apart) return TileAxis(row * size, grid.period_h);
        return TileAxis::of_image(row / grid.tiles_h, row % grid.tiles_h * size);
    }
};

}  // namespace zfcuda::conv::winograd
