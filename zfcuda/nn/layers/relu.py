"""ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ... import ops
from ...backends import Array
from ..record import Record, Training
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class ReLUSpec(LayerSpec):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"


class ReLU(Layer):
    spec_type = ReLUSpec
    on_windows = True
    overwrites = True

    def forward(self, x: Array) -> Array:
        return ops.relu(x)

    def reads(self, rule: str) -> set[str]:
        return set() if rule == "deconvnet" else {"y"}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        """deconvnet: rectifies the signal; gradient: masks it where the forward output y is 0; guided: both."""
        if rule == "deconvnet":
            return ops.relu(signal)
        masked = ops.relu_grad(signal, record["y"])
        return masked if rule == "gradient" else ops.relu(masked, out=masked)

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        return [ops.relu_grad(dy, record["y"], out=dy)]
