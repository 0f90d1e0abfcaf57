// The operations of zfcuda, declared once for every backend.
//
// csrc/cpu implements this list with vectorised C++; csrc/kernels implements it with CUDA kernels,
// which nvcc compiles for a GPU and the host compiler compiles for the SIMT emulator. bindings.cpp
// binds the list. What is a template exists in several precisions: each backend instantiates those
// it has.
//
// Conventions. Images are NHWC, filters KRSC, C-contiguous; letters as in cuDNN and CUTLASS: input
// N H W C, output P Q K, filter R S. Callers pass valid pointers to arrays of exactly the shapes
// named here; the Python border (zfcuda/ops) checks kinds, dtypes and array shapes, the structs
// below check geometry. Outputs are fully overwritten and never alias inputs unless a comment says
// they may. No operation allocates: where one needs scratch memory it has a `..._workspace`
// function that says how many bytes (any alignment up to 256 bytes is given). No operation
// synchronises with the host, and what changes from one training step to the next (`lr`, dropout's
// `offset`) is read from where the arrays are, so that a captured step can be launched again. Every
// result is deterministic: the same input gives the same bits, run after run, on one device, with
// the same plans (kernels/conv/tuned_plans.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "shapes.h"

struct __nv_bfloat16;  // of CUDA, and of the emulator

