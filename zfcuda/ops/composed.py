"""Grouped and dilated convolutions, composed of dense ones: groups are convolutions of their channels, and a dilated
filter is one with zeros between its cells."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backends import Array, Backend
from ..pairs import IntPair, check_pair
from .arguments import check_output
from .channels import copy_channels

Pair = tuple[int, int]


@dataclass(frozen=True)
class Composition:
    """What a convolution is besides a dense one."""

    groups: int
    dilation: Pair

    @classmethod
    def of(cls, groups: int, dilation: IntPair) -> Composition | None:
        """None for a dense convolution. ValueError and TypeError for what is none."""
        if type(groups) is int and groups == 1 and type(dilation) is int and dilation == 1:
            return None  # nearly always
        apart = check_pair("dilation", dilation)
        if min(apart) < 1:
            raise ValueError(f"dilation must be at least 1, got {dilation!r}")
        if isinstance(groups, bool) or operator.index(groups) < 1:
            raise ValueError(f"groups must be at least 1, got {groups!r}")
        return None if groups == 1 and apart == (1, 1) else cls(int(groups), apart)

    def check_channels(self, x: int, w: int, k: int) -> None:
        """Of x and of a filter, and the number of filters."""
        if w * self.groups != x:
            raise ValueError(
                f"w has {w} input channels (its last axis), and groups is {self.groups}, but x has {x} channels"
            )
        if k % self.groups:
            raise ValueError(f"groups must divide the number of filters, got {self.groups} for {k}")

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

    def gathered(self, dw: Array) -> Array:
        """Of the gradient of such filters, what is that of their cells."""
        return dw[:, :: self.dilation[0], :: self.dilation[1]]

    def split(self, backend: Backend, x: Array) -> list[Array]:
        """The channels (the last axis) of each group."""
        if self.groups == 1:
            return [x]
        count = x.shape[-1] // self.groups
        parts = [backend.empty((*x.shape[:-1], count), x.dtype) for _ in range(self.groups)]
        return [copy_channels(x, part, source=i * count, channels=count) for i, part in enumerate(parts)]

    def of_group(self, filters: Array | None, group: int) -> Any:
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
