"""PyTorch: arrays without a copy, networks from modules and as modules, weights of a module of the same architecture.

PyTorch keeps images NCHW, filters OIHW and flattens maps in CHW order; zfcuda keeps NHWC, KRSC and HWC. A tensor in
PyTorch's channels_last format has zfcuda's order in memory, so images cross without a copy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import backends
from ..backends import Array
from ..nn import Network
from ..nn.finite import is_finite
from ..nn.layers import Layer
from ..pairs import as_pair, as_sides
from .export import from_module

__all__ = ["from_module", "from_torch", "images_from_torch", "images_to_torch", "load_weights", "to_module", "to_torch"]


# ---- Arrays ------------------------------------------------------------------------------------------------------


def from_torch(tensor: torch.Tensor) -> Array:
    """The tensor's values as a NumPy array (CPU) or a CuPy array (GPU) that shares its memory; strides stay, gradients
    are not tracked. TypeError if it is no dense tensor, or of a dtype that NumPy does not have."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise TypeError(f"tensor must be dense, got layout {tensor.layout}")
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy's and PyTorch's bfloat16 do not know each other: the bits cross
        return from_torch(tensor.view(torch.int16)).view(backends.BFLOAT16)
    if tensor.device.type == "cpu":
        return tensor.numpy()
    return backends.get("cuda").xp.from_dlpack(tensor)


def to_torch(array: Array) -> torch.Tensor:
    """A tensor on the array's device that shares its memory. TypeError if it is neither NumPy's nor CuPy's."""
    if not isinstance(array, np.ndarray) and not hasattr(array, "__cuda_array_interface__"):
        raise TypeError(f"array must be a NumPy or CuPy array, got {type(array).__name__}")
    if array.dtype == backends.BFLOAT16:
        return to_torch(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def images_from_torch(tensor: torch.Tensor) -> Array:
    """(N, C, H, W) -> (N, H, W, C), sharing memory. C-contiguous, so that no operation copies it, exactly if the tensor
    is channels_last."""
    if tensor.ndim != 4:
        raise ValueError(f"tensor must have 4 dimensions (N, C, H, W), got shape {tuple(tensor.shape)}")
    return from_torch(tensor.permute(0, 2, 3, 1))


def images_to_torch(array: Array) -> torch.Tensor:
    """(N, H, W, C) -> (N, C, H, W), channels_last, sharing memory."""
    if array.ndim != 4:
        raise ValueError(f"array must have 4 dimensions (N, H, W, C), got shape {tuple(array.shape)}")
    return to_torch(array).permute(0, 3, 1, 2)


# ---- Weights ---------------------------------------------------------------------------------------------------------


def load_weights(network: Network, module: nn.Module) -> None:
    """Copies the weights of a module of the same architecture into a network, on the network's device.

    The module's Conv2d and Linear layers, in the order of `module.modules()`, are matched with the network's conv and
    fully connected layers; every other module in it (ReLU, pools, normalisation, with all their attributes) must do
    what some layer of the network does. ValueError, before anything is changed, that names the module and the attribute
    where that is not so, or where a parameter has no place in the network, is shared by two, or is not finite in
    float32. What the module does in `forward` between them is not seen here, and must be the same.

    Where a network has branches, or other layers with weights, `from_module` must make the same layers of the module,
    in the same order; names do not matter.
    """
    chain = all(one.inputs == (before.name,) for before, one in itertools.pairwise(network.layers.values()))
    plain = all(
        one.product is not None or not (one.parameter_shapes or one.state_shapes) for one in network.layers.values()
    )
    parameters = _plain_weights(network, module) if chain and plain else _graph_weights(network, module)
    backend, _ = backends.resolve(**network.parameters())
    network.set_parameters({name: backend.xp.asarray(array) for name, array in parameters.items()})


def _graph_weights(network: Network, module: nn.Module) -> dict[str, np.ndarray]:
    read = from_module(module, network.input_shape)
    names = {"input": "input", **dict(zip(read.layers, network.layers, strict=False))}
    for expected, found in itertools.zip_longest(network.architecture.layers, read.architecture.layers):
        if expected is None or found is None:
            raise ValueError(f"module has {len(read.layers)} layers, the network {len(network.layers)}")
        inputs = tuple(names[name] for name in read.layers[found.name].inputs)
        as_there = dataclasses.replace(found, name=expected.name, block=expected.block, inputs=inputs)
        wanted = dataclasses.replace(expected, inputs=network.layers[expected.name].inputs)
        if as_there != wanted:
            raise ValueError(
                f"module's layer {found.name} must match {expected.name}: must be {wanted}, got {as_there}"
            )
    arrays: Any = read.parameters() | read.state()
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": array for key, array in arrays.items()}


def _plain_weights(network: Network, module: nn.Module) -> dict[str, np.ndarray]:
    matched = _matched(network, module)
    parameters: dict[str, np.ndarray] = {}
    for layer, (name, source) in matched:
        parameters[f"{layer.name}.weight"] = _weight_from_torch(layer, _to_numpy(f"{name}.weight", source.weight))
        if "bias" not in layer.parameter_shapes:
            continue
        bias = np.zeros(layer.parameter_shapes["bias"], np.float32)
        parameters[f"{layer.name}.bias"] = bias if source.bias is None else _to_numpy(f"{name}.bias", source.bias)
    return parameters


_Named = tuple[str, Any]


def _matched(network: Network, module: nn.Module) -> list[tuple[Layer, _Named]]:
    """Each layer with weights, and the module (with its name) that they come from."""
    layers = [layer for layer in network.layers.values() if layer.product is not None]
    leaves = [(name, leaf) for name, leaf in module.named_modules() if not any(leaf.children())]
    sources = [(name, leaf) for name, leaf in leaves if isinstance(leaf, (nn.Conv2d, nn.Linear))]
    rest = [layer for layer in network.layers.values() if layer.product is None and layer.kind in _MODULES]
    others = [(layer.name, _module_of(layer)) for layer in rest]
    for name, leaf in leaves:
        if not isinstance(leaf, (nn.Conv2d, nn.Linear, *_NOTHING_AT_TEST_TIME)):
            _check_other(name, leaf, others)
    if len(layers) != len(sources):
        raise ValueError(
            f"module has {len(sources)} Conv2d and Linear layers, the network {len(layers)} conv and fc layers"
        )
    placed: dict[int, str] = {}
    for layer, (name, source) in zip(layers, sources, strict=True):
        difference = _difference(_module_of(layer), source)
        if difference:
            raise ValueError(f"module's layer {name} must match {layer.name}: {difference}")
        for field in ("weight", "bias"):
            parameter = getattr(source, field)
            if parameter is not None and placed.setdefault(id(parameter), f"{name}.{field}") != f"{name}.{field}":
                raise ValueError(f"module's {name}.{field} is that of {placed[id(parameter)]}; layers share no weights")
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if id(values) not in placed:
            raise ValueError(f"module's {name} has no place in the network, whose layers have a weight and a bias")
    return list(zip(layers, sources, strict=True))


# At test time they pass on what comes in. (Whether maps are flattened is seen in the shapes of weights.)
_NOTHING_AT_TEST_TIME = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d)
_PLAIN = ("inplace", "in_channels", "out_channels", "in_features", "out_features")  # no matter, or seen in the weight


