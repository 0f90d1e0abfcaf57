"""Random calls of the convolutions."""

import numpy as np

from tests import oracles
from zfcuda import ops

from .draws import EXTREMES, Skip, limit, padding_of, windows
from .pools import pooled, signal


def convolution(calls, kernel=None):
    """x, w, the options of a convolution, and its output's size (None: must be refused)."""
    n, h, w, c = calls.shape()
    kernel = kernel or tuple(int(v) for v in calls.rng.integers(1, 5, 2))
    options = {"stride": calls.pair(1, 4), "padding": padding_of(calls, 3)}
    groups = 1
    if calls.rng.random() < 0.4:
        options["dilation"] = calls.pair(1, 3)
    if calls.rng.random() < 0.4:
        options["groups"] = calls.size(1, 8)
        groups = options["groups"] if options["groups"] in range(1, 9) else 1  # an extreme one fits no arrays
    filters = calls.normal(groups * int(calls.rng.integers(1, 5)), *kernel, c)
    x = calls.normal(n, h, w, c * groups)
    output = windows((h, w), kernel, **options)
    if output and options.get("groups", 1) != groups:
        output = None
    return x, filters, options, output


def conv2d(calls):
    x, w, options, output = convolution(calls)
    b = calls.normal(w.shape[0])
    if calls.rng.random() < 0.4:
        options["scale"] = calls.normal(w.shape[0])
    if output and not limit(len(x), *output, len(w)):
        output = None
    if output and calls.rng.random() < 0.4:
        options["add"] = calls.normal(len(x), *output, len(w))
    return lambda: ops.conv2d(x, w, b, **options), output and (lambda: oracles.conv2d(x, w, b, **options))


def conv_transpose2d(calls):
    x, w, options, output = convolution(calls)
    size = x.shape[1:3]
    if calls.rng.random() < 0.1:
        size, output = (calls.size(1, 8), EXTREMES[calls.rng.integers(len(EXTREMES))]), None
    y = calls.normal(len(x), *(output if output and limit(*output) else (2, 1)), len(w))
    if output is None and windows(size, w.shape[1:3], **options) == y.shape[1:3]:
        raise Skip
    options["output_size"] = size
    return lambda: ops.conv_transpose2d(y, w, **options), output and (lambda: oracles.conv_transpose2d(y, w, **options))


def depthwise(calls):
    """x, w, the options of a depthwise convolution, and its output's size (None: must be refused)."""
    n, h, w, c = calls.shape()
    kernel = tuple(int(v) for v in calls.rng.integers(1, 8, 2))
    options = {"stride": calls.pair(1, 4), "padding": tuple(calls.size(0, 2) for _ in range(4))}
    options["dilation"] = calls.pair(1, 3)
    filters = calls.normal(c * int(calls.rng.integers(1, 4)), *kernel, 1)
    return calls.normal(n, h, w, c), filters, options, windows((h, w), kernel, **options)


def depthwise_conv2d(calls):
    x, w, options, output = depthwise(calls)
    if output and not limit(len(x), *output, len(w)):
        output = None
    return lambda: ops.depthwise_conv2d(x, w, **options), output and (lambda: oracles.depthwise_conv2d(x, w, **options))


def depthwise_conv2d_data_grad(calls):
    x, w, options, output = depthwise(calls)
    if output is None or not limit(len(x), *output, len(w)):
        raise Skip  # as for depthwise_conv2d
    y = calls.normal(len(x), *output, len(w))
    options |= {"output_size": x.shape[1:3], "channels": x.shape[3]}
    return lambda: ops.depthwise_conv2d_data_grad(y, w, **options), lambda: oracles.depthwise_conv2d_data_grad(
        y, w, **options
    )


def depthwise_conv2d_weight_grad(calls):
    x, w, options, output = depthwise(calls)
    if output is None or not limit(len(x), *output, len(w)):
        raise Skip  # as for depthwise_conv2d
    dy, kernel = calls.normal(len(x), *output, len(w)), {"kernel_size": w.shape[1:3]}
    return lambda: ops.depthwise_conv2d_weight_grad(
        x, dy, **kernel, **options
    ), lambda: oracles.depthwise_conv2d_weight_grad(x, dy, **kernel, **options)


def conv2d_weight_grad(calls):
    x, w, options, output = convolution(calls)
    kernel = w.shape[1:3]
    if calls.rng.random() < 0.2:
        kernel = calls.pair(1, 9)
        output = windows(x.shape[1:3], kernel, **options)
    dy = calls.normal(len(x), *(output if output and limit(*output) else (2, 1)), len(w))
    if output:
        limit(len(w), *kernel, x.shape[3])
    elif windows(x.shape[1:3], kernel, **options) == dy.shape[1:3]:
        raise Skip
    options["kernel_size"] = kernel
    return lambda: ops.conv2d_weight_grad(x, dy, **options), output and (
        lambda: oracles.conv2d_weight_grad(x, dy, **options)
    )


def block(calls):
    """What the three operations on blocks share."""
    x, w, conv, output = convolution(calls)
    if output is None or not limit(len(x), *output, len(w)):
        raise Skip  # as for conv2d
    pool, size = pooled(calls, output)
    if size and not limit(len(x), *size, len(w)):
        size = None
    own = {**conv, **{name if name == "window" else f"pool_{name}": value for name, value in pool.items()}}
    return x, w, conv, output, pool, own, size


def conv2d_relu_pool(calls):
    x, w, conv, _, pool, own, size = block(calls)
    expected = size and (lambda: oracles.max_pool2d(oracles.conv2d(x, w, **conv, relu=True), **pool)[0])
    return lambda: ops.conv2d_relu_pool(x, w, None, **own)[0], expected


def unpool_conv_transpose2d(calls):
    x, w, conv, output, pool, own, size = block(calls)
    y, switches = signal(calls, output, size, pool, len(x), len(w))
    back = {"output_size": x.shape[1:3]}

    def expected():
        maps = oracles.max_unpool2d(y, switches, **pool, output_size=output)
        return oracles.conv_transpose2d(np.maximum(maps, 0), w, **conv, **back)

    return lambda: ops.unpool_conv_transpose2d(y, switches, w, **own, **back, rectify=True), size and expected


def unpool_conv2d_weight_grad(calls):
    x, w, conv, output, pool, own, size = block(calls)
    dy, switches = signal(calls, output, size, pool, len(x), len(w))
    kernel = {"kernel_size": w.shape[1:3]}

    def expected():
        maps = oracles.max_unpool2d(dy, switches, **pool, output_size=output)
        return oracles.conv2d_weight_grad(x, maps, **conv, **kernel)

    return lambda: ops.unpool_conv2d_weight_grad(x, dy, switches, **own, **kernel), size and expected


def conv2d_bias_grad(calls):
    dy = calls.normal(*calls.shape())
    return lambda: ops.conv2d_bias_grad(dy), lambda: dy.astype(np.float64).sum((0, 1, 2))
