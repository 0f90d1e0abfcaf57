"""Channels in another order, such as the shuffle of ShuffleNet (Zhang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import ops
from ...backends import Array
from ...brief import Brief
from ..record import Record
from ..span import Shape
from .base import Layer, LayerSpec, require_flat_or_map


@dataclass(frozen=True, repr=False)
class PermuteSpec(Brief, LayerSpec):
    """Channel i of the output is channel order[i] of the input."""

    kind: ClassVar[str] = "permute"
    order: tuple[int, ...]

    def output_shape(self, shape: Shape) -> Shape:
        require_flat_or_map(self.name, shape)
        if sorted(self.order) != list(range(shape[-1])):
            raise ValueError(f"{self.name}: order must name each of the {shape[-1]} channels once, got {self.order}")
        return shape


class Permute(Layer):
    spec_type = PermuteSpec
    on_windows = True
    order: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return ops.permute_channels(x, self.order)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return ops.permute_channels(signal, tuple(np.argsort(self.order).tolist()))
