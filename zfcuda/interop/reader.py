"""From the common terms of a model (`zfcuda.interop.graph`) to a network.

Each node is read by one function of `zfcuda.interop.operations`, which adds layers to the `Builder` and answers with
the node's outputs: a `Tensor`, or an array where the output does not depend on the image. A node that reads arrays
alone is computed (`zfcuda.interop.folding`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn import Network
from ..nn.checkpoint import check_head
from ..wording import like
from .builder import Builder
from .folding import FOLDING
from .graph import MALFORMED, Graph, Node, Unsupported
from .norms import with_norms
from .operations import OPERATIONS
from .tensors import LARGEST, NO_PADDING, Tensor
from .windows import PADDED

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["read"]

Operand = Tensor | np.ndarray | None


def read(
    graph: Graph,
    *,
    output: str | None = None,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    head: str | None = None,
    bgr: bool = False,
) -> Network:
    """The network that computes one of the graph's outputs, by default the first.

    bgr: the model takes images with their channels the other way round; the network takes them as they are
    head: what `Network.predict` makes of the last layer's output, by default what the model does at its end

    ValueError that lists every node which cannot be read, and where the network would depend on the number of images
    that the model works on, or classes or preprocessing are of another size than the network's.
    """
    builder, last = _built(graph, output, bgr)
    if graph.other is not None:
        _check_any_batch(builder, graph, graph.other, output, bgr)
    network = builder.network()
    wanted = last.head if head is None else head
    check_head(wanted, network.num_classes)
    network.head = wanted
    if classes is not None:
        network.classes = tuple(classes)
        if len(network.classes) != network.num_classes:
            raise ValueError(f"classes must be {network.num_classes} names, one for each output; got {len(classes)}")
    if preprocess is not None:
        network.preprocess = preprocess
        shape = (*preprocess.crop, preprocess.image_shape[2])
        if shape != network.input_shape:
            raise ValueError(f"preprocess must make images of {network.input_shape}, got {shape}")
    return network


def _built(graph: Graph, output: str | None, bgr: bool) -> tuple[Builder, Tensor]:
    """The layers that one of the graph's outputs needs, and that output."""
    reader = _Reader(with_norms(graph.computing(output)), bgr)
    last = reader.run()
    reader.builder.keep_only(last.layer)
    return reader.builder, last


def _check_any_batch(builder: Builder, graph: Graph, other: Graph, output: str | None, bgr: bool) -> None:
    """ValueError where the graph for another number of images is another network. (Where it is none, and the first is
    for single images, the model is for these, whatever it says.)"""
    why = f"depends on how many images a batch has (x.size(0), len(x), x.numel()): {graph.batch} or {other.batch} of"
    why += " them make different networks, and a network takes each image by itself"
    try:
        built, _ = _built(other, output, bgr)
    except ValueError as error:
        if graph.batch == 1:
            return
        raise ValueError(f"the model {why}; of {other.batch}, {error}") from error
    differing = builder.first_difference(built) or built.first_difference(builder)
    if differing is not None:
        raise ValueError(f"{differing} {why}")


