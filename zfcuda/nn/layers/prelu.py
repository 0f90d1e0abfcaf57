"""Leaky ReLU whose slopes are learned (He et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import ops
from ...backends import Array
from ..record import Record, Training
from ..span import Shape
from .base import LayerSpec
from .leaky_relu import LeakyRectifier


@dataclass(frozen=True)
class PReLUSpec(LayerSpec):
    """x where it is positive, else weight * x, with a weight for each channel or one for all."""

    kind: ClassVar[str] = "prelu"
    per_channel: bool = True

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape[-1:] if self.per_channel else (1,)}


class PReLU(LeakyRectifier):
    spec_type = PReLUSpec
    per_channel: bool
    weight: Array

    def initialise(self, rng: np.random.Generator, initial: str) -> None:
        self.weight = np.full(self.parameter_shapes["weight"], 0.25, np.float32)

    @property
    def slopes(self) -> Array:
        return self.weight

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        (channels,) = self.parameter_shapes["weight"]
        training.gradients[f"{self.name}.weight"][...] = ops.prelu_weight_grad(dy, record["x"], channels=channels)
        return super().backward(dy, record, training, need_dx)
