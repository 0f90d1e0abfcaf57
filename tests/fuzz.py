"""Random calls of every operation, extreme sizes among ordinary ones: `python -m tests.fuzz cpu --calls 2000`.

Each call must end in the result of the oracle, or in a ValueError or TypeError with a message. A crash takes this
process with it, which is why tests/kernels/test_fuzz.py runs it in one of its own. Seeded: the same numbers, the same
calls.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from tests import oracles
from tests.accuracy import assert_close
from zfcuda import backends, ops

EXTREMES = (0, -1, 2**15, 2**16 + 1, 2**24, 2**24 + 1, 2**26, 2**30, 2**31 - 1, 2**31, 2**40, 2**63, True)
LARGEST_STEP = 2**24  # of a stride or padding
MOST_ELEMENTS = 200_000  # of an array that a call may make here
EXTREME_SHARE = 0.08


class Calls:
    """Draws the arguments of one call after another."""

    def __init__(self, seed, operation):
        self.rng = np.random.default_rng([seed, *operation.encode()])

    def size(self, least, most):
        if self.rng.random() < EXTREME_SHARE:
            return EXTREMES[self.rng.integers(len(EXTREMES))]
        return int(self.rng.integers(least, most + 1))

    def pair(self, least, most):
        return self.size(least, most), self.size(least, most)

    def normal(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def shape(self, axes=4):
        return tuple(int(v) for v in self.rng.integers(1, 9, axes))

    def any_shape(self):
        return self.shape(int(self.rng.integers(1, 5)))


class Skip(Exception):
    """The call is allowed, but would make too large an array to compare."""


def padding_of(calls, most):
    return (calls.pair(0, most) + calls.pair(0, most)) if calls.rng.random() < 0.3 else calls.pair(0, most)


def windows(size, window, stride, padding, dilation=(1, 1), groups=1, ceil_mode=False):
    """The output's size, where all of these are plausible; None where the call must be refused."""
    numbers = (*window, *stride, *padding, *dilation, groups)
    if any(isinstance(v, bool) for v in numbers) or min(*window, *stride, *dilation) < 1 or min(padding) < 0:
        return None
    if max(*stride, *padding, *dilation) > LARGEST_STEP or groups not in range(1, 9):
        return None
    output = oracles.output_size(size, window, stride, padding, dilation, ceil_mode)
    if min(output) < 1:
        return None
    top, bottom, left, right = oracles.sides(padding)
    if (size[0] + top + bottom) * (size[1] + left + right) > MOST_ELEMENTS:
        raise Skip  # the oracles pad
    return output


def limit(*shape):
    """Skips a call that would make this array, unless no array may be so large."""
    elements = 1
    for v in shape:
        elements *= int(v)
    if MOST_ELEMENTS < elements < 2**32:
        raise Skip
    return elements <= MOST_ELEMENTS


def pooled(calls, size):
    """The options of a pool over maps of this size, and the pooled size (None: must be refused)."""
    pool = {"window": calls.pair(1, 4), "stride": calls.pair(1, 4), "padding": padding_of(calls, 2)}
    pool["ceil_mode"] = bool(calls.rng.random() < 0.3)
    output = windows(size, **pool)
    if output:
        (height, width), (top, bottom, left, right) = pool["window"], oracles.sides(pool["padding"])
        if height * width > 256 or max(top, bottom) >= height or max(left, right) >= width:
            output = None
    return pool, output


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


# Each returns the call, and what it must yield: None if it must be refused.


def conv2d(calls):
    x, w, options, output = convolution(calls)
    b = calls.normal(w.shape[0])
    if calls.rng.random() < 0.4:
        options["scale"] = calls.normal(w.shape[0])
    if output and not limit(len(x), *output, len(w)):
        output = None
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
    kernel = tuple(int(v) for v in calls.rng.integers(1, 5, 2))
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


def signal(calls, output, size, pool, n, channels):
    """A pooled map and its switches."""
    if size is None:
        return calls.normal(n, 2, 1, channels), np.zeros((n, 2, 1, channels), np.uint8)
    return oracles.max_pool2d(calls.normal(n, *output, channels), **pool)


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


