"""PyTorch in higher precision as the reference of whole networks, pooling where ours pooled and with our masks: where
rounding orders two neighbours otherwise, a gradient goes to another pixel, and neither is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from layers import indices_of
from torch import nn

from zfcuda.interop import torch as interop
from zfcuda.nn import Network


class _Pooled(nn.Module):
    """Takes from every window what indices (N,C,P,Q) say."""

    def __init__(self, indices: torch.Tensor):
        super().__init__()
        self.indices = indices

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).gather(2, self.indices.flatten(2)).view(self.indices.shape)


class _Masked(nn.Module):
    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def follow(network: Network, records: Sequence[Any], dtype: torch.dtype, *, masks: bool) -> nn.Sequential:
    """The network as PyTorch's, with the switches of a pass of it (its `records`), and with `masks` the rectifiers too:
    then it is for that batch alone, and linear but for normalisation."""
    module = interop.to_module(network)
    for stage, record in zip(network.stages, records, strict=True):
        names = [layer.name.replace(".", "_") for layer in stage.layers]
        for name, layer in zip(names, stage.layers, strict=True):
            if isinstance(getattr(module, name), nn.MaxPool2d):
                setattr(module, name, _Pooled(indices_of(layer, layer.input_shape[:2], record["switches"])))
        rectifiers = [name for name in names if isinstance(getattr(module, name), nn.ReLU)]
        if masks and rectifiers:
            for name in rectifiers:
                setattr(module, name, nn.Identity())
            setattr(module, names[-1], nn.Sequential(getattr(module, names[-1]), _Masked(_tensor(record["y"]) > 0)))
    return module.to(dtype)


def _tensor(array: Any) -> torch.Tensor:
    return interop.images_to_torch(array) if array.ndim == 4 else interop.to_torch(array)


def gradients(network: Network, records: Sequence[Any], x: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Of the mean cross-entropy, in the place of the parameters of PyTorch's module of the network. In float64 on every
    device: batch normalisation magnifies rounding, and PyTorch's own float32 is further from the truth than ours."""
    followed = follow(network, records, torch.float64, masks=True).train()
    nn.functional.cross_entropy(followed(x.double()), labels).backward()
    return in_place_of_parameters(network, [parameter.grad for parameter in followed.parameters()])


def in_place_of_parameters(network: Network, tensors: Sequence[torch.Tensor]) -> nn.Module:
    """PyTorch's module of the network with these, one for each of its parameters."""
    module = interop.to_module(network)
    with torch.no_grad():
        for parameter, like in zip(module.parameters(), tensors, strict=True):
            parameter.copy_(like)
    return module
