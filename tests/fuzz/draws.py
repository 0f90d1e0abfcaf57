"""What the arguments of random calls are drawn from, and which sizes a convolution or a pool allows."""

import numpy as np

from tests import oracles

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
