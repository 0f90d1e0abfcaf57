"""Maps as one row of values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ...backends import Array
from ..record import Record
from ..span import Shape, Span
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class FlattenSpec(LayerSpec):
    """(H, W, C) -> (H * W * C,), in this order."""

    kind: ClassVar[str] = "flatten"
    ends_block: ClassVar[bool] = False

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        down, across = super().spans(shape)
        return replace(down, whole=len(shape) == 3), replace(across, whole=len(shape) == 3)


class Flatten(Layer):
    spec_type = FlattenSpec

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return signal.reshape(-1, *self.input_shape)
