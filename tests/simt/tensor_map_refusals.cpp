// Tensor maps that cannot be: each is refused with the name of the field, its value and what is
// allowed.
#include "selftest.h"

namespace selftest {
namespace {

using simt::Im2colTensor;
using simt::Swizzle;
using simt::TensorType;
using simt::TiledTensor;

template <typename Make>
void expect_refusal(Make make, const std::string& message) {
    try {
        make();
    } catch (const std::invalid_argument& error) {
        expect(error.what() == "tensor map: " + message, std::string(error.what()));
        return;
    }
    expect(false, "not refused: " + message);
}

template <typename Change>
void refuse_tiled(Change change, const std::string& message) {
    alignas(16) static const float values[64] = {};
    TiledTensor tensor{TensorType::kFloat, values,    3,         {4, 4, 4},
                       {16, 64},           {4, 4, 4}, {1, 1, 1}, Swizzle::kNone};
    simt::tiled_map(tensor);
    change(tensor);
    expect_refusal([&] { simt::tiled_map(tensor); }, message);
}

template <typename Change>
void refuse_im2col(Change change, const std::string& message) {
    alignas(16) static const float values[64] = {};
    Im2colTensor tensor{
        TensorType::kFloat, values, {4, 4, 4, 1}, {16, 64, 256}, {0, 0}, {0, 0}, 4, 8, {1, 1},
        Swizzle::kNone};
    simt::im2col_map(tensor);
    change(tensor);
    expect_refusal([&] { simt::im2col_map(tensor); }, message);
}

void tiled() {
    refuse_tiled([](TiledTensor& t) { t.address = nullptr; },
                 "address must be a multiple of 16, and not null, got 0");
    refuse_tiled([](TiledTensor& t) { t.rank = 6; }, "rank must be from 1 to 5, got 6");
    refuse_tiled([](TiledTensor& t) { t.sizes[2] = 0; },
                 "sizes[2] must be from 1 to 4294967296, got 0");
    refuse_tiled([](TiledTensor& t) { t.strides[0] = 24; },
                 "strides[0] must be a multiple of 16 bytes, and less than 2^40, got 24");
    refuse_tiled([](TiledTensor& t) { t.strides[1] = std::uint64_t{1} << 40; },
                 "strides[1] must be a multiple of 16 bytes, and less than 2^40, got "
                 "1099511627776");
    refuse_tiled([](TiledTensor& t) { t.strides[1] = 48; },
                 "strides[1] must be at least the 64 bytes of the dimensions below, got 48");
    refuse_tiled([](TiledTensor& t) { t.box[0] = 260; }, "box[0] must be from 1 to 256, got 260");
    refuse_tiled([](TiledTensor& t) { t.box[0] = 6; },
                 "box[0] must be a multiple of 16 bytes wide, got 6");
    refuse_tiled([](TiledTensor& t) { t.box[1] = 257; }, "box[1] must be from 1 to 256, got 257");
    refuse_tiled([](TiledTensor& t) { t.steps[0] = 2; }, "steps[0] must be from 1 to 1, got 2");
    refuse_tiled([](TiledTensor& t) { t.steps[1] = 9; }, "steps[1] must be from 1 to 8, got 9");
    refuse_tiled([](TiledTensor& t) { t.swizzle = Swizzle::k64; },
                 "box[0] must be as wide as the swizzle of 64 bytes, got 4");
}

void im2col() {
    refuse_im2col([](Im2colTensor& t) { t.channels = 257; },
                  "channels must be from 1 to 256, got 257");
    refuse_im2col([](Im2colTensor& t) { t.pixels = 1025; },
                  "pixels must be from 1 to 1024, got 1025");
    refuse_im2col([](Im2colTensor& t) { t.lower[0] = -129; },
                  "lower[0] must be from -128 to 127, got -129");
    refuse_im2col([](Im2colTensor& t) { t.upper[1] = 128; },
                  "upper[1] must be from -128 to 127, got 128");
    refuse_im2col([](Im2colTensor& t) { t.upper[0] = -4; },
                  "upper[0] must be such that a corner is left, got -4");
    refuse_im2col([](Im2colTensor& t) { t.steps[1] = 0; }, "steps[1] must be from 1 to 8, got 0");
    refuse_im2col([](Im2colTensor& t) { t.swizzle = Swizzle::k128; },
                  "channels must be as wide as the swizzle of 128 bytes, got 4");
}

}  // namespace

std::vector<Case> tensor_map_cases() {
    return {{"refused tiled maps", tiled}, {"refused im2col maps", im2col}};
}

}  // namespace selftest