namespace zfcuda {

// Storage of 16 bits. Arithmetic on it is float32, results are rounded to nearest even.
using BFloat16 = __nv_bfloat16;

// How a convolution multiplies. In all, sums, biases and the gradients of filters and biases are
// float32. The CPU has exact float32 alone: zfcuda/ops widens bfloat16 arrays for it.
struct Fp32 {
    using Element = float;
};
struct Tf32 {  // factors rounded to 10 bits of mantissa, on tensor cores
    using Element = float;
};
struct Bf16 {  // on tensor cores
    using Element = BFloat16;
};

// Of the arrays of a convolution.
template <class Precision>
using Element = typename Precision::Element;

// A cudaStream_t on the GPU; ignored elsewhere.
using Stream = void*;

// ---- The backend itself -------------------------------------------------------------------------

// Why this backend cannot run on this machine, in words for its user; empty if it can.
std::string unavailable_reason();

// What runs the operations, for `zfcuda info`: the instruction set and threads, or the devices.
std::string description();

// ---- Convolution (paper 2.1, P1, P3) ------------------------------------------------------------

// y[n,p,q,k] = act(add[n,p,q,k] + b[k] + scale[k] * sum over r,s,c of x[n,h,w,c] * w[k,r,s,c]), zero
// outside x, with h = p*stride_h - pad_top + r*dilation_h and w = q*stride_w - pad_left +
// s*dilation_w; act is ReLU if `relu`, else the identity. `b`, `scale` and `add` may be null. The
// pixels of y, and of `add`, lie `y_pitch` elements apart, k or more: what is between stays. In
// groups, here and below, c runs over the channels of the group of filter k.
template <class Precision>
void conv2d(const ConvShape& shape, const Element<Precision>* x, const Element<Precision>* w,
            const float* b, const float* scale, const Element<Precision>* add, bool relu,
            int y_pitch, Element<Precision>* y, void* workspace, Stream stream);
template <class Precision>
std::size_t conv2d_workspace(const ConvShape& shape);

// The transpose of conv2d without bias: x[n,h,w,c] = sum of y[n,p,q,k] * w[k,r,s,c] over all k and
// all p,q,r,s that meet h and w. The deconvnet's filtering and the data gradient.
template <class Precision>
void conv_transpose2d(const ConvShape& shape, const Element<Precision>* y,
                      const Element<Precision>* w, Element<Precision>* x, void* workspace,
                      Stream stream);
template <class Precision>
std::size_t conv_transpose2d_workspace(const ConvShape& shape);

// dw[k,r,s,c] = sum over n,p,q of x[n,h,w,c] * dy[n,p,q,k].
template <class Precision>
void conv2d_weight_grad(const ConvShape& shape, const Element<Precision>* x,
                        const Element<Precision>* dy, float* dw, void* workspace, Stream stream);
template <class Precision>
std::size_t conv2d_weight_grad_workspace(const ConvShape& shape);

// db[k] = sum over rows of dy[row, k]; dy is (rows, channels).
template <class T>
void conv2d_bias_grad(std::int64_t rows, int channels, const T* dy, float* db, void* workspace,
                      Stream stream);
std::size_t conv2d_bias_grad_workspace(std::int64_t rows, int channels);

// ---- Depthwise convolution: each filter sees one channel -----------------------------------------

// y[n,p,q,k] = act(b[k] + sum over r,s of x[n, p*stride_h - top + r*dilation_h, q*stride_w - left +
// s*dilation_w, k / multiplier] * w[k,r,s]), zero outside x; act is ReLU if `relu`, else the
// identity. `b` may be null.
template <class T>
void depthwise_conv2d(const DepthwiseShape& shape, const T* x, const T* w, const float* b,
                      bool relu, T* y, void* workspace, Stream stream);
std::size_t depthwise_conv2d_workspace(const DepthwiseShape& shape);

// The transpose of depthwise_conv2d without bias.
template <class T>
void depthwise_conv2d_data_grad(const DepthwiseShape& shape, const T* y, const T* w, T* x,
                                void* workspace, Stream stream);
std::size_t depthwise_conv2d_data_grad_workspace(const DepthwiseShape& shape);

// dw[k,r,s] = sum over n,p,q of dy[n,p,q,k] times what w[k,r,s] is multiplied by in y[n,p,q,k].
template <class T>
void depthwise_conv2d_weight_grad(const DepthwiseShape& shape, const T* x, const T* dy, float* dw,
                                  void* workspace, Stream stream);
std::size_t depthwise_conv2d_weight_grad_workspace(const DepthwiseShape& shape);

// ---- Max pooling with switches (P1, P3) ---------------------------------------------------------

// y = maximum over each window, cells outside x ignored; switches = r * window_w + s of the first
// maximum in row-major order, counted from the window's corner even where that lies in the padding.
// NaN wins.
template <class T>
void max_pool2d(const PoolShape& shape, const T* x, T* y, std::uint8_t* switches, Stream stream);

// x = sum of all y whose switch names the pixel, zero elsewhere (windows that overlap add up).
// Each switch must name a cell of x: one that points into the padding or beyond is ignored.
template <class T>
void max_unpool2d(const PoolShape& shape, const T* y, const std::uint8_t* switches, T* x,
                  Stream stream);

// values[n,c] = maximum over h,w of x[n,h,w,c]; positions[n,c] = h * W + w of its first occurrence.
// NaN wins.
template <class T>
void spatial_max(int n, int h, int w, int c, const T* x, T* values, std::int32_t* positions,
                 Stream stream);

// ---- Average pooling ----------------------------------------------------------------------------

// y = sum over each window's cells in x / count; count = the cells of x and of the padding, or
// those of x alone (AvgPoolShape::count_include_pad).
template <class T>
void avg_pool2d(const AvgPoolShape& shape, const T* x, T* y, void* workspace, Stream stream);
std::size_t avg_pool2d_workspace(const AvgPoolShape& shape);

// dx = sum over the windows that cover the pixel of dy / count.
template <class T>
void avg_pool2d_grad(const AvgPoolShape& shape, const T* dy, T* dx, Stream stream);

// ---- The block: convolution, ReLU and max pooling as one operation (decision 6) -----------------

// max_pool2d(conv2d(x, w, b, relu = true)); `pool`'s input is `conv`'s output. `b` may be null.
template <class Precision>
void conv2d_relu_pool(const ConvShape& conv, const PoolShape& pool, const Element<Precision>* x,
                      const Element<Precision>* w, const float* b, Element<Precision>* y,
                      std::uint8_t* switches, void* workspace, Stream stream);
template <class Precision>
std::size_t conv2d_relu_pool_workspace(const ConvShape& conv, const PoolShape& pool);

// conv_transpose2d(f(max_unpool2d(y, switches)), w), f = ReLU if `rectify` (the deconvnet), else
// the identity (the data gradient of the block, for a y that is already masked by pooled > 0).
template <class Precision>
void unpool_conv_transpose2d(const ConvShape& conv, const PoolShape& pool,
                             const Element<Precision>* y, const std::uint8_t* switches,
                             const Element<Precision>* w, bool rectify, Element<Precision>* x,
                             void* workspace, Stream stream);
template <class Precision>
std::size_t unpool_conv_transpose2d_workspace(const ConvShape& conv, const PoolShape& pool);

// conv2d_weight_grad(x, max_unpool2d(dy, switches)): the block's weight gradient.
template <class Precision>
void unpool_conv2d_weight_grad(const ConvShape& conv, const PoolShape& pool,
                               const Element<Precision>* x, const Element<Precision>* dy,
                               const std::uint8_t* switches, float* dw, void* workspace,
                               Stream stream);
template <class Precision>
std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& conv, const PoolShape& pool);

