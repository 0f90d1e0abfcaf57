"""Random calls of the pools."""

import numpy as np

from tests import oracles
from zfcuda import ops

from .draws import EXTREME_SHARE, LARGEST_STEP, Skip, padding_of, windows


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


def signal(calls, output, size, pool, n, channels):
    """A pooled map and its switches."""
    if size is None:
        return calls.normal(n, 2, 1, channels), np.zeros((n, 2, 1, channels), np.uint8)
    return oracles.max_pool2d(calls.normal(n, *output, channels), **pool)


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
