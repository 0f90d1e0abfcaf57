"""Leaky ReLU (Maas et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ... import ops
from ...backends import Array
from ..record import Record
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class LeakyReLUSpec(LayerSpec):
    """x where it is positive, else slope * x."""

    kind: ClassVar[str] = "leaky_relu"
    slope: float = 0.01


class LeakyRectifier(Layer):
    """What rectifies by a slope, a number or an array: the deconvnet sends the signal through the same function."""

    on_windows = True

    @property
    def slopes(self) -> float | Array:
        raise NotImplementedError

    def forward(self, x: Array) -> Array:
        return ops.leaky_relu(x, self.slopes)

    def reads(self, rule: str) -> set[str]:
        return set() if rule == "deconvnet" else {"x"}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        if rule != "deconvnet":
            signal = ops.leaky_relu_grad(signal, record["x"], self.slopes)
        return signal if rule == "gradient" else ops.leaky_relu(signal, self.slopes)


class LeakyReLU(LeakyRectifier):
    spec_type = LeakyReLUSpec
    slope: float

    @property
    def slopes(self) -> float:
        return self.slope
