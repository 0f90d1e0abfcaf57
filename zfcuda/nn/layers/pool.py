"""Max pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ... import ops
from ...backends import Array, array_module
from ...pairs import IntPair, Padding, as_sides
from ..record import Record, Training
from ..span import Shape, Span, window_spans
from ..window import Origin, Windows
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class MaxPoolSpec(LayerSpec):
    """The maximum of each `window` (int or (height, width)) of each map. ceil_mode: as in `ops.max_pool2d`."""

    kind: ClassVar[str] = "pool"
    window: IntPair = 3
    stride: IntPair = 2
    padding: Padding = 0
    ceil_mode: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        down, across = self.spans(shape)
        return (down.outputs, across.outputs, shape[2])

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        return window_spans(self.name, shape, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode)


class MaxPool(Layer):
    """Max pooling, which remembers by switches where each maximum was: there a signal goes back."""

    spec_type = MaxPoolSpec
    on_windows = True
    border = -np.inf
    window: IntPair
    stride: IntPair
    padding: Padding
    ceil_mode: bool

    @property
    def geometry(self) -> dict[str, Any]:
        geometry = {"window": self.window, "stride": self.stride, "padding": self.padding}
        return geometry | {"ceil_mode": self.ceil_mode}

    @property
    def is_plain(self) -> bool:
        """Whether its windows stay within a padding that is the same on opposite sides."""
        (top, bottom), (left, right) = as_sides(self.padding)
        return not self.ceil_mode and top == bottom and left == right

    def forward(self, x: Array) -> Array:
        return ops.max_pool2d(x, **self.geometry)[0]

    def forward_padded(self, x: Array) -> Array:
        return ops.max_pool2d(x, window=self.window, stride=self.stride)[0]

    def run(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        (x,) = inputs
        y, switches = ops.max_pool2d(x, **self.geometry)
        return {"x": x, "y": y, "switches": switches}

    def reads(self, rule: str) -> set[str]:
        return {"switches"}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return ops.max_unpool2d(signal, record["switches"], output_size=self.input_size, **self.geometry)

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        if windows.single:
            return self._follow(windows, record["switches"])
        size = windows.reach(self.spans)
        signal = ops.max_unpool2d(
            windows.signal, record["switches"], window=self.window, stride=self.stride, output_size=size
        )
        return windows.moved(self.spans, signal)

    def _follow(self, windows: Windows, switches: Array) -> Windows:
        """Unpools one value an image: it stays one value, at the cell that its switch names."""
        n, channels = len(windows.corners), windows.signal.shape[3]
        xp: Any = array_module(windows.signal)
        looked_at = xp.abs(ops.cast(windows.signal, np.float32).reshape(n, channels)).argmax(axis=1)
        offsets = xp.take(switches.reshape(-1), xp.arange(n) * channels + looked_at)
        moved = windows.moved(self.spans, windows.signal)
        moved.corners[:, 0] += offsets // self.spans[1].kernel
        moved.corners[:, 1] += offsets % self.spans[1].kernel
        return replace(moved, single=True, origin=Origin())  # each went its own way
