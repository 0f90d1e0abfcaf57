"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ... import ops
from ...backends import Array
from ...pairs import IntPair, Padding, as_sides
from ..record import Record
from ..span import Shape, Span, window_spans
from ..window import Windows
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class AvgPoolSpec(LayerSpec):
    """The mean of each `window` (int or (height, width)) of each map, at `stride` (None: the window's size); a window
    of None is the whole map. padding, ceil_mode and count_include_pad: as in `ops.avg_pool2d`."""

    kind: ClassVar[str] = "avgpool"
    window: IntPair | None = None
    stride: IntPair | None = None
    padding: Padding = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        down, across = self.spans(shape)
        return (down.outputs, across.outputs, shape[2])

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        window = shape[:2] if self.window is None and len(shape) == 3 else self.window or 1
        stride = window if self.stride is None else self.stride
        spans = window_spans(self.name, shape, window, stride, self.padding, ceil_mode=self.ceil_mode)
        if self.window is None:
            return Span(spans[0].size, whole=True), Span(spans[1].size, whole=True)
        return spans


class AvgPool(Layer):
    """On the way back a signal spreads evenly over its window."""

    spec_type = AvgPoolSpec
    window: IntPair | None
    stride: IntPair | None
    padding: Padding
    ceil_mode: bool
    count_include_pad: bool

    @property
    def on_windows(self) -> bool:  # type: ignore[override]
        """Where each window divides by its size: none overhangs, and padding counts or is not there."""
        if self.window is None:
            return False
        within = all(span.start(span.outputs - 1) + span.extent <= span.padded - span.padding for span in self.spans)
        return within and (self.count_include_pad or as_sides(self.padding) == ((0, 0), (0, 0)))

    @property
    def _window(self) -> dict[str, Any]:
        window = self.input_size if self.window is None else self.window
        return {"window": window, "stride": window if self.stride is None else self.stride}

    @property
    def geometry(self) -> dict[str, Any]:
        at_edges = {"ceil_mode": self.ceil_mode, "count_include_pad": self.count_include_pad}
        return self._window | {"padding": self.padding} | at_edges

    def forward(self, x: Array) -> Array:
        return ops.avg_pool2d(x, **self.geometry)

    def forward_padded(self, x: Array) -> Array:
        return ops.avg_pool2d(x, **self._window)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return ops.avg_pool2d_grad(signal, output_size=self.input_size, **self.geometry)

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        size = windows.reach(self.spans)
        signal = ops.avg_pool2d_grad(windows.signal, output_size=size, **self._window)
        return replace(windows.moved(self.spans, signal), single=False)
