"""The layers of a network, each with its forward operation and how projection undoes it (paper 2.1, P1, P3).

A layer knows its name and the shapes of one image's input and output. `forward(x)` is the test-time operation on a
batch; `undo(signal, rule, ...)` carries a signal from its output to its input. How several layers run as one fused
operation, and the training pass, are in `stages.py`. What a layer is given has the dtype of its precision (`enter`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..backends import BFLOAT16, Array
from . import dense
from .architecture import (
    ConvSpec,
    DropoutSpec,
    FullyConnectedSpec,
    LayerSpec,
    MaxPoolSpec,
    NormSpec,
    Shape,
)

__all__ = [
    "PRECISIONS",
    "RULES",
    "Conv",
    "Dropout",
    "FullyConnected",
    "Layer",
    "MaxPool",
    "Norm",
    "ReLU",
    "build_layer",
]

RULES = ("deconvnet", "gradient", "guided")
PRECISIONS = ("fp32", "tf32", "bf16")


class Layer:
    """Common to all layers: `name`, `input_shape` and `output_shape` (of one image, without the batch), and the
    `precision` in which the network lets it run."""

    parameter_names: tuple[str, ...] = ()
    precision = "fp32"

    def __init__(self, spec: LayerSpec, input_shape: Shape):
        self.name = spec.name
        self.input_shape = input_shape
        self.output_shape = spec.output_shape(input_shape)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input map."""
        return self.input_shape[0], self.input_shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of the layer's input, output and signals."""
        return BFLOAT16 if self.precision == "bf16" else np.dtype(np.float32)

    def enter(self, signal: Array) -> Array:
        """The signal in the layer's dtype."""
        return ops.cast(signal, self.dtype)

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.input_shape} -> {self.output_shape}>"


class _Weighted(Layer):
    """A layer with `weight` and `bias`: plain float32 arrays, read anew at every call (but see `hold`)."""

    parameter_names = ("weight", "bias")
    weight: Array
    bias: Array
    _held: Array | None = None

    def __init__(self, spec: ConvSpec | FullyConnectedSpec, input_shape: Shape):
        super().__init__(spec, input_shape)
        self.weight_shape = spec.weight_shape(input_shape)
        self.bias_shape = self.weight_shape[:1]

    def initialise(self, rng: np.random.Generator, deviation: float) -> None:
        """Gaussian weights of this standard deviation, biases of zero."""
        self.weight = rng.standard_normal(self.weight_shape, np.float32)
        self.weight *= np.float32(deviation)
        self.bias = np.zeros(self.bias_shape, np.float32)

    @property
    def filters(self) -> Array:
        """The weight in the layer's dtype: a copy of it where that is bfloat16."""
        held = self._held
        return ops.cast(self.weight, self.dtype) if held is None else held

    def hold(self) -> None:
        """Makes `filters` once for all uses until `release`; meanwhile the weight must not change."""
        self._held = self.filters

    def release(self) -> None:
        self._held = None

    @property
    def arithmetic(self) -> dict[str, Any]:
        """The precision that an operation of the layer is allowed; bfloat16 arrays need no word."""
        return {"precision": "tf32"} if self.precision == "tf32" else {}

    @property
    def fan_in(self) -> int:
        return math.prod(self.weight_shape[1:])


class Conv(_Weighted):
    """Convolution with bias: weight (K,R,S,C), bias (K,)."""

    def __init__(self, spec: ConvSpec, input_shape: Shape):
        super().__init__(spec, input_shape)
        self.kernel_size = (self.weight_shape[1], self.weight_shape[2])
        self.stride = spec.stride
        self.padding = spec.padding

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        return ops.conv2d(x, self.filters, self.bias, relu=relu, **self.geometry, **self.arithmetic)

    def undo(self, signal: Array) -> Array:
        """Filters with the transposed filters, without bias."""
        size = self.input_size
        return ops.conv_transpose2d(signal, self.filters, output_size=size, **self.geometry, **self.arithmetic)


class ReLU(Layer):
    def forward(self, x: Array) -> Array:
        return ops.relu(x)

    def undo(self, signal: Array, rule: str, y: Array | None) -> Array:
        """deconvnet: rectifies the signal; gradient: masks it where the forward output y is 0; guided: both.

        y may be None for the deconvnet, which does not look at it.
        """
        if rule == "deconvnet":
            return ops.relu(signal)
        masked = ops.relu_grad(signal, y)
        return masked if rule == "gradient" else ops.relu(masked, out=masked)


class MaxPool(Layer):
    """Max pooling with switches."""

    def __init__(self, spec: MaxPoolSpec, input_shape: Shape):
        super().__init__(spec, input_shape)
        self.window = spec.window
        self.stride = spec.stride
        self.padding = spec.padding

    @property
    def geometry(self) -> dict[str, Any]:
        return {"window": self.window, "stride": self.stride, "padding": self.padding}

    @property
    def block_geometry(self) -> dict[str, Any]:
        """The same, in the words of the fused operations."""
        return {"window": self.window, "pool_stride": self.stride, "pool_padding": self.padding}

    def forward_with_switches(self, x: Array) -> tuple[Array, Array]:
        return ops.max_pool2d(x, **self.geometry)

    def forward(self, x: Array) -> Array:
        return self.forward_with_switches(x)[0]

    def undo(self, signal: Array, switches: Array) -> Array:
        return ops.max_unpool2d(signal, switches, output_size=self.input_size, **self.geometry)


class Norm(Layer):
    """Local response normalisation across maps."""

    def __init__(self, spec: NormSpec, input_shape: Shape):
        super().__init__(spec, input_shape)
        self.size = spec.size
        self.alpha = spec.alpha
        self.beta = spec.beta
        self.k = spec.k

    @property
    def parameters(self) -> dict[str, Any]:
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}

    def forward(self, x: Array) -> Array:
        return ops.local_response_norm(x, **self.parameters)

    def undo(self, signal: Array, rule: str, x: Array | None) -> Array:
        """The deconvnet skips normalisation; the other rules take its gradient at the forward input x."""
        return signal if rule == "deconvnet" else ops.local_response_norm_grad(signal, x, **self.parameters)


class FullyConnected(_Weighted):
    """x W^T + b with weight (out, in); an image-like input is flattened in NHWC order."""

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        return dense.forward(x, self.filters, self.bias, relu=relu, **self.arithmetic)

    def undo(self, signal: Array) -> Array:
        return dense.data_grad(signal, self.filters, **self.arithmetic).reshape(-1, *self.input_shape)


class Dropout(Layer):
    """Active in the training pass only; at test time the identity."""

    def __init__(self, spec: DropoutSpec, input_shape: Shape):
        super().__init__(spec, input_shape)
        self.probability = spec.probability

    def forward(self, x: Array) -> Array:
        return x


_LAYERS: dict[str, Any] = {
    "conv": Conv,
    "relu": ReLU,
    "pool": MaxPool,
    "norm": Norm,
    "fc": FullyConnected,
    "dropout": Dropout,
}


def build_layer(spec: LayerSpec, input_shape: Shape) -> Layer:
    return _LAYERS[spec.kind](spec, input_shape)
