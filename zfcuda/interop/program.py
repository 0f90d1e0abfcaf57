"""Programs of ATen operations, as torch.export makes them, in common terms (`zfcuda.interop.graph`).

`zfcuda.interop.export` has them of modules, `zfcuda.interop.pt2` of files; PyTorch itself is not needed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..brief import Brief
from .aten import CALLS, Arguments, Call, Made, Ref
from .folding import KNOWN
from .graph import MALFORMED, Graph, Node

__all__ = ["Program", "is_own", "layer_name", "translate"]


def is_own(kind: str) -> bool:
    """Whether a class of modules, by its name, is one of PyTorch's own (or of `to_module`'s), whose operation is what
    the module is."""
    own = kind.startswith(("torch.nn.modules.", "zfcuda.interop.")) and ".container." not in kind
    return own or _PARAMETRIZED.fullmatch(kind) is not None


# What torch.nn.utils.parametrize makes of the kind of a module; of users' own it has no more than the name.
_PARAMETRIZED = re.compile(r"torch\.nn\.utils\.parametrize\.Parametrized(Conv[12]d|Linear|BatchNorm[12]d|PReLU)")


def layer_name(path: str, own: bool, operation: str) -> str:
    """What the layer of an operation is called that is done in the module of this path: as that, if it is one of
    PyTorch's own."""
    return path if own and path else f"{path}.{operation}".strip("._")


@dataclass(frozen=True, repr=False)
class Program(Brief):
    """inputs: name and dimensions of each tensor that the module is given; constants: parameters and buffers by the
    names under which calls read them; other: the same program for another number of images, where that is open;
    channels_first: as of a `Graph`."""

    inputs: Sequence[tuple[str, tuple[int, ...]]]
    constants: Mapping[str, np.ndarray]
    calls: Sequence[Call]
    outputs: tuple[str, ...]
    other: Program | None = None
    channels_first: bool = False


def translate(program: Program) -> Graph:
    """The program as a graph. ValueError if its inputs are not one batch of images."""
    if len(program.inputs) != 1:
        names = ", ".join(name for name, _ in program.inputs) or "none"
        raise ValueError(f"a model with one input is read; this one has {names}")
    ((name, (batch, *dims)),) = program.inputs
    if len(dims) not in (1, 2, 3) or min(dims) < 1:
        raise ValueError(f"its input {name} must be (N, C, H, W), (N, C, W) or (N, units), got {(batch, *dims)}")
    translation = _Translation(name, batch, program.constants)
    for call in program.calls:
        translation.add(call)
    outputs = tuple(translation.output(output) for output in program.outputs)
    other = None if program.other is None else translate(program.other)
    nodes, constants, kinds = translation.nodes, translation.constants, (tuple(CALLS), "zfcuda.interop.aten.CALLS")
    return Graph(name, tuple(dims), batch, nodes, constants, outputs, *kinds, other, program.channels_first)


