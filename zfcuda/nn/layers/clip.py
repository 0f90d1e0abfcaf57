"""Clipped activations, such as the ReLU6 of MobileNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ... import ops
from ...backends import Array
from ..record import Record
from ..span import Shape
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class ClipSpec(LayerSpec):
    """min(max(x, low), high)."""

    kind: ClassVar[str] = "clip"
    low: float = 0.0
    high: float = 6.0

    def output_shape(self, shape: Shape) -> Shape:
        if not self.low < self.high:
            raise ValueError(f"{self.name}: low must be below high, got {self.low} and {self.high}")
        return shape


class Clip(Layer):
    """A rectifier: the deconvnet does not clip the signal above, but keeps what is positive."""

    spec_type = ClipSpec
    on_windows = True
    low: float
    high: float

    def forward(self, x: Array) -> Array:
        return ops.clip(x, self.low, self.high)

    def reads(self, rule: str) -> set[str]:
        return set() if rule == "deconvnet" else {"y"}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        if rule == "deconvnet":
            return ops.relu(signal)
        # Of y as of x: inside the bounds they are the same, and outside y is one of them.
        masked = ops.clip_grad(signal, record["y"], self.low, self.high)
        return masked if rule == "gradient" else ops.relu(masked, out=masked)
