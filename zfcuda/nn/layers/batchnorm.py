"""Batch normalisation (Ioffe and Szegedy 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import ops
from ...backends import Array, array_module
from ..record import Part, Record, Training
from ..span import Shape
from .base import Layer, LayerSpec, require_flat_or_map
from .stage import Rectified


@dataclass(frozen=True)
class BatchNormSpec(LayerSpec):
    """(x - mean) / sqrt(variance + eps) * weight + bias of each map: over the batch in training (all of it, where
    several processes have parts of it), by running averages of those at test time. momentum: what share of a running
    average each batch replaces (as in PyTorch). frozen: by the running averages always, and training leaves all of it
    as it is: a fixed factor and shift of each map. affine: whether weight and bias are learned, not 1 and 0."""

    kind: ClassVar[str] = "batchnorm"
    ends_block: ClassVar[bool] = False
    eps: float = 1e-5
    momentum: float = 0.1
    frozen: bool = False
    affine: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        require_flat_or_map(self.name, shape)
        if not self.eps >= 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                f"{self.name}: eps must not be negative, and momentum be in [0, 1]; got {self.eps, self.momentum}"
            )
        return shape

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return self._arrays(shape, "weight", "bias") if self._learns else {}

    def state_shapes(self, shape: Shape) -> dict[str, Shape]:
        kept = () if self._learns else ("weight", "bias")
        return self._arrays(shape, *kept, "running_mean", "running_var")

    @property
    def _learns(self) -> bool:
        return self.affine and not self.frozen

    def _arrays(self, shape: Shape, *names: str) -> dict[str, Shape]:
        return {name: shape[-1:] for name in names}


class BatchNorm(Layer):
    """weight, bias (learned), running_mean and running_var (unbiased, as PyTorch keeps it), all float32 (C,)."""

    spec_type = BatchNormSpec
    on_windows = True
    reads_apart = True
    fusions: ClassVar = {("relu",): Rectified}
    eps: float
    momentum: float
    frozen: bool
    affine: bool
    weight: Array
    bias: Array
    running_mean: Array
    running_var: Array

    def initialise(self, rng: np.random.Generator, initial: str) -> None:
        (channels,) = self.state_shapes["running_var"]
        self.weight, self.running_var = np.ones(channels, np.float32), np.ones(channels, np.float32)
        self.bias, self.running_mean = np.zeros(channels, np.float32), np.zeros(channels, np.float32)

    @property
    def scale(self) -> Array:
        """What the layer multiplies each channel by at test time, float32 (C,)."""
        xp: Any = array_module(self.weight)
        return self.weight / xp.sqrt(self.running_var + xp.float32(self.eps))

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        return self._normalise(x, self.running_mean, self.running_var, relu)

    def forward_padded(self, x: Array, *, relu: bool = False) -> Array:
        return self.forward(x, relu=relu)

    def run(self, inputs: Sequence[Array], training: Training | None, *, relu: bool = False) -> dict[str, Array]:
        (x,) = inputs
        if training is None or self.frozen:
            return {"x": x, "y": self.forward(x, relu=relu)}
        mean, variance = ops.batch_norm_statistics(x)
        count = x.size // x.shape[-1]
        if training.part is not None:
            of_part, mean = mean, training.part.mean(mean)
            variance = training.part.mean(variance + (of_part - mean) ** 2)
            count = count // len(x) * training.part.size
        training.statistics[f"{self.name}.running_mean"] = mean, self.momentum
        unbiased = variance * np.float32(count / max(1, count - 1))
        training.statistics[f"{self.name}.running_var"] = unbiased, self.momentum
        return {"x": x, "y": self._normalise(x, mean, variance, relu), "mean": mean, "variance": variance}

    def run_rectified(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        return self.run(inputs, training, relu=True)

    def _normalise(self, x: Array, mean: Array, variance: Array, relu: bool) -> Array:
        return ops.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps, relu=relu)

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        """At test time the layer is linear: its transpose is its scale, under each rule."""
        zero = array_module(self.weight).zeros_like(self.weight)
        return ops.batch_norm(signal, zero, self.running_var, self.weight, zero, eps=self.eps)

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        if self.frozen:
            return super().backward(dy, record, training, need_dx)
        found: Any = ops.batch_norm_grad(dy, record["x"], record["mean"], record["variance"], self.weight, eps=self.eps)
        dx, weight, bias = found
        if training.part is not None:
            dx = ops.add(dx, self._through_other_parts(weight, bias, record, training.part), out=dx)
        if self.affine:
            training.gradients[f"{self.name}.weight"][...], training.gradients[f"{self.name}.bias"][...] = weight, bias
        record.forget("x")
        return [dx]

    def _through_other_parts(self, weight: Array, bias: Array, record: Record, part: Part) -> Array:
        """What dx lacks where the statistics are of more images than x has: `ops.batch_norm_grad` goes through them by
        its own `weight` and `bias`, the gradients of those, in the place of the whole batch's."""
        x, mean, variance = record["x"], record["mean"], record["variance"]
        xp: Any = array_module(x)
        factor = self.weight / xp.sqrt(variance + xp.float32(self.eps)) / xp.float32(x.size // x.shape[-1])
        weight, bias = (factor * (of_part - part.mean(of_part)) for of_part in (weight, bias))
        return ops.batch_norm(x, mean, variance, weight, bias, eps=self.eps)
