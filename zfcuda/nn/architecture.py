"""What a network is made of: a plain description, which a checkpoint carries as JSON.

An `Architecture` is the shape of an image and a list of layer specifications. It holds no weights and computes
nothing; `zfcuda.nn.Network` builds the layers from it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Array
from ..brief import Brief
from ..wording import check_none, like
from .description import check_keys, read_layers
from .layers import (
    AddSpec,
    AvgPoolSpec,
    BatchNormSpec,
    ClipSpec,
    ConcatSpec,
    ConvSpec,
    DropoutSpec,
    FlattenSpec,
    FullyConnectedSpec,
    LayerSpec,
    LeakyReLUSpec,
    MaxPoolSpec,
    NormSpec,
    PermuteSpec,
    PReLUSpec,
    ReLUSpec,
    SliceSpec,
)
from .span import Shape

__all__ = [
    "AddSpec",
    "Architecture",
    "AvgPoolSpec",
    "BatchNormSpec",
    "ClipSpec",
    "ConcatSpec",
    "ConvSpec",
    "DropoutSpec",
    "FlattenSpec",
    "FullyConnectedSpec",
    "LeakyReLUSpec",
    "MaxPoolSpec",
    "NormSpec",
    "PReLUSpec",
    "PermuteSpec",
    "ReLUSpec",
    "SliceSpec",
]


@dataclass(frozen=True, repr=False)
class Architecture(Brief):
    """A graph of layers over images of `input_shape` (H, W, C).

    layers   in an order in which each comes after what it reads (its `inputs`; by default the layer before); the first
             reads the image, the last one's output is the network's, and what each other one makes is read
    initial  how weights start, by their standard deviation: "gaussian" (the paper's 1e-2 everywhere), "lecun"
             (1 / sqrt(inputs of a unit); LeCun et al. 1998) or "he" (sqrt(2 / inputs); He et al. 2015)
    """

    input_shape: tuple[int, int, int]
    layers: tuple[LayerSpec, ...]
    initial: str = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in self.input_shape)
        if len(self.input_shape) != 3 or not whole or min(self.input_shape) < 1:
            raise ValueError(
                f"input_shape must be (height, width, channels), all positive whole numbers, got {self.input_shape}"
            )
        if self.initial not in ("gaussian", "lecun", "he"):
            raise ValueError(f"initial must be 'gaussian', 'lecun' or 'he', got {self.initial!r}")
        names = [layer.name for layer in self.layers]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"layers must have different names, and be one or more; got {names!s:.200}")
        check_none(itertools.chain(self._faults_of_layers(), self._faults_of_graph()))

    def _faults_of_layers(self) -> Iterator[str]:
        for layer in self.layers:
            if not _is_path(layer.name):
                yield (
                    'a layer\'s name must be parts with dots between them, without slashes, such as "conv1" or '
                    f'"layer1.0.conv1", and not "input", which is the image; got {layer.name!r}'
                )
            if layer.block is not None and (type(layer.block) is not int or layer.block < 0):
                yield f"{layer.name}: block must be a number, 0 or more, or None; got {layer.block!r}"

    def _faults_of_graph(self) -> Iterator[str]:
        before = {"input"}
        unread: dict[str, None] = {}
        for layer, inputs in zip(self.layers, self.inputs(), strict=True):
            for name in inputs:
                if name not in before:
                    near = like(name, before)
                    yield f'{layer.name}: inputs must be "input" or layers before it, got {name!r}{near}'
                unread.pop(name, None)
            if (len(inputs) > 1) != layer.joins:
                expected = "two inputs or more" if layer.joins else "one input"
                yield f"{layer.name}: a layer of kind {layer.kind} reads {expected}, got {inputs}"
            before.add(layer.name)
            unread[layer.name] = None
        if self.layers[0].joins:
            yield f"{self.layers[0].name}: the first layer must read the image alone"
        if len(unread) > 1:
            *others, _ = unread
            yield f"nothing reads the output of {', '.join(others):.200}; only the last layer's is the network's"

    def inputs(self) -> list[tuple[str, ...]]:
        """The names of what each layer reads."""
        previous = ["input", *(layer.name for layer in self.layers)]
        return [layer.inputs or (name,) for layer, name in zip(self.layers, previous, strict=False)]

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
        """The output shape of each layer, without the batch. ValueError, naming the layers, where one cannot be."""
        found: dict[str, Shape] = {"input": self.input_shape}
        faults: list[str] = []
        for layer, inputs in zip(self.layers, self.inputs(), strict=True):
            if all(name in found for name in inputs):
                try:
                    found[layer.name] = layer.joined_shape([found[name] for name in inputs])
                except ValueError as error:
                    faults.append(str(error))
        check_none(faults)
        if not any(layer.weighted for layer in self.layers):
            raise ValueError(
                f"a network needs a conv or fc layer, got {', '.join(layer.name for layer in self.layers)!s:.200}"
            )
        return [found[layer.name] for layer in self.layers]

    def input_shapes(self) -> list[tuple[Shape, ...]]:
        """The shapes of what each layer reads; errors as in `shapes`."""
        found: dict[str, Shape] = {"input": self.input_shape}
        found |= {layer.name: shape for layer, shape in zip(self.layers, self.shapes(), strict=True)}
        return [tuple(found[name] for name in inputs) for inputs in self.inputs()]

    def parameter_shapes(self) -> dict[str, Shape]:
        """What is learned: "conv1.weight", "conv1.bias", ... -> the shape, in the order of the layers."""
        return self._of_each_layer(lambda layer, shape: layer.parameter_shapes(shape))

    def state_shapes(self) -> dict[str, Shape]:
        """What training keeps besides, likewise: "bn1.running_mean", ..."""
        return self._of_each_layer(lambda layer, shape: layer.state_shapes(shape))

    def _of_each_layer(self, arrays: Callable[[LayerSpec, Shape], dict[str, Shape]]) -> dict[str, Shape]:
        return {
            f"{layer.name}.{array}": shape
            for layer, inputs in zip(self.layers, self.input_shapes(), strict=True)
            for array, shape in arrays(layer, inputs[0]).items()
        }

    def check_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Of parameters and state: ValueError if one is missing, unknown or of another shape, TypeError if one is not
        float32."""
        expected = self.parameter_shapes() | self.state_shapes()
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
        """The inverse of `to_dict`, also after JSON. ValueError if it does not describe a network that can be built; of
        layers it tells at once all whose description cannot be read, that read what there is not, or have no output.

        Where no layer has the key "block", as in descriptions from before there was one, the numbers that the names of
        conv and fc layers end with are taken, if each has one and they ascend.
        """
        check_keys(description)
        try:
            layers = read_layers(description["layers"])
            architecture = cls(tuple(description["input_shape"]), layers, description["initial"])
            architecture.shapes()
        except TypeError as error:
            raise ValueError(f"not the description of a network: {error!r}") from error
        return architecture


def _is_path(name: Any) -> bool:
    """A slash parts what a checkpoint holds besides the network."""
    return isinstance(name, str) and name.isprintable() and all(name.split(".")) and "/" not in name and name != "input"
