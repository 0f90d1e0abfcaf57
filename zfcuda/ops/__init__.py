"""The operations: convolution, pooling with switches, and what a convnet and its deconvnet need besides.

Images are NHWC and filters KRSC, C-contiguous float32 unless an operation says more. N H W C are batch, height,
width and channels of the input, P Q K those of the output, R S the filter's height and width. `stride`, `padding`,
`window`, `kernel_size` and `output_size` are an int or (height, width); paddings may also be (top, bottom, left,
right). A NumPy array runs on the CPU, a CuPy array on its GPU and CuPy's current stream. Results live where the
arguments do. An argument that is not C-contiguous, or lies at no multiple of its elements' size, is copied
first; `out` must be contiguous and is never resized.

Where an operation says "float32 or bfloat16", its arrays may also be bfloat16 (`ml_dtypes.bfloat16`), all of them:
they are stored in 16 bits, the arithmetic is float32, and results are rounded to nearest even. On a backend without
bfloat16 kernels (the CPU's) the arguments are widened to float32 and the results rounded: the same numbers, no saving.

`precision="tf32"` permits an operation on float32 arrays to multiply on tensor cores, which round every factor to 11
significant bits (by at most 2^-11 of it); sums are float32. A backend without tensor cores (the CPU's) computes exact
float32 all the same. The default, "fp32", forbids it. bfloat16 arrays need no permission.

Errors: ValueError for shapes and values, TypeError for dtypes, kinds of arrays and mixed devices. Each names
the argument, what it was and what is allowed.
"""

from .activation import add, cast, clip, clip_grad, dropout, relu, relu_grad
from .arguments import Precision as Precision
from .avg_pool import avg_pool2d, avg_pool2d_grad
from .batch_norm import batch_norm, batch_norm_grad, batch_norm_statistics
from .block import conv2d_relu_pool, unpool_conv2d_weight_grad, unpool_conv_transpose2d
from .channels import copy_channels, permute_channels
from .conv import conv2d, conv2d_bias_grad, conv2d_weight_grad, conv_transpose2d
from .depthwise import depthwise_conv2d, depthwise_conv2d_data_grad, depthwise_conv2d_weight_grad
from .image import crop_images
from .leaky_relu import leaky_relu, leaky_relu_grad, prelu_weight_grad
from .loss import softmax, softmax_cross_entropy, softmax_cross_entropy_grad
from .norm import local_response_norm, local_response_norm_grad
from .optimizer import renormalize_filters, sgd_step
from .pool import max_pool2d, max_unpool2d, spatial_max
from .window import cut_windows

__all__ = [
    "add",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_statistics",
    "cast",
    "clip",
    "clip_grad",
    "conv2d",
    "conv2d_bias_grad",
    "conv2d_relu_pool",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "copy_channels",
    "crop_images",
    "cut_windows",
    "depthwise_conv2d",
    "depthwise_conv2d_data_grad",
    "depthwise_conv2d_weight_grad",
    "dropout",
    "leaky_relu",
    "leaky_relu_grad",
    "local_response_norm",
    "local_response_norm_grad",
    "max_pool2d",
    "max_unpool2d",
    "permute_channels",
    "prelu_weight_grad",
    "relu",
    "relu_grad",
    "renormalize_filters",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "spatial_max",
    "unpool_conv2d_weight_grad",
    "unpool_conv_transpose2d",
]
