"""What convolutions and fully connected layers share: a weight and a bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ... import ops
from ...backends import Array
from ..record import Record, Training
from ..span import Shape
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class WeightedSpec(LayerSpec):
    weighted: ClassVar[bool] = True

    bias: bool = field(default=True, kw_only=True)

    def weight_shape(self, shape: Shape) -> Shape:
        """Filters or units first, from the shape of the layer's input."""
        raise NotImplementedError

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        weight = self.weight_shape(shape)
        return {"weight": weight, "bias": weight[:1]} if self.bias else {"weight": weight}


class Weighted(Layer):
    """`weight` and `bias` (None if the layer has none) are plain float32 arrays, read anew at every call (but see
    `hold`)."""

    weight: Array
    bias: Array | None
    _held: Array | None = None

    def __init__(self, spec: LayerSpec, input_shapes: Sequence[Shape], index: int):
        super().__init__(spec, input_shapes, index)
        self.bias = None  # where the specification has whether there is one

    def initialise(self, rng: np.random.Generator, initial: str) -> None:
        shape = self.parameter_shapes["weight"]
        inputs = math.prod(shape[1:])
        deviation = {"gaussian": 1e-2, "lecun": inputs**-0.5, "he": (2 / inputs) ** 0.5}[initial]
        self.weight = rng.standard_normal(shape, np.float32)
        self.weight *= np.float32(deviation)
        self.bias = np.zeros(self.parameter_shapes["bias"], np.float32) if "bias" in self.parameter_shapes else None

    @property
    def filters(self) -> Array:
        """The weight in the layer's dtype: a copy of it where that is bfloat16."""
        held = self._held
        return self.enter(self.weight) if held is None else held

    def hold(self) -> None:
        self._held = self.filters

    def release(self) -> None:
        self._held = None

    @property
    def arithmetic(self) -> dict[str, Any]:
        """The precision that an operation of the layer is allowed; bfloat16 arrays need no word."""
        return {"precision": "tf32"} if self.precision == "tf32" else {}

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        raise NotImplementedError

    def run_rectified(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        (x,) = inputs
        return {"x": x, "y": self.forward(x, relu=True)}

    def weight_grad(self, dy: Array, x: Array, out: Array) -> None:
        raise NotImplementedError

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        record.forget("y")
        if self.bias is not None:
            ops.conv2d_bias_grad(dy, out=training.gradients[f"{self.name}.bias"])
        self.weight_grad(dy, record["x"], training.gradients[f"{self.name}.weight"])
        record.forget("x")
        return super().backward(dy, record, training, need_dx)
