"""Networks from PyTorch modules, by torch.export: what a module computes, however it is written."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..nn import Network
from .aten import Call, Ref
from .graph import check_image_shape
from .program import Program, is_own, translate
from .reader import read

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["from_module"]

# Of the examples: numbers that no module mentions, as it may in y[:2]; 1 would be broadcast. What depends on them is
# another network for the one than for the other.
_BATCHES = (13, 17)


def from_module(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    output: str | None = None,
    head: str | None = None,
    bgr: bool = False,
) -> Network:
    """The network that a module is in eval mode, on the CPU, with a copy of its weights in float32.

    input_shape: (H, W, C) of an image; the module gets (N, C, H, W), or (N, C, W) if H is 1, it has one-dimensional
    layers, and does not take that
    preprocess, classes: how images become inputs, and the names of the outputs
    output: which of several outputs is wanted, as torch.export calls it; by default the first
    head: what `Network.predict` makes of the outputs, "softmax", "sigmoid" or "none"; by default what the module does
    bgr: the module takes its three channels as blue, green, red; the network takes them as red, green, blue

    Functional operations, those in place and modules that are used twice become layers like all others. They have the
    names of their modules, what is functional that of the module around it and of the operation: "layer1.0.conv1",
    "layer1.0.add"; a second one of the same name is "layer1.0.relu_1". A softmax or sigmoid at the end is no layer:
    `net.head` says what it was. Weights that are computed of parameters (weight_norm, spectral_norm, any other of
    torch.nn.utils.parametrize) are what they are now. The module itself stays as it is, in the mode that it is in.

    ValueError where torch.export cannot follow the module, where the module does something else with more images at a
    time (as y * x.size(0)), for a head that says nothing (a softmax of one output), or that lists every operation which
    cannot be read, with what is allowed. TypeError if it is no module, or if input_shape is none.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    shape = check_image_shape(input_shape)
    held: dict[str, np.ndarray] = {}
    with _in_eval_mode(module):
        program, other = (_program(_exported(module, shape, batch), held) for batch in _BATCHES)
    graph = translate(dataclasses.replace(program, other=other))
    return read(graph, output=output, preprocess=preprocess, classes=classes, head=head, bgr=bgr)


@contextlib.contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


def _exported(module: nn.Module, image: tuple[int, int, int], batch: int) -> torch.export.ExportedProgram:
    like = next((one for one in module.parameters() if one.is_floating_point()), torch.empty(0))
    reasons: list[str] = []
    cause: Exception | None = None
    for shape in _input_shapes(module, image, batch):
        example = torch.zeros(shape, dtype=like.dtype, device=like.device)
        try:
            # Without gradients: else what a module does without them is no part of the program.
            with torch.no_grad(), warnings.catch_warnings():
                # As weight_norm of old assigns its weight. What is assigned is restored.
                warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
                return torch.export.export(module, (example,), strict=False)
        except Exception as error:  # whatever the module itself raises
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            reasons.append(f"inputs of {shape}: {reason}")
            cause = error
    raise ValueError(f"torch.export cannot follow the module for {'; for '.join(reasons)}") from cause


def _input_shapes(module: nn.Module, image: tuple[int, int, int], batch: int) -> list[tuple[int, ...]]:
    """What the module may take. One-dimensional layers say little: normalisation may stand on units, behind layers of
    two dimensions. But those that read the input refuse one with a height, where layers of two dimensions may take a
    signal without a batch for an image."""
    height, width, channels = image
    shapes: list[tuple[int, ...]] = [(batch, channels, height, width)]
    one_dimensional = (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.BatchNorm1d)
    if height == 1 and any(isinstance(child, one_dimensional) for child in module.modules()):
        shapes.append((batch, channels, width))
    return shapes


def _program(exported: torch.export.ExportedProgram, known: dict[str, np.ndarray]) -> Program:
    """known: parameters and buffers by their names in the module, to which those that are met are added."""
    signature = exported.graph_signature
    own = {**dict(exported.named_buffers()), **dict(exported.named_parameters())}
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    inputs, constants, calls = [], {}, []
    renamed: dict[str, str] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and (target := targets.get(node.name)) is not None:
            if target in own and target not in known:
                known[target] = _to_numpy(own[target])
            constants[node.name] = known[target] if target in own else _to_numpy(exported.constants[target])
        elif node.op == "placeholder":
            inputs.append((node.name, tuple(node.meta["val"].shape)))
        elif node.op == "call_function" and node.target is operator.getitem:
            source, index = node.args
            renamed[node.name] = f"{source.name}.{index}"
        elif node.op == "call_function":
            calls.append(_call(node, renamed))
    outputs = tuple(renamed.get(one, one) for one in signature.user_outputs if isinstance(one, str))
    return Program(inputs, constants, calls, outputs, channels_first=True)


def _call(node: torch.fx.Node, renamed: dict[str, str]) -> Call:
    def argument(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return Ref(renamed.get(value.name, value.name))
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        return [argument(one) for one in value] if isinstance(value, (list, tuple)) else value

    target: Any = node.target
    schema = getattr(target, "_schema", None)
    names = [one.name for one in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    arguments = dict(zip(names, node.args, strict=False)) | node.kwargs
    made = node.meta.get("val")
    outputs: tuple[str, ...] = (node.name,)
    if isinstance(made, (list, tuple)):
        outputs = tuple(f"{node.name}.{i}" for i in range(len(made)))
    path, kind = next(reversed((node.meta.get("nn_module_stack") or {"": ("", "")}).values()))
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    arguments = {name: argument(value) for name, value in arguments.items()}
    shares = schema is not None and any(one.alias_info is not None for one in schema.returns)
    return Call(str(target), arguments, outputs, path, is_own(kind), _computing(node), shares)


def _computing(node: torch.fx.Node) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None:
    """What a call makes of arrays, which stay as they are; None for one that draws numbers, or writes to what it is
    given, but for those in place."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if schema is None or torch.Tag.nondeterministic_seeded in target.tags:
        return None
    if schema.is_mutable and not schema.name.endswith("_"):
        return None

    def compute(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = iter([torch.from_numpy(np.array(array)) for array in arrays])
        arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda _: next(given))
        with torch.no_grad():
            made = target(*arguments[0], **arguments[1])
        return [_to_numpy(one) for one in (made if isinstance(made, (list, tuple)) else [made])]

    return compute


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return tensor.numpy()
