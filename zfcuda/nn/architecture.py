"""What a network is made of: a plain description, which a checkpoint carries as JSON.

An `Architecture` is the shape of an image and a list of layer specifications. It holds no weights and computes
nothing; `zfcuda.nn.Network` builds the layers from it.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Array
from .layers import KINDS, ConvSpec, DropoutSpec, FullyConnectedSpec, LayerSpec, MaxPoolSpec, NormSpec, ReLUSpec
from .span import Shape

__all__ = ["Architecture", "ConvSpec", "DropoutSpec", "FullyConnectedSpec", "MaxPoolSpec", "NormSpec", "ReLUSpec"]


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
        for layer in self.layers:
            if not _is_path(layer.name):
                raise ValueError(
                    'a layer\'s name must be parts with dots between them, without slashes, such as "conv1" or '
                    f'"layer1.0.conv1", and not "input", which is the image; got {layer.name!r}'
                )
            if layer.block is not None and (type(layer.block) is not int or layer.block < 0):
                raise ValueError(f"{layer.name}: block must be a number, 0 or more, or None; got {layer.block!r}")

    def numbers(self) -> list[int | None]:
        """The paper's number of each layer: its `block`, or where it has none that of the layer before it. If no layer
        has one, conv and fc layers are counted, 1, 2, 3 ..."""
        counted = all(layer.block is None for layer in self.layers)
        numbers: list[int | None] = []
        number: int | None = None
        for layer in self.layers:
            if counted and layer.weighted:
                number = (number or 0) + 1
            elif layer.block is not None:
                number = layer.block
            numbers.append(number)
        return numbers

    def blocks(self) -> dict[int, str]:
        """The paper's number of a layer -> the name of the layer that ends it, before normalisation and dropout."""
        ends = ((n, layer.name) for n, layer in zip(self.numbers(), self.layers, strict=True) if layer.ends_block)
        return {number: name for number, name in ends if number is not None}

    def shapes(self) -> list[Shape]:
        """The output shape of each layer, without the batch. ValueError, naming the layer, where one cannot be."""
        shapes: list[Shape] = []
        shape: Shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
            shapes.append(shape)
        if not any(layer.weighted for layer in self.layers):
            raise ValueError(
                f"a network needs a conv or fc layer, got {', '.join(layer.name for layer in self.layers)}"
            )
        return shapes

    def inputs(self) -> list[tuple[LayerSpec, Shape]]:
        """Each layer with the shape of its input; errors as in `shapes`."""
        return list(zip(self.layers, [self.input_shape, *self.shapes()[:-1]], strict=True))

    def parameter_shapes(self) -> dict[str, Shape]:
        """ "conv1.weight", "conv1.bias", ... -> the shape, in the order of the layers."""
        return {
            f"{layer.name}.{parameter}": shape
            for layer, inputs in self.inputs()
            for parameter, shape in layer.parameter_shapes(inputs).items()
        }

    def check_parameters(self, parameters: Mapping[str, Array]) -> None:
        """ValueError if one is missing, unknown or of another shape, TypeError if one is not float32."""
        expected = self.parameter_shapes()
        wrong = sorted(expected.keys() ^ parameters.keys())
        if wrong:
            raise ValueError(f"parameters must be exactly those of the network; missing or unknown: {', '.join(wrong)}")
        for name, array in parameters.items():
            if tuple(array.shape) != expected[name]:
                raise ValueError(f"parameter {name} must have shape {expected[name]}, got {tuple(array.shape)}")
            if array.dtype != np.float32:
                raise TypeError(f"parameter {name} must be float32, got {array.dtype}")

    def to_dict(self) -> dict[str, Any]:
        """The description in lists, dicts, numbers and strings, for JSON."""
        layers = [{"kind": layer.kind, **dataclasses.asdict(layer)} for layer in self.layers]
        return {"input_shape": list(self.input_shape), "initial": self.initial, "layers": layers}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Architecture:
        """The inverse of `to_dict`, also after JSON. ValueError if it does not describe a network that can be built.

        Where no layer has the key "block", as in descriptions from before there was one, the numbers that the names of
        conv and fc layers end with are taken, if each has one and they ascend.
        """
        try:
            layers = [_layer(dict(layer)) for layer in description["layers"]]
            if not any("block" in layer for layer in description["layers"]):
                layers = _numbered_by_name(layers)
            architecture = cls(tuple(description["input_shape"]), tuple(layers), description["initial"])
            architecture.shapes()
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the description of a network: {error!r}") from error
        return architecture


def _is_path(name: Any) -> bool:
    """A slash parts what a checkpoint holds besides the network."""
    return isinstance(name, str) and name.isprintable() and all(name.split(".")) and "/" not in name and name != "input"


def _layer(fields: dict[str, Any]) -> LayerSpec:
    kind = fields.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"layer {fields.get('name')!r} is of unknown kind {kind!r}; known: {', '.join(KINDS)}")
    fields = {field: tuple(v) if isinstance(v, list) else v for field, v in fields.items()}
    return KINDS[kind].spec_type(**fields)


def _numbered_by_name(layers: list[LayerSpec]) -> list[LayerSpec]:
    found = [re.findall("[0-9]+$", layer.name) for layer in layers if layer.weighted]
    numbers = [int(digits[0]) for digits in found if digits]
    if len(numbers) < len(found) or any(second <= first for first, second in itertools.pairwise(numbers)):
        return layers
    following, number, numbered = iter(numbers), None, []
    for layer in layers:
        number = next(following) if layer.weighted else number
        numbered.append(dataclasses.replace(layer, block=number))
    return numbered