def _check_other(name: str, leaf: nn.Module, others: list[_Named]) -> None:
    """ValueError if a module without weights does what none of these does, by name."""
    alike = {known: _difference(other, leaf) for known, other in others if type(other) is type(leaf)}
    if not alike:
        raise ValueError(f"module's layer {name} is a {_kind(leaf)}, which no layer of the network does")
    if all(alike.values()):
        known, difference = next(iter(alike.items()))
        raise ValueError(f"module's layer {name} must match a layer of the network, such as {known}: {difference}")


def _difference(expected: Any, actual: Any) -> str:
    """In what one module does something else than another of its kind; "" if in nothing."""
    if type(actual) is not type(expected):
        return f"kind must be {_kind(expected)}, got {_kind(actual)}"
    wanted, found = _attributes(expected), _attributes(actual)
    return next(
        (
            f"{field} must be {wanted[field]}, got {found[field]}"
            for field in wanted
            if not _same(wanted[field], found[field])
        ),
        "",
    )


def _attributes(module: Any) -> dict[str, Any]:
    """What PyTorch itself takes for the module's constants, an int for two sides as a pair."""
    attributes = {"weight": tuple(module.weight.shape)} if hasattr(module, "weight") else {}
    for field in module.__constants__:
        value = getattr(module, field, None)
        pair = field in ("kernel_size", "stride", "padding", "dilation") and isinstance(value, int)
        attributes |= {} if field in _PLAIN else {field: (value, value) if pair else value}
    return attributes


def _same(wanted: Any, found: Any) -> bool:
    return math.isclose(wanted, found) if isinstance(wanted, float) and isinstance(found, float) else wanted == found


def _kind(module: nn.Module) -> str:
    kind = type(module)
    return kind.__name__ if kind is getattr(nn, kind.__name__, None) else f"{kind.__module__}.{kind.__qualname__}"


