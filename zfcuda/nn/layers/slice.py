"""Some of the channels, such as the half that goes through a block of ShuffleNet V2 (Ma et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ... import ops
from ...backends import Array, array_module, resolve
from ..record import Record
from ..span import Shape
from .base import Layer, LayerSpec, require_flat_or_map


@dataclass(frozen=True)
class SliceSpec(LayerSpec):
    """The channels (or units) [start, stop) of its input."""

    kind: ClassVar[str] = "slice"
    ends_block: ClassVar[bool] = False
    start: int
    stop: int

    def output_shape(self, shape: Shape) -> Shape:
        require_flat_or_map(self.name, shape)
        if not 0 <= self.start < self.stop <= shape[-1]:
            raise ValueError(
                f"{self.name}: [start, stop) must be some of the {shape[-1]} channels, got [{self.start}, {self.stop})"
            )
        return (*shape[:-1], self.stop - self.start)


class Slice(Layer):
    """On the way back nothing arrives at the other channels."""

    spec_type = SliceSpec
    on_windows = True
    start: int
    stop: int

    def forward(self, x: Array) -> Array:
        backend, _ = resolve(x=x)
        channels = self.stop - self.start
        y = backend.empty((*x.shape[:-1], channels), x.dtype)
        return ops.copy_channels(x, y, source=self.start, channels=channels)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        xp: Any = array_module(signal)
        dx = xp.zeros((*signal.shape[:-1], self.input_shape[-1]), signal.dtype)
        return ops.copy_channels(signal, dx, target=self.start)
