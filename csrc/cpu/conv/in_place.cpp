// Forward convolution and weight gradient of images with few channels (first_layer.h).
#include "first_layer.h"

#include <algorithm>

#include "../gemm.h"
#include "../parallel.h"
#include "../simd.h"
#include "implicit_gemm.h"
#include "winograd/lines.h"

namespace zfcuda::first_layer {
namespace {

using namespace gemm;

int taps(const ConvShape& s) {
    return s.r * s.s * s.c;
}

// Floats of a padded line.
int line_floats(const ConvShape& s) {
    return ((s.q() - 1) * s.stride_w + s.s) * s.c;
}

int input_lines(const ConvShape& s, int output_lines) {
    return (output_lines - 1) * s.stride_h + s.r;
}

// The lines that the output lines [p0, p1) read, with padding.
void pad_lines(const ConvShape& s, const float* x, int n, int p0, int p1, float* out) {
    const int size = line_floats(s), margin = std::min(s.pad_w * s.c, size);
    const int inside = std::min(size - margin, s.w * s.c);
    const int first = p0 * s.stride_h - s.pad_h;
    for (int i = 0; i < input_lines(s, p1 - p0); ++i, out += size) {
        const int h = first + i;
        if (h < 0 || h >= s.h) {
            simd::clear(out, size);
            continue;
        }
        simd::clear(out, margin);
        simd::copy(out + margin, x + (static_cast<std::int64_t>(n) * s.h + h) * s.w * s.c, inside);
        simd::clear(out + margin + inside, size - margin - inside);
    }
}

std::int64_t padded_floats(const ConvShape& s, int lines) {
    return odd_lines(static_cast<std::int64_t>(input_lines(s, lines)) * line_floats(s));
}

}  // namespace

bool applies(const ConvShape& s) {
    return s.c <= 4 && is_row_stride(s.stride_w * s.c) && s.q() >= kTileRows / 2;
}

std::int64_t packed_floats(const ConvShape& s) {
    return first_layer_winograd::pays(s) ? first_layer_winograd::packed_floats(s)
                                         : panels_size(taps(s), s.k);
}

void pack(const ConvShape& s, const float* w, float* packed) {
    if (first_layer_winograd::pays(s)) return first_layer_winograd::pack_filters(s, w, packed);
    pack_filters(w, s.k, taps(s), packed);
}

int line_step(const ConvShape& s) {
    return first_layer_winograd::pays(s) ? first_layer_winograd::tile_lines(s) : 1;
}

std::int64_t scratch_floats(const ConvShape& s, int lines) {
    return first_layer_winograd::pays(s) ? first_layer_winograd::scratch_floats(s)
                                         : padded_floats(s, lines);
}

void conv2d_lines(const ConvShape& s, const float* x, int n, int p0, int p1, const float* packed,
                  const float* b, bool relu, bool stream, float* y, float* scratch) {
    if (first_layer_winograd::pays(s))
        return first_layer_winograd::conv2d_lines(s, x, n, p0, p1, packed, b, relu, stream, y,
                                                  scratch);
    pad_lines(s, x, n, p0, p1, scratch);
    const int q = s.q(), size = line_floats(s), tiles = ceil_div(q, kTileRows);
    Epilogue epilogue;
    epilogue.relu = relu;
    epilogue.stream = stream;
    for (int p = p0; p < p1; ++p)
        for (int column = 0; column < s.k; column += kPanel) {
            epilogue.bias = b ? b + column : nullptr;
            for (int tile = 0; tile < tiles; ++tile) {
                const int q0 = part_begin(q, tiles, tile), q1 = part_begin(q, tiles, tile + 1);
                float* rows[kTileRows];
                for (int i = 0; i < q1 - q0; ++i)
                    rows[i] = y + (static_cast<std::int64_t>(p - p0) * q + q0 + i) * s.k;
                Operands operands{};
                operands.row_stride = s.stride_w * s.c;
                operands.a = scratch + static_cast<std::int64_t>(p - p0) * s.stride_h * size +
                             q0 * operands.row_stride;
                operands.runs = s.r;
                operands.depth = s.s * s.c;
                operands.run_distance = size;
                operands.b = packed + static_cast<std::int64_t>(column) * taps(s);
                multiply_tile(q1 - q0, operands, rows, column, s.k - column, epilogue);
            }
        }
}

std::size_t conv2d_workspace(const ConvShape& s) {
    return sizeof(float) * (packed_floats(s) + scratch_floats(s, kStripLines) * max_threads());
}

void conv2d(const ConvShape& s, const float* x, const float* w, const float* b, bool relu, float* y,
            void* workspace) {
    float* packed = static_cast<float*>(workspace);
    float* scratch = packed + packed_floats(s);
    pack(s, w, packed);
    const int p = s.p(), step = line_step(s), steps = ceil_div(p, step);
    const int strips = ceil_div(steps, kStripLines / step);
    const std::int64_t line = static_cast<std::int64_t>(s.q()) * s.k;
    const bool stream =
        s.n * p * line * 4 > kStreamBytes && s.k % simd::kLanes == 0 && simd::is_aligned(y);
#pragma omp parallel num_threads(threads())
    {
        float* mine = scratch + thread_index() * scratch_floats(s, kStripLines);
#pragma omp for collapse(2) schedule(dynamic)
        for (int n = 0; n < s.n; ++n)
            for (int strip = 0; strip < strips; ++strip) {
                const int p0 = part_begin(steps, strips, strip) * step;
                const int p1 = std::min<int>(part_begin(steps, strips, strip + 1) * step, p);
                conv2d_lines(s, x, n, p0, p1, packed, b, relu, stream,
                             y + (static_cast<std::int64_t>(n) * p + p0) * line, mine);
            }
        if (stream) simd::stream_fence();
    }
}

namespace {

// The weight gradient: sizes. dw is summed up transposed, (r, s, c) x k.
struct Plan {
    int chunks, block_lines,
        row_stride;  // of dw transposed, and of dy's pixels if they are padded to whole vectors
    std::int64_t sum_floats, line_floats, map_floats, padded_map_floats;

