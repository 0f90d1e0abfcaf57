"""What a network is made of: a plain description, which a checkpoint carries as JSON.

An `Architecture` is the shape of an image and a list of layer specifications. It holds no weights and computes
nothing; `zfcuda.nn.Network` builds the layers from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ..pairs import IntPair, as_pair

__all__ = [
    "Architecture",
    "ConvSpec",
    "DropoutSpec",
    "FullyConnectedSpec",
    "LayerSpec",
    "MaxPoolSpec",
    "NormSpec",
    "ReLUSpec",
    "layer_number",
]

Shape = tuple[int, ...]  # of one image or activation, without the batch: (H, W, C) or (units,)


def layer_number(name: str) -> int:
    """The paper's number of a layer, which ends its name: 3 for "conv3", "relu3". ValueError if there is none."""
    digits = name[len(name.rstrip("0123456789")) :]
    if not digits:
        raise ValueError(f"layers are named by kind and number, such as conv3; got {name!r}")
    return int(digits)


def _windows(name: str, shape: Shape, window: IntPair, stride: IntPair, padding: IntPair) -> tuple[int, int]:
    """How many windows fit into the (padded) map, in height and width."""
    if len(shape) != 3:
        raise ValueError(f"{name} needs an input of shape (H, W, C), got {shape}")
    counts = []
    for size, cells, step, pad in zip(shape[:2], as_pair(window), as_pair(stride), as_pair(padding), strict=True):
        if cells < 1 or step < 1 or pad < 0:
            raise ValueError(
                f"{name}: window and stride must be positive, padding not negative; got {cells, step, pad}"
            )
        if cells > size + 2 * pad:
            raise ValueError(
                f"{name}: its window of {cells} is larger than its padded input, {size} + 2 * {pad}; "
                "the network needs a larger image"
            )
        counts.append((size + 2 * pad - cells) // step + 1)
    return counts[0], counts[1]


def _require_positive(name: str, field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: {field} must be at least 1, got {value}")


@dataclass(frozen=True)
class ConvSpec:
    """`maps` filters of `kernel` (int or (height, width)) over all input channels."""

    kind: ClassVar[str] = "conv"
    name: str
    maps: int
    kernel: IntPair
    stride: IntPair = 1
    padding: IntPair = 0

    def output_shape(self, shape: Shape) -> Shape:
        _require_positive(self.name, "maps", self.maps)
        return (*_windows(self.name, shape, self.kernel, self.stride, self.padding), self.maps)

    def weight_shape(self, shape: Shape) -> Shape:
        return (self.maps, *as_pair(self.kernel), shape[2])


@dataclass(frozen=True)
class ReLUSpec:
    kind: ClassVar[str] = "relu"
    name: str

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class MaxPoolSpec:
    kind: ClassVar[str] = "pool"
    name: str
    window: IntPair = 3
    stride: IntPair = 2
    padding: IntPair = 0

    def output_shape(self, shape: Shape) -> Shape:
        return (*_windows(self.name, shape, self.window, self.stride, self.padding), shape[2])


@dataclass(frozen=True)
class NormSpec:
    """Local response normalisation; the parameters of `ops.local_response_norm`."""

    kind: ClassVar[str] = "norm"
    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class FullyConnectedSpec:
    kind: ClassVar[str] = "fc"
    name: str
    units: int

    def output_shape(self, shape: Shape) -> Shape:
        _require_positive(self.name, "units", self.units)
        return (self.units,)

    def weight_shape(self, shape: Shape) -> Shape:
        inputs = 1
        for size in shape:
            inputs *= size
        return (self.units, inputs)


@dataclass(frozen=True)
class DropoutSpec:
    kind: ClassVar[str] = "dropout"
    name: str
    probability: float = 0.5

    def output_shape(self, shape: Shape) -> Shape:
        if not 0 <= self.probability < 1:
            raise ValueError(f"{self.name}: probability must be in [0, 1), got {self.probability}")
        return shape


LayerSpec = ConvSpec | ReLUSpec | MaxPoolSpec | NormSpec | FullyConnectedSpec | DropoutSpec

_KINDS: dict[str, Any] = {
    spec.kind: spec for spec in (ConvSpec, ReLUSpec, MaxPoolSpec, NormSpec, FullyConnectedSpec, DropoutSpec)
}


@dataclass(frozen=True)
class Architecture:
    """`input_shape` (H, W, C), the layers in order, and how weights start, by their standard deviation:
    "gaussian" (the paper's 1e-2 everywhere) or "lecun" (1 / sqrt(inputs of a unit); LeCun et al. 1998)."""

    input_shape: tuple[int, int, int]
    layers: tuple[LayerSpec, ...]
    initial: str = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise ValueError(f"input_shape must be (height, width, channels), all positive, got {self.input_shape}")
        if self.initial not in ("gaussian", "lecun"):
            raise ValueError(f"initial must be 'gaussian' or 'lecun', got {self.initial!r}")
        names = [layer.name for layer in self.layers]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"layers must have different names, and be one or more; got {names}")
        for name in names:
            layer_number(name)

    def shapes(self) -> list[Shape]:
        """The output shape of each layer, without the batch. ValueError, naming the layer, where one cannot be."""
        shapes: list[Shape] = []
        shape: Shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
            shapes.append(shape)
        return shapes

    def to_dict(self) -> dict[str, Any]:
        """The description in lists, dicts, numbers and strings, for JSON."""
        layers = [{"kind": layer.kind, **dataclasses.asdict(layer)} for layer in self.layers]
        return {"input_shape": list(self.input_shape), "initial": self.initial, "layers": layers}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Architecture:
        """The inverse of `to_dict`, also after JSON. ValueError if it does not describe a network that can be built."""
        try:
            layers = tuple(_layer(dict(layer)) for layer in description["layers"])
            architecture = cls(tuple(description["input_shape"]), layers, description["initial"])
            architecture.shapes()
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the description of a network: {error!r}") from error
        return architecture


def _layer(fields: dict[str, Any]) -> LayerSpec:
    kind = fields.pop("kind")
    if kind not in _KINDS:
        raise ValueError(f"layer {fields.get('name')!r} is of unknown kind {kind!r}; known: {', '.join(_KINDS)}")
    return _KINDS[kind](**{field: tuple(v) if isinstance(v, list) else v for field, v in fields.items()})
