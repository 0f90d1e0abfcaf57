// Correct kernels of matrix products and of the 16-bit types: none may be reported.
#include <cfloat>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "selftest.h"

namespace selftest {
namespace {

// ---- Matrix instructions: 16 x 8 products, from shared memory through ldmatrix ------------------

template <typename Half, bool Transposed>
__global__ void mma_kernel(const Half* a, const Half* b, float* d) {
    SIMT_SHARED(Half, tile_a, 16 * 16);
    SIMT_SHARED(Half, tile_b, 16 * 8);
    const int lane = threadIdx.x, group = lane / 4, pair = lane % 4 * 2;
    for (int i = lane; i < 16 * 16; i += 32)
        tile_a[i] = a[i];
    for (int i = lane; i < 16 * 8; i += 32)
        tile_b[i] = b[i];
    __syncwarp();
    std::uint32_t ra[4], rows[4], rb[2];
    simt::load_matrix_x4(ra, tile_a + lane % 16 * 16 + lane / 16 * 8);
    if (Transposed) {  // b is 16 x 8, row by row
        simt::load_matrix_x4_trans(rows, tile_b + lane % 16 * 8);
    } else {  // b is 8 x 16
        simt::load_matrix_x4(rows, tile_b + lane % 8 * 16 + lane / 8 % 2 * 8);
    }
    rb[0] = rows[0];
    rb[1] = rows[1];
    float rd[4] = {1, 1, 1, 1};
    if constexpr (std::is_same_v<Half, __half>) {
        simt::mma_m16n8k16_fp16(rd, ra, rb);
    } else {
        simt::mma_m16n8k16_bf16(rd, ra, rb);
    }
    for (int i = 0; i < 4; ++i)
        d[(group + i / 2 * 8) * 8 + pair + i % 2] = rd[i];
}

template <typename Half, bool Transposed>
void mma() {
    std::vector<Half> a(256), b(128);
    for (int i = 0; i < 256; ++i)
        a[i] = Half(static_cast<float>(i * 7 % 23 - 11));
    for (int i = 0; i < 128; ++i)
        b[i] = Half(static_cast<float>(i * 5 % 19 - 9));
    Array<Half> da("a", a), db("b", b);
    Array<float> d("d", 128);
    simt::launch<mma_kernel<Half, Transposed>>(1, 32, 0, nullptr, da.data(), db.data(), d.data());
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
            float expected = 1;
            for (int k = 0; k < 16; ++k)
                expected += float(a[m * 16 + k]) * float(b[Transposed ? k * 8 + n : n * 16 + k]);
            expect(d[m * 8 + n] == expected, "mma");
        }
    }
}

__global__ void mma_tf32_kernel(const float* a, const float* b, float* d) {
    const int lane = threadIdx.x, group = lane / 4, quad = lane % 4;
    std::uint32_t ra[4], rb[2];
    for (int i = 0; i < 4; ++i)
        ra[i] = simt::to_tf32(a[(group + i % 2 * 8) * 8 + quad + i / 2 * 4]);
    for (int i = 0; i < 2; ++i)
        rb[i] = simt::to_tf32(b[(quad + i * 4) * 8 + group]);
    float rd[4] = {};
    simt::mma_m16n8k8_tf32(rd, ra, rb);
    for (int i = 0; i < 4; ++i)
        d[(group + i / 2 * 8) * 8 + quad * 2 + i % 2] = rd[i];
}

void mma_tf32() {
    std::vector<float> values(128);
    for (int i = 0; i < 128; ++i)
        values[i] = static_cast<float>(i * 37 % 101 - 50);
    Array<float> a("a", values), b("b", std::vector<float>(values.begin(), values.begin() + 64));
    Array<float> d("d", 128);
    simt::launch<mma_tf32_kernel>(1, 32, 0, nullptr, a.data(), b.data(), d.data());
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
            float expected = 0;
            for (int k = 0; k < 8; ++k)
                expected += a[m * 8 + k] * b[k * 8 + n];
            expect(d[m * 8 + n] == expected, "mma_tf32");
        }
    }
    expect(simt::to_tf32(1.0f + 0x1p-11f) == 0x3f800000u, "to_tf32 rounds a tie to even, down");
    expect(simt::to_tf32(1.0f + 0x3p-11f) == 0x3f804000u, "to_tf32 rounds a tie to even, up");
    expect(simt::to_tf32(-1.0f - 0x1.002p-11f) == 0xbf802000u, "to_tf32 rounds to nearest");
    expect(simt::to_tf32(FLT_MAX) == 0x7f800000u, "to_tf32 rounds the largest number to infinity");
    expect(simt::to_tf32(-INFINITY) == 0xff800000u, "to_tf32 keeps infinities");
    for (const std::uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xffc00000u, 0xffffffffu}) {
        float x;
        std::memcpy(&x, &nan, sizeof x);
        expect(simt::to_tf32(x) == 0x7fffffffu, "to_tf32 keeps NaN");
    }
}

// ---- 16-bit types: every value, and rounding to nearest even ------------------------------------

void half_types() {
    for (int bits = 0; bits < 65536; ++bits) {
        __half h;
        h.bits = static_cast<std::uint16_t>(bits);
        const float f = h;
        expect(f != f || __half(f).bits == h.bits, "fp16 " + std::to_string(bits));
        __nv_bfloat16 b;
        b.bits = static_cast<std::uint16_t>(bits);
        const float g = b;
        expect(g != g || __nv_bfloat16(g).bits == b.bits, "bf16 " + std::to_string(bits));
    }
    expect(float(__half(1.0f + 0x1p-11f)) == 1.0f, "fp16 tie to even");
    expect(float(__half(1.0f + 3 * 0x1p-11f)) == 1.0f + 0x1p-9f, "fp16 tie to even, upwards");
    expect(float(__half(0x1p-25f)) == 0.0f, "fp16 subnormal tie");
    expect(float(__half(3 * 0x1p-26f)) == 0x1p-24f, "fp16 subnormal");
    expect(std::isinf(float(__half(65520.0f))), "fp16 overflow");
    expect(float(__half(65519.0f)) == 65504.0f, "fp16 largest");
    expect(float(__nv_bfloat16(1.0f + 0x1p-8f)) == 1.0f, "bf16 tie to even");
    expect(float(__nv_bfloat16(1.0f + 3 * 0x1p-8f)) == 1.0f + 0x1p-6f, "bf16 tie, upwards");
}

}  // namespace

std::vector<Case> product_cases() {
    return {
        {"mma fp16", mma<__half, false>},
        {"mma bf16", mma<__nv_bfloat16, true>},
        {"mma tf32", mma_tf32},
        {"half_types", half_types},
    };
}

}  // namespace selftest
