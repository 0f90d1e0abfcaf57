"""Sums of layers, as at the end of a residual block (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ... import ops
from ...backends import Array
from ..record import Record, Training
from ..span import Shape
from ..window import Windows
from .base import Layer, LayerSpec
from .stage import Rectified


@dataclass(frozen=True)
class AddSpec(LayerSpec):
    """The sum of its inputs, which have one shape."""

    kind: ClassVar[str] = "add"
    joins: ClassVar[bool] = True

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(set(shapes)) != 1:
            raise ValueError(f"{self.name} needs inputs of one shape, got {', '.join(map(str, shapes))}")
        return shapes[0]


class Add(Layer):
    """On the way back the signal goes to each input."""

    spec_type = AddSpec
    on_windows = True
    sums = True
    fusions: ClassVar = {("relu",): Rectified}

    def run(self, inputs: Sequence[Array], training: Training | None, *, relu: bool = False) -> dict[str, Array]:
        y = ops.add(inputs[0], inputs[1], relu=relu and len(inputs) == 2)
        for i, x in enumerate(inputs[2:], start=3):
            y = ops.add(y, x, relu=relu and i == len(inputs), out=y)
        return {"y": y}

    def run_rectified(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        return self.run(inputs, training, relu=True)

    def distribute(self, signal: Array, rule: str, record: Record) -> list[Array]:
        return [signal] * len(self.inputs)

    def distribute_windows(self, windows: Windows, rule: str, record: Record) -> list[Windows]:
        return [replace(windows, single=False)] * len(self.inputs)
