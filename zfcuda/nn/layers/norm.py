"""Local response normalisation across maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ... import ops
from ...backends import Array
from ...ops.norm import constants_problem
from ..record import Record
from ..span import Shape
from ..window import Windows
from .base import Layer, LayerSpec, require_positive


@dataclass(frozen=True)
class NormSpec(LayerSpec):
    """The parameters of `ops.local_response_norm`."""

    kind: ClassVar[str] = "norm"
    ends_block: ClassVar[bool] = False
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def output_shape(self, shape: Shape) -> Shape:
        require_positive(self.name, "size", self.size)
        if problem := constants_problem(self.alpha, self.beta, self.k):
            raise ValueError(f"{self.name}: {problem}")
        return shape


class Norm(Layer):
    spec_type = NormSpec
    on_windows = True
    size: int
    alpha: float
    beta: float
    k: float

    @property
    def parameters(self) -> dict[str, Any]:
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}

    def forward(self, x: Array) -> Array:
        return ops.local_response_norm(x, **self.parameters)

    def reads(self, rule: str) -> set[str]:
        return set() if rule == "deconvnet" else {"x"}

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        """The deconvnet skips normalisation; the other rules take its gradient at the forward input x."""
        return signal if rule == "deconvnet" else ops.local_response_norm_grad(signal, record["x"], **self.parameters)

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        # The gradient of one map's value is one of its neighbours', too.
        single = windows.single and rule == "deconvnet"
        return replace(windows, signal=self.undo(windows.signal, rule, record), single=single)