def max_pool2d(calls):
    x = calls.normal(*calls.shape())
    pool, output = pooled(calls, x.shape[1:3])
    return lambda: ops.max_pool2d(x, **pool)[0], output and (lambda: oracles.max_pool2d(x, **pool)[0])


def max_unpool2d(calls):
    n, h, w, c = calls.shape()
    pool, output = pooled(calls, (h, w))
    y, switches = signal(calls, (h, w), output, pool, n, c)
    back = {"output_size": (h, w)}
    if output is None and windows((h, w), **pool) == (2, 1):
        raise Skip
    expected = output and (lambda: oracles.max_unpool2d(y, switches, **pool, **back))
    return lambda: ops.max_unpool2d(y, switches, **pool, **back), expected


def spatial_max(calls):
    x = calls.normal(*calls.shape())
    return lambda: ops.spatial_max(x)[0], lambda: x.max((1, 2))


def conv2d_bias_grad(calls):
    dy = calls.normal(*calls.shape())
    return lambda: ops.conv2d_bias_grad(dy), lambda: dy.astype(np.float64).sum((0, 1, 2))


def averaged(calls, size):
    """The options of an average pool over maps of this size, and whether they must be refused."""
    window, stride = calls.pair(1, 4), calls.pair(1, 4)
    sides = tuple(calls.size(0, 2) for _ in range(4))
    numbers = (*window, *stride, *sides)
    good = not any(isinstance(v, bool) for v in numbers) and min(*window, *stride) >= 1 and min(sides) >= 0
    for length, cells, before, after in zip(size, window, sides[::2], sides[1::2], strict=True):
        good = good and max(before, after) < cells <= length + before + after
    good = good and max(*stride, *sides) <= LARGEST_STEP
    flags = (bool(flag) for flag in calls.rng.integers(0, 2, 2))
    names = ("window", "stride", "padding", "ceil_mode", "count_include_pad")
    return dict(zip(names, (window, stride, sides, *flags), strict=True)), good


def avg_pool2d(calls):
    x = calls.normal(*calls.shape())
    options, good = averaged(calls, x.shape[1:3])
    return lambda: ops.avg_pool2d(x, **options), good and (lambda: oracles.avg_pool2d(x, **options))


def avg_pool2d_grad(calls):
    x = calls.normal(*calls.shape())
    options, good = averaged(calls, x.shape[1:3])
    if not good:
        raise Skip  # as for avg_pool2d
    dy = calls.normal(*oracles.avg_pool2d(x, **options).shape)
    options["output_size"] = x.shape[1:3]
    if calls.rng.random() < EXTREME_SHARE:
        options["output_size"], good = (0, 2**31), False
    return lambda: ops.avg_pool2d_grad(dy, **options), good and (lambda: oracles.avg_pool2d_grad(dy, **options))


def normalised(calls):
    """x (..., C) of two axes or more, and mean, variance, weight and bias."""
    x = calls.normal(*calls.shape(int(calls.rng.integers(2, 5))))
    mean, variance, weight, bias = calls.normal(4, x.shape[-1])
    return x, mean, np.abs(variance) + np.float32(0.1), weight, bias


def batch_norm(calls):
    arguments = normalised(calls)
    return lambda: ops.batch_norm(*arguments), lambda: oracles.batch_norm(*arguments)


def batch_norm_statistics(calls):
    x = normalised(calls)[0]
    return lambda: ops.batch_norm_statistics(x)[1] + 1, lambda: oracles.batch_norm_statistics(x)[1] + 1


def batch_norm_grad(calls):
    x, mean, variance, weight, _ = normalised(calls)
    arguments = calls.normal(*x.shape), x, mean, variance, weight
    return lambda: ops.batch_norm_grad(*arguments)[0], lambda: oracles.batch_norm_grad(*arguments)[0]


def add(calls):
    shape = calls.any_shape()
    a, b = calls.normal(*shape), calls.normal(*(shape if calls.rng.random() < 0.9 else (*shape, 2)))
    return lambda: ops.add(a, b), a.shape == b.shape and (lambda: a.astype(np.float64) + b)


