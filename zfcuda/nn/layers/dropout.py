"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ... import ops
from ...backends import Array, array_module
from ..record import Record, Training
from ..span import Shape
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class DropoutSpec(LayerSpec):
    """Zeroes each value with this probability, in training only."""

    kind: ClassVar[str] = "dropout"
    ends_block: ClassVar[bool] = False
    probability: float = 0.5

    def output_shape(self, shape: Shape) -> Shape:
        if not 0 <= self.probability < 1:
            raise ValueError(f"{self.name}: probability must be in [0, 1), got {self.probability}")
        return shape


class Dropout(Layer):
    """Active in the training pass only, on whose way back its mask is computed again; at test time the identity."""

    spec_type = DropoutSpec
    on_windows = True
    overwrites = True
    probability: float

    def forward(self, x: Array) -> Array:
        return x

    def run(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        (x,) = inputs
        return {"x": x, "y": x if training is None else self._drop(x, training)}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        return signal

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        return [self._drop(dy, training, out=dy)]

    def _drop(self, x: Array, training: Training, out: Array | None = None) -> Array:
        made_of: dict[str, Any] = {
            "probability": self.probability,
            "seed": training.seed,
            "offset": training.offset(self.index),
        }
        first = 0 if training.part is None else training.part.first
        if first == 0:
            return ops.dropout(x, **made_of, out=out)
        # The mask depends on an element's place in the whole batch: the images before are masked for nothing.
        batch = array_module(x).zeros((first + len(x), *x.shape[1:]), x.dtype)
        batch[first:] = x
        return ops.dropout(batch, **made_of, out=batch)[first:]
