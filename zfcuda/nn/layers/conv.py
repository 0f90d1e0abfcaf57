"""Convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ... import ops
from ...backends import Array
from ...pairs import IntPair, Padding, as_pair, as_sides
from ..record import Record
from ..span import Shape, Span, window_spans
from ..window import Windows
from .base import Product, require_positive
from .block import Block
from .normalised import Normalised
from .stage import Rectified
from .weighted import Weighted, WeightedSpec


@dataclass(frozen=True)
class ConvSpec(WeightedSpec):
    """`maps` filters of `kernel` (int or (height, width)), each over the input channels of its group (of `groups`),
    with `dilation` from one of its cells to the next. padding: int, (height, width) or (top, bottom, left, right).

    As many groups as input channels are a depthwise convolution; `maps` is then a multiple of them, the channel
    multiplier."""

    kind: ClassVar[str] = "conv"
    maps: int
    kernel: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    groups: int = 1
    dilation: IntPair = 1

    def output_shape(self, shape: Shape) -> Shape:
        require_positive(self.name, "maps", self.maps)
        require_positive(self.name, "groups", self.groups)
        if shape[-1] % self.groups or self.maps % self.groups:
            raise ValueError(
                f"{self.name}: groups must divide input channels and maps, got {self.groups} for {shape[-1]} channels "
                f"and {self.maps} maps"
            )
        down, across = self.spans(shape)
        return (down.outputs, across.outputs, self.maps)

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        return window_spans(self.name, shape, self.kernel, self.stride, self.padding, dilation=self.dilation)

    def weight_shape(self, shape: Shape) -> Shape:
        return (self.maps, *as_pair(self.kernel), shape[2] // self.groups)

    def scaled(self, factor: float) -> ConvSpec:
        return replace(self, maps=max(1, round(self.maps * factor / self.groups)) * self.groups)


class Conv(Weighted):
    """Convolution: weight (K,R,S,C / groups), bias (K,)."""

    spec_type = ConvSpec
    on_windows = True
    fusions: ClassVar = {
        ("batchnorm", "relu", "pool"): Normalised,
        ("batchnorm", "relu"): Normalised,
        ("batchnorm",): Normalised,
        ("relu", "pool"): Block,
        ("relu",): Rectified,
    }
    stride: IntPair
    padding: Padding
    groups: int
    dilation: IntPair

    @property
    def kernel_size(self) -> tuple[int, int]:
        return self.spans[0].kernel, self.spans[1].kernel

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, **self.sparsity}

    @property
    def sparsity(self) -> dict[str, Any]:
        """Which of its window's values a filter reads, where that is not all."""
        dense = self.groups == 1 and as_pair(self.dilation) == (1, 1)
        return {} if dense else {"groups": self.groups, "dilation": self.dilation}

    @property
    def is_depthwise(self) -> bool:
        return 1 < self.groups == self.input_shape[-1]

    @property
    def adds(self) -> bool:
        return not self.is_depthwise  # of which the operation is another one

    @property
    def writes_apart(self) -> bool:
        return not self.is_depthwise

    @property
    def product(self) -> Product | None:
        (top, bottom), (left, right) = as_sides(self.padding)
        if self.sparsity or top != bottom or left != right:
            return None
        filters = self.parameter_shapes["weight"]
        return Product(self.input_shape, filters, as_pair(self.stride), (top, left))

    def folded(self, norm: Any) -> Conv:
        """The convolution that does the normalisation behind it as well, at test time."""
        return FoldedConv(self, norm)

    @property
    def operands(self) -> dict[str, Any]:
        """What the forward operation reads besides the image."""
        return {"w": self.filters, "b": self.bias}

    def forward(self, x: Array, *, relu: bool = False, add: Array | None = None, out: Array | None = None) -> Array:
        return ops.conv2d(x, relu=relu, add=add, out=out, **self.operands, **self.geometry, **self.arithmetic)

    def forward_padded(self, x: Array, *, relu: bool = False) -> Array:
        return ops.conv2d(x, relu=relu, stride=self.stride, **self.operands, **self.sparsity, **self.arithmetic)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        size = self.input_size
        return ops.conv_transpose2d(signal, self.filters, output_size=size, **self.geometry, **self.arithmetic)

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        size = windows.reach(self.spans)
        here: dict[str, Any] = {"stride": self.stride, "output_size": size}
        signal = ops.conv_transpose2d(windows.signal, self.filters, **here, **self.sparsity, **self.arithmetic)
        return windows.moved(self.spans, signal)

    def weight_grad(self, dy: Array, x: Array, out: Array) -> None:
        ops.conv2d_weight_grad(x, dy, kernel_size=self.kernel_size, out=out, **self.geometry, **self.arithmetic)


class FoldedConv(Conv):
    """A convolution and its batch normalisation as one: the arrays of those two, read anew at every call.

    Forward, the operation scales what the convolution's own filters give; its filters here are scaled themselves.
    """

    def __init__(self, conv: Conv, norm: Any):
        self.conv, self.norm = conv, norm
        vars(self).update({name: value for name, value in vars(conv).items() if name not in conv.parameter_shapes})
        self.name = norm.name

    @property
    def precision(self) -> str:  # type: ignore[override]
        return self.conv.precision

    def hold(self) -> None:
        self.conv.hold()

    def release(self) -> None:
        self.conv.release()

    @property
    def operands(self) -> dict[str, Any]:
        if self.is_depthwise:  # an operation that does not scale
            return super().operands
        return {"w": self.conv.filters, "b": self.bias, "scale": self.norm.scale}

    @property
    def weight(self) -> Array:  # type: ignore[override]
        return self.conv.weight * self.norm.scale[:, None, None, None]

    @property
    def bias(self) -> Array:  # type: ignore[override]
        bias, mean = self.conv.bias, self.norm.running_mean
        return self.norm.bias + ((0 if bias is None else bias) - mean) * self.norm.scale
