"""Fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ...backends import Array
from .. import dense
from ..record import Record
from ..span import Shape, Span
from .base import Product, require_positive
from .stage import Rectified
from .weighted import Weighted, WeightedSpec


@dataclass(frozen=True)
class FullyConnectedSpec(WeightedSpec):
    """`units` that see all of the input."""

    kind: ClassVar[str] = "fc"
    units: int

    def output_shape(self, shape: Shape) -> Shape:
        require_positive(self.name, "units", self.units)
        return (self.units,)

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        down, across = super().spans(shape)
        return replace(down, whole=len(shape) == 3), replace(across, whole=len(shape) == 3)

    def weight_shape(self, shape: Shape) -> Shape:
        return (self.units, math.prod(shape))

    def scaled(self, factor: float) -> FullyConnectedSpec:
        return replace(self, units=max(1, round(self.units * factor)))


class FullyConnected(Weighted):
    """x W^T + b with weight (out, in); an image-like input is flattened in NHWC order."""

    spec_type = FullyConnectedSpec
    fusions: ClassVar = {("relu",): Rectified}

    @property
    def product(self) -> Product:
        """Of one pixel."""
        units, inputs = self.parameter_shapes["weight"]
        return Product((1, 1, inputs), (units, 1, 1, inputs), (1, 1), (0, 0))

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        return dense.forward(x, self.filters, self.bias, relu=relu, **self.arithmetic)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return dense.data_grad(signal, self.filters, **self.arithmetic).reshape(-1, *self.input_shape)

    def weight_grad(self, dy: Array, x: Array, out: Array) -> None:
        dense.weight_grad(dy, x, out=out, **self.arithmetic)
