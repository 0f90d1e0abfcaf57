"""Random calls of normalisations, rectifiers and channels."""

import numpy as np

from tests import oracles
from zfcuda import backends, ops

from .draws import EXTREME_SHARE


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
