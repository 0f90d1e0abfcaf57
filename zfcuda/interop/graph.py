"""A model of another library in common terms: nodes that compute tensors from tensors, in the order of their work.

`zfcuda.interop.onnx` and `zfcuda.interop.torch` translate to it, `zfcuda.interop.reader` makes a network of it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..brief import Brief

__all__ = ["MALFORMED", "Graph", "Node", "Unsupported", "check_image_shape", "transposes"]


class Unsupported(Exception):
    """Why a node cannot be read; the message says what can be."""


MALFORMED = (TypeError, AttributeError, IndexError, KeyError, ArithmeticError)
"""What reading a node raises whose inputs and attributes are not those of its kind."""


@dataclass(frozen=True, repr=False)
class Node(Brief):
    """One operation of the model.

    op: a key of `zfcuda.interop.operations.OPERATIONS`, or None for one that has no name there, and why not: `problem`
    kind: what the model calls the operation, "Conv" or "aten.conv2d.default"; name: what its layer is to be called
    inputs: names of tensors, "" for one that is left out
    """

    op: str | None
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, repr=False)
class Graph(Brief):
    """A model with one input.

    dims: of its input without the batch: (C, H, W), a signal's (C, W), or (units,); batch: how many images it works on
    constants: weights, and whatever else is known before there is an image
    kinds: what the model's operations are called that are read; kinds_in: where they are listed
    other: the same model for another number of images, where that is open: both must be the same network
    channels_first: whether the image is (C, H, W) whatever the nodes do with it, as its shape was given so
    """

    input: str
    dims: tuple[int, ...]
    batch: int
    nodes: Sequence[Node]
    constants: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    kinds: tuple[str, ...]
    kinds_in: str
    other: Graph | None = None
    channels_first: bool = False

    def computing(self, output: str | None) -> Graph:
        """What is needed for one of the outputs, by default the first. ValueError if there is none of this name."""
        if not self.outputs:
            raise ValueError("the model has no output")
        output = self.outputs[0] if output is None else output
        if output not in self.outputs:
            raise ValueError(f"output must be one of {', '.join(self.outputs)}; got {output!r}")
        wanted = {output}
        needed = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                needed.append(node)
                wanted.update(node.inputs)
        return replace(self, nodes=needed[::-1], outputs=(output,))

    def is_channels_last(self) -> bool:
        """Whether the image is (H, W, C) in the model: everything that reads it transposes it first."""
        return len(self.dims) == 3 and not self.channels_first and transposes(self.nodes, self.input)


def transposes(nodes: Sequence[Node], image: str) -> bool:
    """Whether all that reads the image first transposes it as one that is (H, W, C)."""
    following = {image}
    turned = False
    for node in nodes:
        if not following.intersection(node.inputs) or node.op == "shape":
            continue
        if node.op == "transpose" and tuple(node.attributes["order"] or ()) == (0, 3, 1, 2):
            turned = True
        elif node.op in ("identity", "add", "sub", "mul", "div"):
            following.update(node.outputs)
        else:
            return False
    return turned


def check_image_shape(input_shape: Any) -> tuple[int, int, int]:
    """(H, W, C) as ints, from what a user gives for it."""
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        raise TypeError(
            "input_shape must be (height, width, channels), such as (224, 224, 3), of signals (1, W, C), "
            f"got {input_shape!r}"
        ) from None
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"input_shape must be (height, width, channels), all positive, of signals (1, W, C), got {input_shape!r}"
        )
    height, width, channels = shape
    return height, width, channels