def copy_channels(calls):
    x, more = calls.normal(*calls.shape(3)), int(calls.rng.integers(0, 5))
    out = np.zeros((*x.shape[:-1], x.shape[-1] + more), np.float32)
    source, target, channels = calls.size(0, 3), calls.size(0, 3), calls.size(1, 4)
    numbers = source, target, channels
    good = not any(isinstance(v, bool) for v in numbers) and min(source, target) >= 0 and channels >= 1
    good = good and source + channels <= x.shape[-1] and target + channels <= out.shape[-1]

    def expected():
        copied = np.zeros(out.shape)
        copied[..., target : target + channels] = x[..., source : source + channels]
        return copied + 1

    return lambda: ops.copy_channels(x, out, source=source, target=target, channels=channels) + 1, good and expected


def permute_channels(calls):
    x = calls.normal(*calls.any_shape())
    order = calls.rng.permutation(x.shape[-1]).tolist()
    good = calls.rng.random() > EXTREME_SHARE
    if not good:
        order[0] = calls.rng.choice([-1, x.shape[-1], 2**31 - 1])
    return lambda: ops.permute_channels(x, order), good and (lambda: x[..., order])


def leaky_relu(calls):
    x, slope = calls.normal(*calls.any_shape()), float(calls.rng.normal())
    return lambda: ops.leaky_relu(x, slope), lambda: np.where(x > 0, x, slope * x)


def leaky_relu_grad(calls):
    shape, slope = calls.any_shape(), float(calls.rng.normal())
    dy, x = calls.normal(*shape), calls.normal(*shape)
    return lambda: ops.leaky_relu_grad(dy, x, slope), lambda: np.where(x > 0, dy, slope * dy)


def prelu_weight_grad(calls):
    shape = calls.shape(int(calls.rng.integers(2, 5)))
    dy, x, channels = calls.normal(*shape), calls.normal(*shape), calls.size(1, 8)
    good = channels in (1, shape[-1]) and not isinstance(channels, bool)

    def expected():
        each = np.where(x > 0, 0, x.astype(np.float64) * dy).reshape(-1, shape[-1]).sum(0)
        return 10 + (each if channels > 1 or shape[-1] == 1 else each.sum(keepdims=True))

    return lambda: 10 + ops.prelu_weight_grad(dy, x, channels=channels), good and expected


def clip(calls):
    x, low, high = calls.normal(*calls.any_shape()), -0.5, 0.5
    return lambda: ops.clip(x, low, high) + 1, lambda: np.clip(x, low, high) + 1


def clip_grad(calls):
    shape, low, high = calls.any_shape(), -0.5, 0.5
    dy, x = calls.normal(*shape), calls.normal(*shape)
    return lambda: ops.clip_grad(dy, x, low, high) + 1, lambda: np.where((x > low) & (x < high), dy, 0) + 1


def local_response_norm(calls):
    x, size = calls.normal(*calls.any_shape()), calls.size(1, 12)
    good = size >= 1 and not isinstance(size, bool)
    return lambda: ops.local_response_norm(x, size=size), good and (lambda: oracles.local_response_norm(x, size=size))


def local_response_norm_grad(calls):
    shape, size = calls.any_shape(), calls.size(1, 12)
    x, dy = calls.normal(*shape), calls.normal(*shape)
    good = size >= 1 and not isinstance(size, bool)
    return lambda: ops.local_response_norm_grad(dy, x, size=size), good and (
        lambda: oracles.local_response_norm_grad(dy, x, size=size)
    )


def corners_of(calls, count):
    corners = calls.rng.integers(-9, 9, (count, 2))
    extreme = calls.rng.random(corners.shape) < EXTREME_SHARE
    return np.where(extreme, calls.rng.choice([-(2**31), 2**31 - 1, -(2**30)], corners.shape), corners).astype(np.int32)


def cropped(calls, n, c):
    """(h, w), and whether the call must be refused."""
    size = calls.pair(1, 9)
    return size, min(size) >= 1 and not any(isinstance(v, bool) for v in size) and limit(n, *size, c)


def crop_images(calls):
    n, h, w, c = calls.shape()
    images = calls.rng.integers(0, 256, (n, h, w, c), np.uint8)
    corners, flips = corners_of(calls, n), calls.rng.integers(0, 2, n, np.uint8)
    size, good = cropped(calls, n, c)
    return lambda: ops.crop_images(images, None, corners, flips, size=size), good and (
        lambda: oracles.crop_images(images, None, corners.astype(int), flips, size=size)
    )