class _Reader:
    """Reads nodes one after the other; `values` are the tensors of the model by name."""

    def __init__(self, graph: Graph, bgr: bool):
        self.graph = graph
        image = _image(graph, bgr)
        held = sum(array.nbytes for array in graph.constants.values())
        self.builder = Builder(image.shape, graph.batch, held)
        self.values: dict[str, Operand] = {"": None, **graph.constants, graph.input: image}

    def run(self) -> Tensor:
        """Reads all nodes -> the output, after the last layer."""
        problems: list[tuple[Node, str]] = []
        lost: set[str] = set()  # what stands on nodes that cannot be read
        for node in self.graph.nodes:
            missing = [name for name in node.inputs if name not in self.values]
            try:
                if node.op is None:
                    raise Unsupported(node.problem)
                if not missing:
                    self._read(node)
                    continue
                if lost.issuperset(missing):
                    self._check_behind(node)
                else:
                    raise Unsupported(f"it reads {', '.join(missing)}, which is no output that is read")
            except (Unsupported, ValueError) as problem:
                problems.append((node, str(problem)))
            except MALFORMED as problem:
                problems.append((node, f"has inputs or attributes that are not those of its kind ({problem})"))
            lost.update(node.outputs)
        if problems:
            raise ValueError(_message(problems, self.graph))
        return self._finish(self.values.get(self.graph.outputs[0]))

    def _read(self, node: Node) -> None:
        operands = [self.values[name] for name in node.inputs]
        assert node.op is not None
        tensors = [one for one in operands if isinstance(one, Tensor)]
        if not tensors and node.op in FOLDING:
            self._keep(node, FOLDING[node.op](self.builder, node, operands))
            return
        if node.op not in OPERATIONS:
            raise Unsupported("is read of what is known before there is an image, not of tensors that depend on it")
        if node.op == "mul" and len(tensors) > 1:
            raise Unsupported(_NO_GATES)
        for operand in tensors:
            if operand.padding != NO_PADDING and node.op not in PADDED:
                raise Unsupported("maps are padded in front of a convolution or a pool only")
            if operand.head != "none" and node.op not in _BEHIND_THE_HEAD:
                raise Unsupported(f"{operand.head} is read at the end of a model only")
        self._keep(node, OPERATIONS[node.op](self.builder, node, operands))

    def _keep(self, node: Node, results: Any) -> None:
        results = results if isinstance(results, list) else [results]
        self.values.update(zip(node.outputs, results, strict=False))

    def _check_behind(self, node: Node) -> None:
        """Of a node that reads what could not be read: Unsupported where it cannot be read whatever that is."""
        if node.op == "mul" and not any(isinstance(self.values.get(name), np.ndarray) for name in node.inputs):
            raise Unsupported(_NO_GATES)

    def _finish(self, output: Operand) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError("the model's output does not depend on its input")
        last: Tensor = output
        if last.padding != NO_PADDING:
            raise ValueError("the output of the model cannot be read: maps are padded in front of layers only")
        try:
            if math.prod(last.dims) == max(last.dims, default=1):
                row = last.rearranged(last.places.reshape(-1))
                last = self.builder.in_order(self.builder.flat(row, ""))
            else:
                last = self.builder.channels(last)
        except Unsupported as problem:
            raise ValueError(f"the output of the model cannot be read: {problem}") from None
        return last


def _image(graph: Graph, bgr: bool) -> Tensor:
    dims = graph.dims
    last = len(dims) == 3 and graph.is_channels_last()
    shape = dims if last else (*dims[1:], dims[0]) if len(dims) == 3 else (1, math.prod(dims[1:]), dims[0])
    if math.prod(shape) > LARGEST:
        raise ValueError(f"an image of {math.prod(shape):,} numbers is too large; at most {LARGEST:,} are allowed")
    image = Tensor("input", shape)
    if bgr and shape[2] != 3:
        raise ValueError(f"bgr is for images of 3 channels, got {shape[2]}")
    places = image.places[::-1] if bgr else image.places
    return image.rearranged(places.transpose(1, 2, 0) if last else places.reshape(dims))


_NO_GATES = (
    "products are read of a tensor and constants, not of two tensors, as of gates (squeeze and excitation, swish) and "
    "attention"
)
_FEW = 3  # kinds of which an error says what is called nearly so
_BEHIND_THE_HEAD = ("identity", "reshape", "flatten", "squeeze", "unsqueeze")


def _message(problems: Sequence[tuple[Node, str]], graph: Graph) -> str:
    lines = [f"{len(problems)} of the model's {len(graph.nodes)} nodes cannot be read:"]
    lines += [f"  {node.name} ({node.kind}): {problem}" for node, problem in problems]
    names = [_plain(node.kind) for node, _ in problems if node.op is None]
    unknown = [name for name in dict.fromkeys(names) if name not in graph.kinds]
    if unknown:
        near = "".join(f"; {name}{alike}" for name in unknown[:_FEW] if (alike := like(name, graph.kinds)))
        lines.append(
            f"{len(graph.kinds)} operations are read{near}. README.md says which (Your own network), and "
            f"{graph.kinds_in} lists their names"
        )
    return "\n".join(lines)


def _plain(kind: str) -> str:
    """The name of a kind without what it belongs to: "gelu" of "aten.gelu.default"."""
    parts = kind.split(".")
    return parts[1] if parts[0] == "aten" and len(parts) > 1 else parts[-1]
