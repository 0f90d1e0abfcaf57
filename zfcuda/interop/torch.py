"""PyTorch: arrays without a copy, weights of a module of the same architecture, and a network as a module.

PyTorch keeps images NCHW, filters OIHW and flattens maps in CHW order; zfcuda keeps NHWC, KRSC and HWC. A tensor in
PyTorch's channels_last format has zfcuda's order in memory, so images cross without a copy.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import backends
from ..backends import Array
from ..nn import Network
from ..nn.finite import is_finite
from ..nn.layers import Layer
from ..pairs import as_pair

__all__ = ["from_torch", "images_from_torch", "images_to_torch", "load_weights", "to_module", "to_torch"]


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
    """
    matched = _matched(network, module)
    parameters: dict[str, np.ndarray] = {}
    for layer, (name, source) in matched:
        parameters[f"{layer.name}.weight"] = _weight_from_torch(layer, _to_numpy(f"{name}.weight", source.weight))
        bias = np.zeros(layer.parameter_shapes["bias"], np.float32)
        parameters[f"{layer.name}.bias"] = bias if source.bias is None else _to_numpy(f"{name}.bias", source.bias)
    backend, _ = backends.resolve(**network.parameters())
    network.set_parameters({name: backend.xp.asarray(array) for name, array in parameters.items()})


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
    logits. Its children have the names of the network's layers, with _ for a dot; `flatten` stands before the first fc
    layer. ValueError if two would have one name."""
    children: list[tuple[str, nn.Module]] = []
    for layer in network.layers.values():
        module = _module_of(layer)
        if isinstance(module, nn.Linear) and len(layer.input_shape) == 3:
            children.append(("flatten", nn.Flatten()))
        children.append((layer.name.replace(".", "_"), _with_weights(module, layer)))
    names = [name for name, _ in children]
    if len(set(names)) < len(names):
        raise ValueError(f"layers of a module must have different names, also with _ for dots; got {', '.join(names)}")
    return nn.Sequential(OrderedDict(children))


def _module_of(layer: Layer) -> Any:
    """The module that does what the layer does; one with weights is on no device."""
    if layer.kind not in _MODULES:
        raise TypeError(f"layer {layer.name} is of kind {layer.kind!r}, of which PyTorch has no module")
    return _MODULES[layer.kind](layer)


_MODULES: dict[str, Callable[[Any], Any]] = {
    "conv": lambda layer: nn.Conv2d(
        layer.input_shape[2],
        layer.maps,
        layer.kernel_size,
        as_pair(layer.stride),
        as_pair(layer.padding),
        device="meta",
    ),
    "fc": lambda layer: nn.Linear(math.prod(layer.input_shape), layer.units, device="meta"),
    "pool": lambda layer: nn.MaxPool2d(as_pair(layer.window), as_pair(layer.stride), as_pair(layer.padding)),
    # PyTorch divides alpha by the size of the window.
    "norm": lambda layer: nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k),
    "relu": lambda layer: nn.ReLU(),
    "dropout": lambda layer: nn.Dropout(layer.probability),
}


def _with_weights(module: Any, layer: Any) -> nn.Module:
    if layer.product is None:
        return module
    weights = {"weight": _weight_to_torch(layer, module.weight.shape), "bias": to_torch(layer.bias).clone()}
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_()
