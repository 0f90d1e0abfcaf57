"""Convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ... import ops
from ...backends import Array
from ...pairs import IntPair, as_pair
from ..record import Record
from ..span import Shape, Span, window_spans
from ..window import Windows
from .base import Product, require_positive
from .block import Block
from .stage import Rectified
from .weighted import Weighted, WeightedSpec


@dataclass(frozen=True)
class ConvSpec(WeightedSpec):
    """`maps` filters of `kernel` (int or (height, width)) over all input channels."""

    kind: ClassVar[str] = "conv"
    maps: int
    kernel: IntPair
    stride: IntPair = 1
    padding: IntPair = 0

    def output_shape(self, shape: Shape) -> Shape:
        require_positive(self.name, "maps", self.maps)
        down, across = self.spans(shape)
        return (down.outputs, across.outputs, self.maps)

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        return window_spans(self.name, shape, self.kernel, self.stride, self.padding)

    def weight_shape(self, shape: Shape) -> Shape:
        return (self.maps, *as_pair(self.kernel), shape[2])

    def scaled(self, factor: float) -> ConvSpec:
        return replace(self, maps=max(1, round(self.maps * factor)))


class Conv(Weighted):
    """Convolution with bias: weight (K,R,S,C), bias (K,)."""

    spec_type = ConvSpec
    on_windows = True
    fusions: ClassVar = {("relu", "pool"): Block, ("relu",): Rectified}
    stride: IntPair
    padding: IntPair

    @property
    def kernel_size(self) -> tuple[int, int]:
        return self.spans[0].kernel, self.spans[1].kernel

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    @property
    def product(self) -> Product:
        filters = self.parameter_shapes["weight"]
        return Product(self.input_shape, filters, as_pair(self.stride), as_pair(self.padding))

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        return ops.conv2d(x, self.filters, self.bias, relu=relu, **self.geometry, **self.arithmetic)

    def forward_padded(self, x: Array, *, relu: bool = False) -> Array:
        return ops.conv2d(x, self.filters, self.bias, relu=relu, stride=self.stride, **self.arithmetic)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        size = self.input_size
        return ops.conv_transpose2d(signal, self.filters, output_size=size, **self.geometry, **self.arithmetic)

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        size = windows.reach(self.spans)
        signal = ops.conv_transpose2d(
            windows.signal, self.filters, stride=self.stride, output_size=size, **self.arithmetic
        )
        return windows.moved(self.spans, signal)

    def weight_grad(self, dy: Array, x: Array, out: Array) -> None:
        ops.conv2d_weight_grad(x, dy, kernel_size=self.kernel_size, out=out, **self.geometry, **self.arithmetic)
