"""Maps of several layers side by side, as in Inception modules (Szegedy et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ... import ops
from ...backends import Array, resolve
from ..record import Record, Training
from ..span import Shape
from ..window import Windows
from .base import Layer, LayerSpec


@dataclass(frozen=True)
class ConcatSpec(LayerSpec):
    """The channels (or units) of its inputs, one after the other."""

    kind: ClassVar[str] = "concat"
    joins: ClassVar[bool] = True

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len({shape[:-1] for shape in shapes}) != 1:
            raise ValueError(f"{self.name} needs inputs of one height and width, got {', '.join(map(str, shapes))}")
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


class Concat(Layer):
    """On the way back each input gets its channels of the signal.

    Forward, each input is copied, but for those of a `Joined` one that are `Written`.
    """

    spec_type = ConcatSpec
    on_windows = True
    concatenates = True

    def run(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        backend, _ = resolve(x=inputs[0])
        y = backend.empty((*inputs[0].shape[:-1], self.output_shape[-1]), inputs[0].dtype)
        start = 0
        for x in inputs:
            ops.copy_channels(x, y, target=start)
            start += x.shape[-1]
        return {"y": y}

    def distribute(self, signal: Array, rule: str, record: Record) -> list[Array]:
        backend, _ = resolve(signal=signal)
        parts, start = [], 0
        for shape in self.input_shapes:
            part = backend.empty((*signal.shape[:-1], shape[-1]), signal.dtype)
            parts.append(ops.copy_channels(signal, part, source=start, channels=shape[-1]))
            start += shape[-1]
        return parts

    def distribute_windows(self, windows: Windows, rule: str, record: Record) -> list[Windows]:
        parts = self.distribute(windows.signal, rule, record)
        return [replace(windows, signal=part, single=False) for part in parts]
