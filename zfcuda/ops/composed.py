"""Convolutions and pools of geometries that the kernels do not take as they are, composed of those that they do.

Groups are convolutions of their channels; a dilated filter is one with zeros between its cells; a padding that differs
from side to side, and the windows of a pool that reach beyond it, are of a padded copy.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..pairs import IntPair, Padding, check_padding, check_pair
from .arguments import check_output
from .channels import copy_channels
from .window import cut_windows

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class Composition:
    """A convolution of dense ones: around, the padding that a copy of x gets; even, that of the dense ones."""

    around: Sides
    even: Pair
    groups: int
    dilation: Pair

    @classmethod
    def of(cls, padding: Padding, groups: int, dilation: IntPair) -> Composition | None:
        """None for what is a dense convolution as it is. ValueError and TypeError for what is none."""
        if type(padding) is int and type(groups) is int and groups == 1 and type(dilation) is int and dilation == 1:
            return None  # nearly always
        top, bottom, left, right = check_padding("padding", padding)
        if min(top, bottom, left, right) < 0:
            raise ValueError(f"padding must not be negative, got {padding!r}")
        apart = check_pair("dilation", dilation)
        if min(apart) < 1:
            raise ValueError(f"dilation must be at least 1, got {dilation!r}")
        if isinstance(groups, bool) or operator.index(groups) < 1:
            raise ValueError(f"groups must be at least 1, got {groups!r}")
        is_even = top == bottom and left == right
        if is_even and groups == 1 and apart == (1, 1):
            return None
        around = (0, 0, 0, 0) if is_even else (top, bottom, left, right)
        return cls(around, (top, left) if is_even else (0, 0), int(groups), apart)

    def check_channels(self, x: int, w: int, k: int) -> None:
        """Of x and of a filter, and the number of filters."""
        if w * self.groups != x:
            raise ValueError(
                f"w has {w} input channels (its last axis), and groups is {self.groups}, but x has {x} channels"
            )
        if k % self.groups:
            raise ValueError(f"groups must divide the number of filters, got {self.groups} for {k}")

    def padded_size(self, height: int, width: int) -> Pair:
        top, bottom, left, right = self.around
        return height + top + bottom, width + left + right

    def padded(self, backend: Backend, x: Array) -> Array:
        return padded(backend, x, self.around) if any(self.around) else x

    def unpadded(self, backend: Backend, x: Array, size: Pair) -> Array:
        """The inverse, to maps of this size."""
        return cropped(backend, x, self.around[0], self.around[2], size) if any(self.around) else x

    def extent(self, kernel: Pair) -> Pair:
        """Of a filter with its zeros."""
        return (kernel[0] - 1) * self.dilation[0] + 1, (kernel[1] - 1) * self.dilation[1] + 1

    def spread(self, backend: Backend, w: Array) -> Array:
        """The filters (K,R,S,C) with zeros between their cells."""
        if self.dilation == (1, 1):
            return w
        k, r, s, c = w.shape
        filters: Any = backend.xp.zeros((k, *self.extent((r, s)), c), w.dtype)
        filters[:, :: self.dilation[0], :: self.dilation[1]] = w
        return filters

    def gathered(self, backend: Backend, dw: Array) -> Array:
        """Of the gradient of such filters, what is that of their cells."""
        return backend.xp.ascontiguousarray(dw[:, :: self.dilation[0], :: self.dilation[1]])

    def split(self, backend: Backend, x: Array) -> list[Array]:
        """The channels (the last axis) of each group."""
        count = x.shape[-1] // self.groups
        if self.groups == 1:
            return [x]
        parts = [backend.empty((*x.shape[:-1], count), x.dtype) for _ in range(self.groups)]
        return [copy_channels(x, part, source=i * count, channels=count) for i, part in enumerate(parts)]

    def of_group(self, filters: Array | None, group: int) -> Array | None:
        """The filters (or biases) of one group."""
        if filters is None:
            return None
        count = len(filters) // self.groups
        return filters[group * count : (group + 1) * count]


def joined(backend: Backend, parts: Sequence[Array], out: Array | None, inputs: tuple[Array | None, ...]) -> Array:
    """The channels of all parts side by side, in `out` or a new array."""
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
    result = check_output(backend, out, shape, inputs, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        copy_channels(part, result, target=start)
        start += part.shape[-1]
    return result


def padded(backend: Backend, x: Array, padding: Sides, value: float = 0.0) -> Array:
    """x (N,H,W,C) with rows and columns of this value around it."""
    top, bottom, left, right = padding
    n, height, width, channels = x.shape
    size = height + top + bottom, width + left + right
    if value == 0:
        return cropped(backend, x, -top, -left, size)
    around: Any = backend.xp.full((n, *size, channels), value, x.dtype)
    around[:, top : top + height, left : left + width] = x
    return around


def cropped(backend: Backend, x: Array, top: int, left: int, size: Pair) -> Array:
    """Rows and columns of x (N,H,W,C) from (top, left) on, zero where there are none."""
    corners = backend.xp.asarray(np.tile(np.array([[top, left]], np.int32), (len(x), 1)))
    return cut_windows(x, corners, size=size)