// ---- Element-wise -------------------------------------------------------------------------------

// y = max(x, 0), NaN stays NaN. y may be x.
template <class T>
void relu(std::int64_t size, const T* x, T* y, Stream stream);

// dx = y > 0 ? dy : 0. dx may be dy.
template <class T>
void relu_grad(std::int64_t size, const T* dy, const T* y, T* dx, Stream stream);

// y = x * keep / (1 - probability); keep is 0 with `probability`: element i is dropped where word i
// % 4 of Philox4x32-10(key = seed, counter = (i / 4, *offset)) is below probability * 2^32. 0 <=
// probability < 1. The same call on a gradient is the gradient: no mask is stored. y may be x.
template <class T>
void dropout(std::int64_t size, const T* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, T* y, Stream stream);

// y = a + b, through ReLU if `relu`. y may be a or b.
template <class T>
void add(std::int64_t size, const T* a, const T* b, bool relu, T* y, Stream stream);

// y = x > 0 ? x : x * slope; the slope is slopes[channel], or `slope` where `slopes` is null. x is
// (rows, channels). y may be x.
template <class T>
void leaky_relu(std::int64_t rows, int channels, const T* x, const float* slopes, float slope, T* y,
                Stream stream);

// dx = x > 0 ? dy : dy * slope. dx may be dy.
template <class T>
void leaky_relu_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* slopes,
                     float slope, T* dx, Stream stream);

// dslope[channel] = sum over rows of x > 0 ? 0 : dy * x; if `shared`, dslope[0] = their sum.
template <class T>
void prelu_weight_grad(std::int64_t rows, int channels, bool shared, const T* dy, const T* x,
                       float* dslope, void* workspace, Stream stream);
std::size_t prelu_weight_grad_workspace(std::int64_t rows, int channels);

// y = min(max(x, low), high), NaN stays NaN. y may be x.
template <class T>
void clip(std::int64_t size, const T* x, float low, float high, T* y, Stream stream);

// dx = low < x && x < high ? dy : 0. dx may be dy.
template <class T>
void clip_grad(std::int64_t size, const T* dy, const T* x, float low, float high, T* dx,
               Stream stream);

// y = x, rounded to nearest even where BFloat16 is made of float. On the CPU NumPy does it.
template <class From, class To>
void cast(std::int64_t size, const From* x, To* y, Stream stream);

// ---- Channels: concatenation, its way back, and shuffles -----------------------------------------

// out[row, target + i] = x[row, source + i] for i < channels; what else is in out stays. x is (rows,
// x_channels), out (rows, out_channels). Elements of any kind, by their size, 2 or 4 bytes.
void copy_channels(std::int64_t rows, int x_channels, int source, int out_channels, int target,
                   int channels, int bytes, const void* x, void* out, Stream stream);

// y[row, i] = x[row, order[i]], zero (all bits) where order[i] is no channel; x and y are (rows,
// channels). Elements of any kind, by their size, 2 or 4 bytes.
void permute_channels(std::int64_t rows, int channels, int bytes, const void* x,
                      const std::int32_t* order, void* y, Stream stream);

// ---- Local response normalisation across channels (Krizhevsky et al. 2012, P1) ------------------

// y[.,c] = x[.,c] / (k + alpha * sum over j of x[.,j]^2)^beta, j from c - size/2 to c + (size-1)/2
// inside the channels; x is (rows, channels).
template <class T>
void local_response_norm(std::int64_t rows, int channels, int size, float alpha, float beta,
                         float k, const T* x, T* y, Stream stream);
