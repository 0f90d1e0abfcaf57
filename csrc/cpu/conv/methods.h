// The methods by which the CPU computes convolutions, and the choice among them.
//
// A method computes one direction in up to three steps: it packs filters, multiplies the images of
// a batch, a few at a time if need be, and finishes what several such calls have summed up. The
// table of all methods and the one place that chooses are in methods.cpp: a new method is a file
// that defines a `Method`, its name below and its line in the table.
#pragma once

#include <cstdint>
#include <vector>

#include "../../shapes.h"

namespace zfcuda::conv {

enum class Direction { kFprop, kDgrad, kWgrad };

// How a method serves a block, whose convolution is followed by a pool (block.cpp).
enum class Fusion {
    kNone,    // not at all
    kImages,  // a few images at a time, whose map is stored between the two
    kLines,   // with the pool in the call: line by line, no map is stored
};

// One call. Fprop reads x and w, dgrad y and w, wgrad x and y; each writes the third to `out`.
struct Call {
    const ConvShape& shape;  // that the workspace is for
    int images;              // that there are: at most shape.n
    const float *x, *w, *y;
    float *out, *workspace;
    const float* bias = nullptr;   // of fprop, may be null
    const float* scale = nullptr;  // of fprop, may be null
    const float* add = nullptr;    // of fprop, lies as `out` does; may be null
    bool relu = false;             // of fprop
    int out_pitch = shape.k;       // of fprop: from pixel to pixel of `out`
    bool accumulate = false;       // wgrad adds to the calls before it

    // If not null, fprop pools what it makes, and the gradients read an unpooled y.
    const PoolShape* pool = nullptr;
    const std::uint8_t* switches = nullptr;  // of y
    std::uint8_t* out_switches = nullptr;    // of fprop
    bool rectify = false;                    // then dgrad reads the unpooled map's ReLU
};

struct Method {
    const char* name;
    Direction direction;
    Fusion fusion;
    // Whether it can compute the shape, and is faster than the methods below it in the table.
    bool (*applies)(const ConvShape&);
    // In floats; `pool` is that of the calls.
    std::int64_t (*workspace)(const ConvShape&, const PoolShape* pool);
    void (*pack)(const Call&);  // null where filters are read as they are
    void (*run)(const Call&);
    void (*finish)(const Call&);  // null where `run` leaves nothing to do

    // All steps of a call with the whole batch.
    void compute(const Call& call) const {
        if (pack) pack(call);
        run(call);
        if (finish) finish(call);
    }
};

// All methods, in the order in which they are asked.
const std::vector<const Method*>& methods();

// The method for a shape, in a block or by itself: the first that applies.
const Method& choose(const ConvShape& shape, Direction direction, bool in_block = false);

extern const Method dense_fprop, dense_dgrad, dense_wgrad;
extern const Method small_groups_fprop, small_groups_dgrad, small_groups_wgrad;
extern const Method winograd_lines_fprop;
extern const Method in_place_fprop, in_place_wgrad;
extern const Method tap_columns_dgrad;
extern const Method winograd_fprop, winograd_dgrad, winograd_wgrad;
extern const Method implicit_gemm_fprop, implicit_gemm_dgrad, implicit_gemm_wgrad;

}  // namespace zfcuda::conv