def cut_windows(calls):
    x, count = calls.normal(*calls.shape()), int(calls.rng.integers(1, 5))
    images = calls.rng.integers(-1, len(x) + 1, count).astype(np.int32)
    corners = corners_of(calls, count)
    size, good = cropped(calls, count, x.shape[3])
    return lambda: ops.cut_windows(x, corners, size=size, images=images), good and (
        lambda: oracles.cut_windows(x, corners.astype(int), size=size, images=images)
    )


def relu(calls):
    x = calls.normal(*calls.any_shape())
    return lambda: ops.relu(x), lambda: np.maximum(x, 0)


def relu_grad(calls):
    shape = calls.any_shape()
    dy, y = calls.normal(*shape), calls.normal(*shape)
    return lambda: ops.relu_grad(dy, y), lambda: np.where(y > 0, dy, 0)


def cast(calls):
    x = calls.normal(*calls.any_shape())
    return lambda: ops.cast(x, backends.BFLOAT16), lambda: x


def dropout(calls):
    x = calls.normal(*calls.shape(2))
    probability, seed, offset = float(calls.rng.choice([0, 0.5, 1, -1])), calls.size(0, 9), calls.size(0, 9)
    options = {"probability": probability, "seed": seed, "offset": offset}
    good = 0 <= probability < 1 and min(seed, offset) >= 0
    return lambda: ops.dropout(x, **options), good and (lambda: oracles.dropout(x, **options))


def softmax(calls):
    logits = calls.normal(*calls.shape(2)) * 100
    return lambda: ops.softmax(logits), lambda: oracles.softmax(logits)


def labelled(calls):
    """Logits and labels, and whether these are in range."""
    logits = calls.normal(*calls.shape(2))
    labels = calls.rng.integers(0, logits.shape[1], len(logits)).astype(np.int32)
    if calls.rng.random() < EXTREME_SHARE:
        labels[0] = calls.rng.choice([-1, logits.shape[1], 2**31 - 1, -(2**31)])
    return logits, labels, bool((labels >= 0).all() and (labels < logits.shape[1]).all())


def softmax_cross_entropy(calls):
    logits, labels, good = labelled(calls)
    return lambda: ops.softmax_cross_entropy(logits, labels)[0], good and (
        lambda: np.asarray(oracles.cross_entropy(logits, labels))
    )


def softmax_cross_entropy_grad(calls):
    probabilities, labels, good = labelled(calls)
    return lambda: ops.softmax_cross_entropy_grad(probabilities, labels), good and (
        lambda: oracles.softmax_cross_entropy_grad(probabilities, labels)
    )


def sgd_step(calls):
    shape = calls.any_shape()
    w, g, v = (calls.normal(*shape) for _ in range(3))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    before = w.copy(), g, v.copy()

    def step():
        ops.sgd_step(w, g, v, **options)
        return w

    return step, lambda: oracles.sgd_step(*before, **options)[0]


def renormalize_filters(calls):
    w = calls.normal(*calls.shape())
    before = w.copy()

    def step():
        ops.renormalize_filters(w, max_rms=0.5)
        return w

    return step, lambda: oracles.renormalize_filters(before, max_rms=0.5)


def check(name, calls):
    """One call."""
    try:
        call, expected = globals()[name](calls)
    except Skip:
        return
    refusal = None
    try:
        result = call()
    except (ValueError, TypeError) as error:
        refusal = str(error)
    if expected:
        assert refusal is None, f"refused: {refusal}"
        oracle = np.asarray(expected())
        if oracle.shape != result.shape or np.abs(result - oracle).max() > 1e-5:  # where terms of 1 cancel
            assert_close(result, oracle, 1e-4)
    else:
        assert refusal is not None, f"not refused: a result of shape {result.shape}"
        assert refusal
        assert "incompatible" not in refusal, refusal  # by pybind11, which names no argument


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=backends.HOST_BACKENDS)
    parser.add_argument("--calls", type=int, default=2000, help="of each operation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with backends.use(options.backend):
        for name in ops.__all__:
            calls = Calls(options.seed, name)
            for number in range(options.calls):
                try:
                    check(name, calls)
                except AssertionError as failure:
                    sys.exit(f"{name}, call {number} of seed {options.seed}: {failure}")


if __name__ == "__main__":
    main()