    explicit Plan(const ConvShape& s) {
        chunks = static_cast<int>(
            std::min<std::int64_t>(kWgradChunks, static_cast<std::int64_t>(s.n) * s.p()));
        block_lines = std::clamp(kWgradPixels / s.q(), 1, s.p());
        row_stride = round_up(s.k, simd::kLanes);
        sum_floats = static_cast<std::int64_t>(taps(s)) * row_stride;
        line_floats = padded_floats(s, block_lines);
        const std::int64_t pixels = static_cast<std::int64_t>(block_lines) * s.q();
        map_floats = odd_lines(pixels * s.k);
        padded_map_floats = row_stride == s.k ? 0 : odd_lines(pixels * row_stride);
    }

    std::int64_t thread_floats() const { return line_floats + map_floats + padded_map_floats; }
};

// Adds the products of `count` output lines: `lines` as from pad_lines, `map` (count * q,
// row_stride). Meanwhile fetches `next_floats` from `next` on, the gradients that come after: a
// panel reads them with gaps, which the processor does not foresee.
void add_lines(const ConvShape& s, const Plan& plan, const float* lines, int count,
               const float* map, const Epilogue& epilogue, float* sums, const float* next,
               std::int64_t next_floats) {
    const int size = line_floats(s), run = s.s * s.c, tiles = ceil_div(run, kTileRows);
    const int steps = ceil_div(s.k, kPanel) * s.r;
    for (int step = 0; step < steps; ++step) {
        const int column = step / s.r * kPanel, r = step % s.r;
        for (std::int64_t i = part_begin(next_floats, steps, step);
             i < part_begin(next_floats, steps, step + 1); i += 16)
            __builtin_prefetch(next + i, 0, 2);
        for (int tile = 0; tile < tiles; ++tile) {
            const int i0 = part_begin(run, tiles, tile), i1 = part_begin(run, tiles, tile + 1);
            float* rows[kTileRows];
            for (int i = i0; i < i1; ++i)
                rows[i - i0] = sums + static_cast<std::int64_t>(r * run + i) * plan.row_stride;
            Operands operands{lines + r * size + i0, 1, map + column, s.q()};
            operands.a_step = s.stride_w * s.c;
            operands.b_stride = plan.row_stride;
            operands.runs = count;
            operands.run_distance = static_cast<std::int64_t>(s.stride_h) * size;
            multiply_tile(i1 - i0, operands, rows, column, plan.row_stride - column, epilogue);
        }
    }
}

}  // namespace

std::size_t conv2d_weight_grad_workspace(const ConvShape& s) {
    const Plan plan(s);
    return sizeof(float) * (plan.chunks * plan.sum_floats + plan.thread_floats() * max_threads());
}

void conv2d_weight_grad(const ConvShape& s, const float* x, const MapLines& dy, float* dw,
                        void* workspace) {
    const Plan plan(s);
    const std::int64_t all_lines = static_cast<std::int64_t>(s.n) * s.p();
    float* sums = static_cast<float*>(workspace);
    float* scratch = sums + plan.chunks * plan.sum_floats;
#pragma omp parallel num_threads(threads())
    {
        float* lines = scratch + thread_index() * plan.thread_floats();
        float* buffer = lines + plan.line_floats;
        float* padded = buffer + plan.map_floats;
#pragma omp for schedule(dynamic)
        for (int chunk = 0; chunk < plan.chunks; ++chunk) {
            std::int64_t line = part_begin(all_lines, plan.chunks, chunk);
            const std::int64_t end = part_begin(all_lines, plan.chunks, chunk + 1);
            Epilogue epilogue;
            while (line < end) {
                const int n = static_cast<int>(line / s.p()), p = static_cast<int>(line % s.p());
                const int count = static_cast<int>(
                    std::min<std::int64_t>({plan.block_lines, end - line, s.p() - p}));
                pad_lines(s, x, n, p, p + count, lines);
                const float* map = dy.read(n, p, count, buffer);
                if (plan.padded_map_floats) {
                    for (int i = 0; i < count * s.q(); ++i)
                        simd::copy_spilling(padded + i * plan.row_stride, map + i * s.k, s.k);
                    map = padded;
                }
                const std::int64_t next_lines =
                    dy.pool ? 0 : std::min<std::int64_t>(plan.block_lines, end - line - count);
                add_lines(s, plan, lines, count, map, epilogue, sums + chunk * plan.sum_floats,
                          next_lines ? dy.values + (line + count) * dy.line_size : nullptr,
                          next_lines * dy.line_size);
                epilogue.accumulate = true;
                line += count;
            }
        }
        // In the order of the chunks, whichever thread made them.
#pragma omp for
        for (int d = 0; d < taps(s); ++d)
            for (int k = 0; k < s.k; k += simd::kLanes) {
                const float* from = sums + static_cast<std::int64_t>(d) * plan.row_stride + k;
                simd::Vec sum = simd::load(from);
                for (int chunk = 1; chunk < plan.chunks; ++chunk)
                    sum += simd::load(from + chunk * plan.sum_floats);
                for (int i = 0; i < std::min(simd::kLanes, s.k - k); ++i)
                    dw[static_cast<std::int64_t>(k + i) * taps(s) + d] = sum[i];
            }
    }
}

}  // namespace zfcuda::first_layer
