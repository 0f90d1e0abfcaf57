// How work is cut: the arithmetic, and every size that follows from a cache or a number of threads.
//
// The sizes are for cores with 32 to 48 KB of first-level cache, 1 MB of second-level cache and a
// share of 16 to 32 MB of the last level. Where a size says how sums are cut, results depend on it
// in their last bits, and it depends on nothing but the shape.
#pragma once

#include <cstdint>

namespace zfcuda {

constexpr int ceil_div(std::int64_t a, int b) {
    return static_cast<int>((a + b - 1) / b);
}

constexpr int round_up(int value, int unit) {
    return (value + unit - 1) / unit * unit;
}

// A distance of at least `floats` that is an odd number of cache lines: streams that far apart do
// not meet in the caches.
constexpr std::int64_t odd_lines(std::int64_t floats) {
    return ((floats + 15) / 16 | 1) * 16;
}

// Where part `i` of `parts` begins when `total` is cut as evenly as possible.
constexpr std::int64_t part_begin(std::int64_t total, int parts, int i) {
    return total * i / parts;
}

// ---- Memory -------------------------------------------------------------------------------------

// A result of more bytes than this, half of a last-level cache, goes past the caches: it would push
// out what is there, and what reads it next would not find its beginning.
constexpr std::int64_t kStreamBytes = 16 << 20;

// An argument of more bytes than this does not stay in a core's own caches.
constexpr std::int64_t kSecondCacheBytes = 1 << 20;

// Arguments and results of more bytes than this together do not stay in the last-level cache.
constexpr std::int64_t kFarBytes = 20 << 20;

constexpr int kLineFloats = 16;  // of a cache line

// How far ahead windows are fetched that are gathered: 4 KB take as long to copy as to arrive.
constexpr int kFetchedFloats = 1024;

// A page of memory. The processor foresees one stream in each: what is read from it should be read
// in order.
constexpr int kPageFloats = 1024;

// Rows of a tile that lie a multiple of a page apart: they meet in one set of the first-level cache,
// which has eight lines or more.
constexpr int kPageTileRows = 7;

// ---- Products (gemm.h) --------------------------------------------------------------------------

// Depth of a block of gathered rows: its panel of filters, 32 x 384 floats or 48 KB, is read once
// for every tile of rows and fills the first-level cache.
constexpr int kMaxDepth = 384;

// Rows of a gathered block, 269 KB at the full depth: with the panels that stream past, half of
// the second-level cache. A multiple of the tiles of both 14 and 6 rows.
constexpr int kBlockRows = 168;

// Most panels of columns, and depth, of products whose windows are read in place, which read a whole
// panel of filters (196 KB) for every tile.
constexpr int kLinesPanels = 4;
constexpr int kLinesDepth = 4 * kMaxDepth;

// Most columns of taps of images whose channels fill a vector: the sums of one pixel of the map are
// 4 KB, those of the lines that take turns stay in the second-level cache.
constexpr int kTapColumns = 1024;

// Panels of 1 x 1 filters that a tile of pixels meets one after the other (16 KB, half of the
// first-level cache), and the most columns of a large result whose lines are fetched before they are
// written: more are faster past the caches (64 columns take 0.9 of the time, 144 take 1.15, Zen 5).
constexpr int kFewPanelsFloats = 4 * 1024;
constexpr int kFetchedColumns = 64;

// Pixels of a block of a weight gradient: a panel of x, 32 x 256 floats or 32 KB, stays in the
// first-level cache while the tiles of K pass; sums of so many are exact enough to be added up.
constexpr int kWgradPixels = 256;

// Panels of columns of one task of a weight gradient: dw of 384 filters in 6 panels takes 288 KB.
constexpr int kWgradPanels = 6;

// Filters up to which a weight gradient reads the pixels of 1 x 1 windows in place.
constexpr int kWgradFewFilters = 128;

// Most channels of such pixels that one task takes where it can take them all: 256 pixels are 256 KB,
// dw of 128 filters 128 KB.
constexpr int kWgradRow = 256;

// Tasks that a weight gradient is cut into at least, in chunks of pixels where its panels are few:
// two for each of 8 threads; and in parts of filters, too, where pixels are few: one for each.
constexpr int kWgradTasks = 16;
constexpr int kLeastWgradTasks = 8;

// ---- Lines of images with few channels (conv/lines.h) -------------------------------------------

// Lines of the map in one task of the forward convolution: of 7 x 7 filters at stride 2, neighbours
// read 5 of 21 lines of the image twice.
constexpr int kStripLines = 8;

// Lines made at once for a pool: one for each step of the usual stride of 2.
constexpr int kRingLines = 2;

// Tasks of a whole batch, four for each of 8 threads: images are cut into strips until there are
// so many. Strips make some lines of the map twice, so that none has fewer lines than these.
constexpr int kStripTasks = 32;
constexpr int kMinPooledLines = 4;  // of the pooled map
constexpr int kMinStripLines = 16;  // of the map

// Parts of the batch in a weight gradient, each with a sum of its own (58 KB for 7 x 7 x 3 x 96); fewer
// where the sums are large, but at least one for each of 8 threads.
constexpr int kWgradChunks = 32;
constexpr int kLeastWgradChunks = 8;

// Pixels of such a part at least, beyond the fewest parts, and of its blocks at most: what is done once
// for each takes 1 % of the products. The floats of a block's pixels and of what they see, 128 KB.
constexpr int kWgradChunkPixels = 1024;
constexpr int kWgradBlockFloats = 32 * 1024;

// The most floats of such sums, 4 MB.
constexpr std::int64_t kWgradSumFloats = 1 << 20;

// ---- Winograd (conv/winograd/) ------------------------------------------------------------------

// Tiles of a chunk, a multiple of 14 rows: 36 frequencies of 224 tiles and 128 channels are 4 MB,
// as many again for the products, which stay in the last-level cache.
constexpr int kChunkTiles = 224;

// Forward and in the data gradient all threads share a chunk only where there are more filters,
// transformed, than this: then each reads its part of them once. Else a thread has chunks of its
// own, of so many floats, that stay in its second-level cache: twice as fast for 64 channels and
// filters, 1.4 times for 128, equal for 256 (Zen 5, two processors).
constexpr int kOwnFilterFloats = 1 << 20;
constexpr int kOwnChunkFloats = 128 * 1024;

// The most floats of a weight gradient's sums (512 KB, half of the second-level cache) with which its
// tiles are cut into parts, each with sums of its own; how many parts at most, and of how many tiles
// at least.
constexpr std::int64_t kOwnSumFloats = 128 * 1024;
constexpr int kWgradParts = 16;
constexpr int kPartTiles = 56;

// Parts that the panels of one frequency are cut into, so that 144 tasks end together.
constexpr int kPanelGroups = 4;

// ---- Fully connected layers (conv/dense.cpp) ----------------------------------------------------

// Floats of x that stay in the second-level cache while w passes (256 KB), and the least depth of
// such a chunk, below which adding up its sums costs more.
constexpr int kDenseFloats = 64 * 1024;
constexpr int kDenseMinDepth = 512;

// Columns of w that a thread packs at a time: 384 x 128 floats are 192 KB.
constexpr int kDenseColumns = 128;

// Rows with which the data gradient does not pack w, and the columns of a task then: 8 x 2,048 sums
// are 64 KB.
constexpr int kDenseFewRows = 8;
constexpr int kDenseFewColumns = 2048;

// Floats of x that a thread packs for the weight gradient (128 KB), and those of a row of a large one
// that are made before they are written past the caches: 6 or 14 rows of 2 KB stay in the first-level
// cache. (A line of each row by turns took 1.2 times as long, Zen 3.)
constexpr int kDenseGradFloats = 32 * 1024;
constexpr int kDenseGradRun = 512;

// ---- Small groups (conv/small_groups.cpp) -------------------------------------------------------

// Floats of the lines of a strip (256 KB, a part of the second-level cache), and the tasks that a
// result is cut into at least where it has as many lines or blocks of lanes: two for each of 8 threads.
constexpr int kGroupStripFloats = 64 * 1024;
constexpr int kGroupTasks = 16;

// The most channels of a group whose weight gradient is made this way.
constexpr int kGroupWgradChannels = 16;

// ---- Depthwise convolution (depthwise/) -------------------------------------------------------

// Channels of a task: eight cache lines of a pixel; their 3 x 3 filters take 4.6 KB of the
// first-level cache.
constexpr int kDepthwiseChannels = 128;

// Tasks that a weight gradient is cut into at least, eight for each of 8 threads.
constexpr int kDepthwiseTasks = 64;

// ---- Blocks, pools and others -------------------------------------------------------------------

// The map of a group of images between a convolution and its pool (conv/block.cpp): a quarter of
// the last-level cache, which keeps the filters and scratch of the convolution too.
constexpr int kGroupBytes = 4 << 20;

// Sums over rows (columns.h) add this many rows at a time, which keeps float32 accurate however many
// there are, in at most so many parts.
constexpr int kSumRows = 256;
constexpr int kSumParts = 64;

// The most floats of rows that are taken as one where their channels fill no vectors (columns.h): 8 KB
// for each parameter of the channels, which are repeated as often; and how often rows are at least.
constexpr int kMergedFloats = 2 * 1024;
constexpr int kLeastMerges = 16;

// Floats of a block of rows that the statistics of batch_norm (batch_norm.cpp) go over twice: 64 KB,
// in the second-level cache.
constexpr int kMomentFloats = 16 * 1024;

// Channels of one task of spatial_max (pool.cpp): maxima and their places take 1 KB.
constexpr int kMaximaChannels = 128;

// Floats of a group of rows in normalisation (norm.cpp): 4 KB for each of its buffers.
constexpr int kNormFloats = 1024;

}  // namespace zfcuda