template <class T>
void local_response_norm_grad(std::int64_t rows, int channels, int size, float alpha, float beta,
                              float k, const T* dy, const T* x, T* dx, Stream stream);

// ---- Batch normalisation (Ioffe and Szegedy 2015) -----------------------------------------------

// y = act((x - mean[c]) / sqrt(variance[c] + eps) * weight[c] + bias[c]); act is ReLU if `relu`,
// else the identity. x and y are (rows, channels); the rows of x lie `x_pitch` elements apart.
template <class T>
void batch_norm(std::int64_t rows, int channels, int x_pitch, const T* x, const float* mean,
                const float* variance, const float* weight, const float* bias, float eps, bool relu,
                T* y, Stream stream);

// mean[c] and variance[c] of x[., c]; the variance is that of the rows themselves: divided by rows.
template <class T>
void batch_norm_statistics(std::int64_t rows, int channels, const T* x, float* mean,
                           float* variance, void* workspace, Stream stream);
std::size_t batch_norm_statistics_workspace(std::int64_t rows, int channels);

// The gradients of batch_norm where mean and variance are the statistics of x: with scale = 1 /
// sqrt(variance + eps) and x' = (x - mean) * scale,
//   dbias = sum of dy, dweight = sum of dy * x',
//   dx = weight * scale * (dy - dbias / rows - x' * dweight / rows).
template <class T>
void batch_norm_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* mean,
                     const float* variance, const float* weight, float eps, T* dx, float* dweight,
                     float* dbias, void* workspace, Stream stream);
std::size_t batch_norm_grad_workspace(std::int64_t rows, int channels);

// ---- Loss ---------------------------------------------------------------------------------------

// probabilities = softmax of each row of logits (n, classes).
void softmax(int n, int classes, const float* logits, float* probabilities, Stream stream);

// Also loss[0] = mean over rows of -log softmax(logits)[label]. 0 <= label < classes, or the loss
// is NaN.
void softmax_cross_entropy(int n, int classes, const float* logits, const std::int32_t* labels,
                           float* loss, float* probabilities, void* workspace, Stream stream);
std::size_t softmax_cross_entropy_workspace(int n, int classes);

// dlogits = (probabilities - one_hot(labels)) / n: the gradient of the mean loss.
void softmax_cross_entropy_grad(int n, int classes, const float* probabilities,
                                const std::int32_t* labels, float* dlogits, Stream stream);

// ---- Optimiser (P2) -----------------------------------------------------------------------------

// In both, nothing changes where *guard is not finite; `guard` may be null. It lies where the
// arrays do, so that the host need not look at a loss before the update that it forbids.

// v = momentum * v - *lr * (g + weight_decay * w); w = w + v. In place.
void sgd_step(std::int64_t size, float* w, const float* g, float* v, const float* lr,
              float momentum, float weight_decay, const float* guard, Stream stream);

// Scales every row of w (filters, filter_size) whose RMS exceeds max_rms back to an RMS of max_rms.
// In place.
void renormalize_filters(int filters, int filter_size, float max_rms, float* w, const float* guard,
                         Stream stream);

// ---- Images (P2) --------------------------------------------------------------------------------

// y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], with (top, left) =
// corners[n] and j' = j, or out_w - 1 - j where flips[n] is not zero. images is uint8 (N,H,W,C),
// mean (H,W,C) or null, corners int32 (N,2), y (N, out_h, out_w, C). A crop that leaves the image
// reads zero (after the mean).
void crop_images(const CropShape& shape, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream stream);

// ---- Windows (P3) -------------------------------------------------------------------------------

// y[n,i,j,c] = x[images[n], top+i, left+j, c], (top, left) = corners[n]; zero (all bits) outside x.
// Elements of any kind, by their size. corners is int32 (N,2), images int32 (N,); null is 0, 1, ...
void cut_windows(const WindowShape& shape, const void* x, const std::int32_t* corners,
                 const std::int32_t* images, void* y, Stream stream);

}  // namespace zfcuda
