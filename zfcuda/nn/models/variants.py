"""The variants of Table 3 (P10), as rules that change any network of numbered layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..architecture import Architecture
from ..layers import ConvSpec, LayerSpec
from ..network import Network
from .zfnet import alexnet_architecture, zfnet_architecture


def drop_layers(architecture: Architecture, *numbers: int) -> Architecture:
    """The architecture without the paper's layers of these numbers (with their ReLU, pool, normalisation, dropout); the
    others keep theirs. ValueError if one is not there, if it is the last, or if nothing that can be built is left."""
    layers = _numbered(architecture, "dropped", numbers)
    return _changed(architecture, [layer for layer in layers if layer.block not in numbers])


def scale_layers(architecture: Architecture, factors: Mapping[int, float]) -> Architecture:
    """The architecture with the maps or units of these layers multiplied (and rounded): {6: 0.5, 7: 0.5} makes 2048
    units of ZFNet's 4096. ValueError if a layer is not there, or is the last."""
    layers = _numbered(architecture, "scaled", factors)
    for number, factor in factors.items():
        if not factor > 0:
            raise ValueError(f"the factor of layer {number} must be positive, got {factor}")
    scaled = [layer if layer.block is None else layer.scaled(factors.get(layer.block, 1)) for layer in layers]
    return _changed(architecture, scaled)


def change_first_layer(architecture: Architecture, kernel: int, stride: int) -> Architecture:
    """The architecture with another kernel and stride of its first convolution, padded by half the kernel: the paper's
    11x11 stride 4 against 7x7 stride 2 (4.1). ValueError if there is no convolution, or nothing that can be built."""
    first = next((layer for layer in architecture.layers if isinstance(layer, ConvSpec)), None)
    if first is None:
        raise ValueError("the architecture has no convolution")
    other = dataclasses.replace(first, kernel=kernel, stride=stride, padding=kernel // 2)
    return _changed(architecture, [other if layer is first else layer for layer in architecture.layers])


def _numbered(architecture: Architecture, what: str, numbers: Iterable[int]) -> list[LayerSpec]:
    """The layers, each with its number as its block; ValueError unless `numbers` are some of them, but the last."""
    have = architecture.numbers()
    allowed = [number for number in dict.fromkeys(have) if number not in (None, have[-1])]
    for number in numbers:
        if number not in allowed:
            raise ValueError(f"layers that can be {what} are {allowed}, got {number}")
    return [dataclasses.replace(layer, block=number) for layer, number in zip(architecture.layers, have, strict=True)]


def _changed(architecture: Architecture, layers: Sequence[LayerSpec]) -> Architecture:
    changed = dataclasses.replace(architecture, layers=tuple(layers))
    changed.shapes()
    return changed


@dataclass(frozen=True)
class Variant:
    """A row of Table 3: one of the paper's two models, changed by a rule that applies to any eight-layer network.

    Called, it builds the network at full size. `change(architecture)` applies only the rule, for instance to
    `zfnet_small_architecture(10, (32, 32, 3))`; `changes` says in words what that does to any network.
    """

    name: str
    base: Callable[[int, int], Architecture]
    changes: str
    dropped: tuple[int, ...] = ()
    factors: tuple[tuple[int, float], ...] = ()

    def change(self, architecture: Architecture) -> Architecture:
        return scale_layers(drop_layers(architecture, *self.dropped), dict(self.factors))

    def __call__(self, num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
        return Network(self.change(self.base(num_classes, input_size)), seed=seed)


_K, _ZF = alexnet_architecture, zfnet_architecture
_HALF_67 = ((6, 0.5), (7, 0.5))
_DOUBLE_67 = ((6, 2.0), (7, 2.0))
_WIDE_345 = ((3, 4 / 3), (4, 8 / 3), (5, 2.0))  # 384, 384, 256 -> 512, 1024, 512

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("K", _K, "as it is"),
        Variant("K without layers 3,4", _K, "without layers 3,4", dropped=(3, 4)),
        Variant("K without layer 7", _K, "without layer 7", dropped=(7,)),
        Variant("K without layers 6,7", _K, "without layers 6,7", dropped=(6, 7)),
        Variant("K without layers 3,4,6,7", _K, "without layers 3,4,6,7", dropped=(3, 4, 6, 7)),
        Variant("K, layers 6,7 of 2048 units", _K, "layers 6,7 of half the units", factors=_HALF_67),
        Variant("K, layers 6,7 of 8192 units", _K, "layers 6,7 of twice the units", factors=_DOUBLE_67),
        Variant("ZF", _ZF, "as it is"),
        Variant("ZF, layers 6,7 of 2048 units", _ZF, "layers 6,7 of half the units", factors=_HALF_67),
        Variant("ZF, layers 6,7 of 8192 units", _ZF, "layers 6,7 of twice the units", factors=_DOUBLE_67),
        Variant(
            "ZF, layers 3,4,5 of 512,1024,512 maps",
            _ZF,
            "layers 3,4,5 of 4/3, 8/3, 2 times the maps",
            factors=_WIDE_345,
        ),
        Variant(
            "ZF, layers 6,7 of 8192 units and 3,4,5 of 512,1024,512 maps",
            _ZF,
            "layers 6,7 of twice the units and 3,4,5 of 4/3, 8/3, 2 times the maps",
            factors=_DOUBLE_67 + _WIDE_345,
        ),
    )
}