def _to_numpy(name: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.dtype.is_floating_point:
        held = f"{tensor.layout}, {tensor.dtype} on {tensor.device}"
        raise ValueError(f"module's {name} must be a dense tensor of real floating-point numbers, got {held}")
    values = tensor.detach().float().cpu().numpy().copy()
    if not is_finite(values):
        raise ValueError(f"module's {name} has values that are not finite in float32")
    return values


def _weight_from_torch(layer: Any, weight: np.ndarray) -> np.ndarray:
    """OIHW -> KRSC, or the columns of a matrix from CHW to HWC order."""
    units, *window, channels = _filter_shape(layer)
    weight = np.moveaxis(weight.reshape(units, channels, *window), 1, -1)
    return np.ascontiguousarray(weight).reshape(layer.weight.shape)


def _weight_to_torch(layer: Any, shape: torch.Size) -> torch.Tensor:
    """A copy in PyTorch's order: the inverse of `_weight_from_torch`."""
    weight = to_torch(layer.weight).reshape(_filter_shape(layer)).movedim(-1, 1)
    return weight.clone(memory_format=torch.contiguous_format).reshape(shape)


def _filter_shape(layer: Any) -> tuple[int, ...]:
    """(K, R, S, C), or of a matrix (units, H, W, C): the inputs of a unit as they lie."""
    return layer.weight.shape if layer.weight.ndim == 4 else (len(layer.weight), *layer.input_shape)


# ---- Modules ---------------------------------------------------------------------------------------------------------


def to_module(network: Network) -> nn.Sequential:
    """The network as a PyTorch module with a copy of its weights, on the network's device: images (N, C, H, W) to
    logits. It is in eval mode, so that it computes what `Network.forward` does, at test time; `train()` it to train it.

    Its children have the names of the network's layers, with _ for a dot, and run in their order, each on what its
    layer reads; `flatten` stands before the first fc layer on maps. ValueError if two would have one name."""
    children: list[tuple[str, nn.Module]] = []
    reads: list[tuple[str, ...]] = []
    child_of = {"input": "input"}
    for layer in network.layers.values():
        module, name = _module_of(layer), layer.name.replace(".", "_")
        inputs = tuple(child_of[one] for one in layer.inputs)
        if isinstance(module, nn.Linear) and len(layer.input_shape) == 3:
            first = not any(isinstance(child, nn.Flatten) for _, child in children)
            flatten = "flatten" if first else f"{name}_flatten"
            children.append((flatten, nn.Flatten()))
            reads.append(inputs)
            inputs = (flatten,)
        children.append((name, _with_weights(module, layer)))
        reads.append(inputs)
        child_of[layer.name] = name
    names = [name for name, _ in children]
    if len(set(names)) < len(names):
        raise ValueError(f"layers of a module must have different names, also with _ for dots; got {', '.join(names)}")
    if all(inputs == (before,) for inputs, before in zip(reads, ["input", *names], strict=False)):
        return nn.Sequential(OrderedDict(children)).eval()
    return _Graph(OrderedDict(children), reads).eval()


class _Graph(nn.Sequential):
    """Children that run one after the other, each on what those make that it reads; "input" is the image."""

    def __init__(self, children: OrderedDict[str, nn.Module], reads: Sequence[tuple[str, ...]]):
        super().__init__(children)
        self.reads = tuple(reads)

    def __getitem__(self, index: Any) -> Any:
        """A child, or the graph up to one, which then is the output."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        if index.start or index.step:
            raise ValueError(f"a graph has parts from its start only, module[:stop], got {index}")
        return _Graph(OrderedDict(list(self.named_children())[index]), self.reads[index])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = {"input": x}
        for (name, child), inputs in zip(self.named_children(), self.reads, strict=True):
            x = made[name] = child(*(made[one] for one in inputs))
        return x


class _Sum(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        total = inputs[0]
        for one in inputs[1:]:
            total = total + one
        return total


class _Concat(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, 1)


class _Channels(nn.Module):
    """Channels in another order, or some of them."""

    def __init__(self, order: Sequence[int]):
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(1, self.order)  # type: ignore[arg-type]


class _Rows(nn.Module):
    """Maps as rows in the order (H, W, C), as zfcuda has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class _Fixed(nn.Module):
    """A factor and a shift of each channel."""

    def __init__(self, channels: int, rank: int):
        super().__init__()
        self.shape = (1, channels, *[1] * (rank - 1))
        self.register_buffer("weight", torch.empty(channels))
        self.register_buffer("bias", torch.empty(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.view(self.shape) + self.bias.view(self.shape)  # type: ignore[operator, union-attr]


def _module_of(layer: Layer) -> Any:
    """The module that does what the layer does; one with weights is on no device."""
    if layer.kind not in _MODULES:
        raise TypeError(f"layer {layer.name} is of kind {layer.kind!r}, of which PyTorch has no module")
    return _MODULES[layer.kind](layer)


def _padded(layer: Any, fill: float, of: Callable[[Any], nn.Module]) -> nn.Module:
    """A module with the layer's padding, or behind one that pads where the sides differ. of: from its padding."""
    (top, bottom), (left, right) = as_sides(layer.padding)
    if (top, left) == (bottom, right):
        return of((top, left))
    return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), fill), of((0, 0)))


