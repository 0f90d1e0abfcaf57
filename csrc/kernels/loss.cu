// Softmax and cross-entropy: the choice of kernel.
#include "loss.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

// Calls `use` with a RowTile: a warp a row up to 64 columns a thread, then a block a row.
template <typename Use>
void with_row_tile(int classes, Use use) {
    with_constant(classes <= 64 * kWarp,
                  [&](auto short_row) { use(RowTile<short_row ? kWarp : kRowThreads>()); });
}

void softmax_and_losses(int n, int classes, const float* logits, const std::int32_t* labels,
                        float* row_losses, float* probabilities, Stream stream) {
    with_row_tile(classes, [&](auto tile) {
        simt::launch<softmax_kernel<decltype(tile)>>(tile.grid(n), tile.block(), 0, stream, n,
                                                     classes, logits, labels, row_losses,
                                                     probabilities);
    });
}

}  // namespace

void softmax(int n, int classes, const float* logits, float* probabilities, Stream stream) {
    softmax_and_losses(n, classes, logits, nullptr, nullptr, probabilities, stream);
}

std::size_t softmax_cross_entropy_workspace(int n, int) {
    return sizeof(float) * static_cast<std::size_t>(n);
}

void softmax_cross_entropy(int n, int classes, const float* logits, const std::int32_t* labels,
                           float* loss, float* probabilities, void* workspace, Stream stream) {
    auto* row_losses = static_cast<float*>(workspace);
    softmax_and_losses(n, classes, logits, labels, row_losses, probabilities, stream);
    simt::launch<mean_kernel>(1, kMeanThreads, 0, stream, n, row_losses, loss);
}

void softmax_cross_entropy_grad(int n, int classes, const float* probabilities,
                                const std::int32_t* labels, float* dlogits, Stream stream) {
    with_row_tile(classes, [&](auto tile) {
        simt::launch<softmax_cross_entropy_grad_kernel<decltype(tile)>>(
            tile.grid(n), tile.block(), 0, stream, n, classes, probabilities, labels, dlogits);
    });
}

}  // namespace zfcuda