class _Translation:
    """Nodes so far. An operation in place changes what other names of its tensor mean from there on:

    names    of the program -> of the graph, as it is now
    storage  of the program's names -> the tensor whose memory it is
    changed  names whose memory was written to through another view of it: they are not followed
    known    the graph's names of what does not depend on the image, besides its constants
    """

    def __init__(self, image: str, batch: int, constants: Mapping[str, np.ndarray]):
        self.batch = batch
        self.constants = dict(constants)
        self.nodes: list[Node] = []
        self.names: dict[str, str] = {name: name for name in (image, *constants)}
        self.storage: dict[str, str] = dict(self.names)
        self.changed: set[str] = set()
        self.known: set[str] = set()
        self.numbers: dict[str, int] = {}

    def is_known(self, name: str) -> bool:
        """Whether the graph's tensor of this name is known before there is an image."""
        return name in self.constants or name in self.known

    def add(self, call: Call) -> None:
        target = call.target.removeprefix("torch.ops.")
        word = target.split(".")[1] if target.startswith("aten.") else target
        in_place = word.endswith("_") and not word.startswith("_")
        plain = word.rstrip("_") if in_place else word
        if plain == "sym_size" and call.arguments["dim"] == 0:  # the others are fixed
            self.numbers[call.outputs[0]] = self.batch
            return
        name = layer_name(call.path, call.own, plain)
        first = next(iter(_refs(call.arguments.values())), None)
        try:
            if "out" in call.arguments:
                raise ValueError("writes into a tensor that it is given (out=), which is not read")
            made = self._made(call, plain if target.startswith("aten.") else "")
        except (ValueError, *MALFORMED) as error:
            problem = str(error) if isinstance(error, ValueError) else f"has other arguments than are read ({error})"
            refs = tuple(self.names.get(ref, ref) for ref in _refs(call.arguments.values()))
            self.nodes.append(Node(None, target, name, refs, call.outputs, problem=problem))
            self.names |= {output: output for output in call.outputs}
            self._written(call, first, in_place)
            # Its outputs may be views of what it was given: what is written into these later counts for that, too.
            self.storage |= {output: self.storage.get(first or output, output) for output in call.outputs}
            return
        if isinstance(made, str):
            self.names[call.outputs[0]] = made
        else:
            op, inputs, attributes = made
            self.nodes.append(Node(op, target, name, tuple(inputs), call.outputs, attributes))
            self.names |= {output: output for output in call.outputs}
            if all(self.is_known(one) for one in inputs if one):
                self.known.update(call.outputs)
        self._remember(call, plain, in_place, first)

    def _made(self, call: Call, plain: str) -> Made:
        """As of `CALLS`. What reads nothing that depends on the image is computed, by its own library if need be."""
        arguments = Arguments(self, call)
        refs = [arguments.of(ref) for ref in _refs(call.arguments.values())]
        alone = all(self.is_known(ref) for ref in refs)
        try:
            if plain not in CALLS:
                raise ValueError(_ALONE if alone and refs else "is no operation that is read")
            made = CALLS[plain](arguments)
            if isinstance(made, str) or not alone:
                return made
            if call.compute is None and made[0] not in KNOWN:
                raise ValueError(_ALONE)
        except (ValueError, *MALFORMED):
            if not alone or call.compute is None:
                raise
        return made if call.compute is None else ("evaluated", refs, {"compute": call.compute})

    def output(self, name: str) -> str:
        """The graph's name of an output. One that is not followed becomes an operation that cannot be read."""
        if name in self.changed:
            problem = "was changed in place through another view of it: copy one of them"
            self.nodes.append(Node(None, "output", name, (), (name,), problem=problem))
            return name
        return self.names.get(name, name)

    def _remember(self, call: Call, plain: str, in_place: bool, first: str | None) -> None:
        """Which memory the outputs are in, and what has changed in it."""
        self._written(call, first, in_place)
        shares = in_place or call.shares or plain in _VIEWS or plain in _COPIES_IF_NEEDED
        for output in call.outputs:
            self.storage[output] = self.storage[first] if shares and first is not None else output

    def _written(self, call: Call, first: str | None, in_place: bool) -> None:
        """What other names mean from here on of a tensor that the call writes to: its first, or its `out`."""
        target = first if in_place else next(iter(_refs([call.arguments.get("out")])), None)
        if target is None or not call.outputs:
            return
        before, after = self.names[target], self.names[call.outputs[0]]
        for name, storage in list(self.storage.items()):
            if storage == self.storage[target] and name not in call.outputs:
                if self.names[name] == before:
                    self.names[name] = after
                else:
                    self.changed.add(name)


_ALONE = (
    "computes with parameters alone, and is not read: make its result a parameter before the export, as "
    "torch.nn.utils.parametrize.remove_parametrizations does"
)
_VIEWS = (
    *("transpose", "permute", "t", "chunk", "split", "split_with_sizes", "slice", "select", "narrow", "expand"),
    *("view", "unflatten", "squeeze", "unsqueeze", "alias", "detach"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
)
# Whether these copy depends on sizes, strides and types. Their outputs have names of their own in the graph: once one
# of the two tensors is written to, the other is not followed.
_COPIES_IF_NEEDED = ("reshape", "flatten", "contiguous", "to", "channel_shuffle", "native_channel_shuffle")


def _refs(values: Any) -> list[str]:
    found: list[str] = []
    for value in values:
        if isinstance(value, Ref):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _refs(value)
    return found
