"""Convolution and batch normalisation as one convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import ops
from ...backends import Array
from ..record import Record, Training
from ..window import Windows
from .base import Layer
from .block import Block
from .stage import Stage, build_stages


class Normalised(Stage):
    """A convolution, its batch normalisation, and what is fused with a convolution, a ReLU or a ReLU and a pool.

    At test time the normalisation is a factor and a shift of each map: they go into the filters and the bias, and the
    stage is that of the folded convolution. In training it depends on the batch, and layer follows layer.
    """

    def __init__(self, *layers: Any):
        super().__init__(*layers)
        self.conv, self.norm = layers[:2]
        self.relu = layers[2] if len(layers) > 2 else None
        self.pool = layers[3] if len(layers) > 3 else None
        (self._test,) = build_stages([self.conv.folded(self.norm), *layers[2:]])

    @classmethod
    def fits(cls, layers: Sequence[Any]) -> bool:
        return len(layers) < 4 or Block.fits(layers)

    def parts(self) -> Sequence[Layer]:
        folded = self.conv.folded(self.norm)
        folded.hold()
        return [folded, *self.layers[2:]]

    @property
    def adding(self) -> Any:
        return self._test.adding

    @property
    def writes_apart(self) -> bool:
        return self._test.writes_apart

    def write(self, x: Array, out: Array) -> None:
        self._test.write(x, out)

    def hold(self) -> None:
        self._test.hold()

    def release(self) -> None:
        self._test.release()

    def forward(self, inputs: Sequence[Array], training: Training | None = None) -> Record:
        if training is None:
            return self._test.forward(inputs)
        (x,) = inputs
        normalise = self.norm.run if self.relu is None else self.norm.run_rectified
        arrays = normalise([self.conv.forward(x)], training)
        arrays = {"x": x, "convolved": arrays.pop("x"), **arrays}
        if self.pool is not None:
            arrays["y"], arrays["switches"] = ops.max_pool2d(arrays["y"], **self.pool.geometry)
        return Record(arrays)

    def reads(self, rule: str) -> set[str]:
        return self._test.reads(rule)

    def project(self, signal: Array, record: Record, rule: str) -> Sequence[Array]:
        return self._test.project(signal, record, rule)

    def project_windows(self, windows: Windows, record: Record, rule: str) -> Sequence[Windows]:
        return self._test.project_windows(windows, record, rule)

    def pays_on(self, windows: Windows) -> bool:
        return self._test.pays_on(windows)

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        if self.relu is not None:
            # With a pool: windows that name one value share its sign, so masking before unpooling is masking after it.
            dy = ops.relu_grad(dy, record["y"], out=dy)
        if self.pool is not None:
            dy = self.pool.undo(dy, "gradient", record)
        record.forget("y")
        (dy,) = self.norm.backward(dy, Record({**record.arrays, "x": record["convolved"]}), training, True)
        record.forget("convolved")
        return self.conv.backward(dy, record, training, need_dx)