def _conv_module(layer: Any) -> nn.Module:
    fields = {"stride": as_pair(layer.stride), "dilation": as_pair(layer.dilation), "groups": layer.groups}
    fields |= {"bias": "bias" in layer.parameter_shapes, "device": "meta"}
    channels = layer.input_shape[2], layer.maps
    return _padded(layer, 0.0, lambda padding: nn.Conv2d(*channels, layer.kernel_size, padding=padding, **fields))


def _pool_module(layer: Any) -> nn.Module:
    window, stride, ceil = as_pair(layer.window), as_pair(layer.stride), layer.ceil_mode
    return _padded(layer, -math.inf, lambda padding: nn.MaxPool2d(window, stride, padding, ceil_mode=ceil))


def _avgpool_module(layer: Any) -> nn.Module:
    if layer.window is None:
        return nn.AdaptiveAvgPool2d(1)
    window = as_pair(layer.window)
    stride = window if layer.stride is None else as_pair(layer.stride)
    (top, bottom), (left, right) = as_sides(layer.padding)
    if (top, left) != (bottom, right) and (layer.ceil_mode or not layer.count_include_pad):
        raise TypeError(f"layer {layer.name} pads its sides differently and does not count that; PyTorch does neither")
    counts = {"ceil_mode": layer.ceil_mode, "count_include_pad": layer.count_include_pad}
    return _padded(layer, 0.0, lambda padding: nn.AvgPool2d(window, stride, padding, **counts))


def _batchnorm_module(layer: Any) -> nn.Module:
    if layer.frozen:
        return _Fixed(layer.input_shape[-1], len(layer.input_shape))
    kind: Any = nn.BatchNorm2d if len(layer.input_shape) == 3 else nn.BatchNorm1d
    return kind(layer.input_shape[-1], layer.eps, layer.momentum, layer.affine, device="meta")


_MODULES: dict[str, Callable[[Any], Any]] = {
    "conv": _conv_module,
    "fc": lambda layer: nn.Linear(
        math.prod(layer.input_shape), layer.units, bias="bias" in layer.parameter_shapes, device="meta"
    ),
    "pool": _pool_module,
    "avgpool": _avgpool_module,
    # PyTorch divides alpha by the size of the window.
    "norm": lambda layer: nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k),
    "batchnorm": _batchnorm_module,
    "relu": lambda layer: nn.ReLU(),
    "leaky_relu": lambda layer: nn.LeakyReLU(layer.slope),
    "prelu": lambda layer: nn.PReLU(layer.parameter_shapes["weight"][0], device="meta"),
    "clip": lambda layer: nn.Hardtanh(layer.low, layer.high),
    "add": lambda layer: _Sum(),
    "concat": lambda layer: _Concat(),
    "permute": lambda layer: _Channels(layer.order),
    "slice": lambda layer: _Channels(range(layer.start, layer.stop)),
    "flatten": lambda layer: _Rows(),
    "dropout": lambda layer: nn.Dropout(layer.probability),
}


def _with_weights(module: Any, layer: Any) -> nn.Module:
    arrays = (*layer.parameter_shapes, *layer.state_shapes)
    if not arrays:
        return module
    *_, holder = [child for child in module.modules() if not any(child.children())]
    weights = {name: to_torch(getattr(layer, name)).clone() for name in arrays}
    if isinstance(holder, _Fixed):
        scale = to_torch(layer.scale)
        weights = {"weight": scale, "bias": weights["bias"] - weights["running_mean"] * scale}
    elif isinstance(holder, (nn.Conv2d, nn.Linear)):
        weights["weight"] = _weight_to_torch(layer, holder.weight.shape)
    if isinstance(holder, (nn.BatchNorm1d, nn.BatchNorm2d)):
        if not holder.affine:
            del weights["weight"], weights["bias"]
        weights["num_batches_tracked"] = torch.zeros((), dtype=torch.int64, device=weights["running_var"].device)
    holder.load_state_dict(weights, assign=True)
    return module.requires_grad_()
