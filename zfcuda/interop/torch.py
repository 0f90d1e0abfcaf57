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
    fully connected layers. ValueError, before anything is changed, if their number, shapes, strides or paddings differ.
    What the module does between them (ReLU, pools, normalisation) is not seen here, and must be the same.
    """
    layers = [layer for layer in network.layers.values() if layer.product is not None]
    sources = [(name, source) for name, source in module.named_modules() if isinstance(source, (nn.Conv2d, nn.Linear))]
    if len(layers) != len(sources):
        raise ValueError(
            f"module has {len(sources)} Conv2d and Linear layers, the network {len(layers)} conv and fc layers"
        )
    parameters: dict[str, np.ndarray] = {}
    for layer, (name, source) in zip(layers, sources, strict=True):
        _check_geometry(layer, name, source)
        parameters[f"{layer.name}.weight"] = _weight_from_torch(layer, _to_numpy(source.weight))
        bias = np.zeros(layer.parameter_shapes["bias"], np.float32) if source.bias is None else _to_numpy(source.bias)
        parameters[f"{layer.name}.bias"] = bias
    backend, _ = backends.resolve(**network.parameters())
    network.set_parameters({name: backend.xp.asarray(array) for name, array in parameters.items()})


def _check_geometry(layer: Layer, name: str, source: Any) -> None:
    expected, actual = (
        {
            "kind": type(module).__name__,
            "weight": tuple(module.weight.shape),
            **{field: getattr(module, field, None) for field in ("stride", "padding", "dilation", "groups")},
        }
        for module in (_module_of(layer), source)
    )
    for field, value in expected.items():
        if actual[field] != value:
            raise ValueError(
                f"module's layer {name} must match {layer.name}: {field} must be {value}, got {actual[field]}"
            )


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy().copy()


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
