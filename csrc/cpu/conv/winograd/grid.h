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
// Sixteen images of 13 x 13 take 14 * 14 tiles this way, and 16 * 16 one by one.
#pragma once

#include <algorithm>
#include <cstdint>

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
    int images, columns;  // images in all, and side by side

    Grid(const Axis& h, const Axis& w, int images) : h(h), w(w), images(images), columns(1) {
        for (int c = 2; c <= images; ++c)
            if (tiles_of(c) < tiles_of(columns)) columns = c;
    }

    int tiles_w() const { return w.tiles(columns); }
    int tiles() const { return static_cast<int>(tiles_of(columns)); }

  private:
    std::int64_t tiles_of(int c) const {
        return static_cast<std::int64_t>(h.tiles(ceil_div(images, c))) * w.tiles(c);
    }
};

// The plane's coordinates from `tile` on, resolved: which image along the axis, and which u within.
struct TileAxis {
    int image[kPoints], u[kPoints];

    TileAxis(const Axis& axis, int tile) {
        const int period = axis.period(), size = tile_size(axis.taps);
        for (int i = 0; i < kPoints; ++i) {
            image[i] = (tile * size + i) / period;
            u[i] = (tile * size + i) % period;
        }
    }
};

struct TilePosition {
    const Grid& grid;
    TileAxis rows, cols;

    TilePosition(const Grid& grid, int tile)
        : grid(grid), rows(grid.h, tile / grid.tiles_w()), cols(grid.w, tile % grid.tiles_w()) {}

    // The image at the tile's cell (i, j), or -1 if there is none.
    int image(int i, int j) const {
        if (cols.image[j] >= grid.columns) return -1;
        const int n = rows.image[i] * grid.columns + cols.image[j];
        return n < grid.images ? n : -1;
    }

    // The source pixel of phase (eh, ew) at the tile's cell (i, j) of 6 x 6: its index (n, h, w),
    // or -1 for a zero.
    std::int64_t source(int i, int j, int eh, int ew) const {
        const int n = image(i, j);
        const int y = grid.h.step * rows.u[i] + eh + grid.h.offset;
        const int x = grid.w.step * cols.u[j] + ew + grid.w.offset;
        if (n < 0 || y < 0 || y >= grid.h.size || x < 0 || x >= grid.w.size) return -1;
        return (static_cast<std::int64_t>(n) * grid.h.size + y) * grid.w.size + x;
    }

    // The image that the output at the tile's cell (i, j) belongs to, or -1 if it lies
    // between images.
    int output_image(int i, int j) const {
        return rows.u[i] < grid.h.outputs && cols.u[j] < grid.w.outputs ? image(i, j) : -1;
    }
};

}  // namespace zfcuda::conv::winograd
