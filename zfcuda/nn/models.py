"""The networks of the paper (Fig. 3, P1), a small one for small images, and the variants of Table 3 (P10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .architecture import Architecture
from .layers import ConvSpec, DropoutSpec, FullyConnectedSpec, LayerSpec, MaxPoolSpec, NormSpec, ReLUSpec
from .network import Network

__all__ = [
    "VARIANTS",
    "Variant",
    "alexnet",
    "alexnet_architecture",
    "change_first_layer",
    "drop_layers",
    "scale_layers",
    "zfnet",
    "zfnet_architecture",
    "zfnet_small",
    "zfnet_small_architecture",
]


# ---- The models --------------------------------------------------------------------------------------------


def zfnet(num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
    """The paper's network (Fig. 3): images (input_size, input_size, 3), weights of standard deviation 1e-2."""
    return Network(zfnet_architecture(num_classes, input_size), seed=seed)


def alexnet(num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
    """The paper's K (Krizhevsky et al. 2012) as one dense stream: 11x11 stride 4 first layer, 96 256 384 384 256 maps.

    As in ZFNet each pool comes before its normalisation, which normalises a quarter of the values.
    """
    return Network(alexnet_architecture(num_classes, input_size), seed=seed)


def zfnet_small(num_classes: int, input_shape: tuple[int, int, int], *, seed: int = 0) -> Network:
    """ZFNet's form for small images: input_shape (H, W, C) of about 28 to 64 pixels, 40 M multiplications at 32x32x3.

    It has the same eight layers, so that all of Table 3's changes apply to it. Three things differ besides the sizes.
    Weights start at LeCun's scale: Gaussians of 1e-2 let the signal of such narrow layers die out, and He's scale
    gives layer 8 inputs too large for a learning rate of 1e-2 with momentum 0.9. The normalisation divides by the
    RMS of the neighbouring maps (beta 0.5), so that pixels in [0, 1] and in [-128, 128] train alike. And dropout is
    0.25: with a half, these layers of 512 units learn too slowly for the few epochs that such a net is given.
    """
    return Network(zfnet_small_architecture(num_classes, input_shape), seed=seed)


def zfnet_architecture(num_classes: int = 1000, input_size: int = 224) -> Architecture:
    layers = [
        *_conv(1, 96, kernel=7, stride=2, padding=1, pool=MaxPoolSpec("pool1", 3, 2, 1), norm=NormSpec("norm1")),
        *_conv(2, 256, kernel=5, stride=2, padding=0, pool=MaxPoolSpec("pool2", 3, 2, 1), norm=NormSpec("norm2")),
        *_conv(3, 384),
        *_conv(4, 384),
        *_conv(5, 256, pool=MaxPoolSpec("pool5", 3, 2)),
        *_classifier(4096, num_classes),
    ]
    return Architecture((input_size, input_size, 3), tuple(layers))


def alexnet_architecture(num_classes: int = 1000, input_size: int = 224) -> Architecture:
    layers = [
        *_conv(1, 96, kernel=11, stride=4, padding=2, pool=MaxPoolSpec("pool1", 3, 2), norm=NormSpec("norm1")),
        *_conv(2, 256, kernel=5, padding=2, pool=MaxPoolSpec("pool2", 3, 2), norm=NormSpec("norm2")),
        *_conv(3, 384),
        *_conv(4, 384),
        *_conv(5, 256, pool=MaxPoolSpec("pool5", 3, 2)),
        *_classifier(4096, num_classes),
    ]
    return Architecture((input_size, input_size, 3), tuple(layers))


def zfnet_small_architecture(num_classes: int, input_shape: tuple[int, int, int]) -> Architecture:
    stride = 1 if min(input_shape[:2]) < 48 else 2
    layers = [
        *_conv(1, 32, kernel=5, stride=stride, padding=2, pool=MaxPoolSpec("pool1", 3, 2, 1), norm=_divisive("norm1")),
        *_conv(2, 64, kernel=5, padding=2, pool=MaxPoolSpec("pool2", 3, 2, 1), norm=_divisive("norm2")),
        *_conv(3, 128),
        *_conv(4, 128),
        *_conv(5, 128, pool=MaxPoolSpec("pool5", 3, 2, 1)),
        *_classifier(512, num_classes, dropout=0.25),
    ]
    return Architecture(input_shape, tuple(layers), initial="lecun")


def _divisive(name: str) -> NormSpec:
    """Division by about the root mean square of the five neighbouring maps."""
    return NormSpec(name, size=5, alpha=0.2, beta=0.5)


def _conv(
    number: int,
    maps: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    pool: MaxPoolSpec | None = None,
    norm: NormSpec | None = None,
) -> list[LayerSpec]:
    """One conv layer of the paper's: conv, ReLU, and what follows it."""
    after = [layer for layer in (pool, norm) if layer is not None]
    return _block(number, ConvSpec(f"conv{number}", maps, kernel, stride, padding), ReLUSpec(f"relu{number}"), *after)


def _classifier(units: int, num_classes: int, dropout: float = 0.5) -> list[LayerSpec]:
    """Layers 6, 7 and 8."""
    return [
        *_block(6, FullyConnectedSpec("fc6", units), ReLUSpec("relu6"), DropoutSpec("drop6", dropout)),
        *_block(7, FullyConnectedSpec("fc7", units), ReLUSpec("relu7"), DropoutSpec("drop7", dropout)),
        *_block(8, FullyConnectedSpec("fc8", num_classes)),
    ]


def _block(number: int, *layers: LayerSpec) -> list[LayerSpec]:
    return [dataclasses.replace(layer, block=number) for layer in layers]


# ---- The rules of Table 3 -----------------------------------------------------------------------------------------


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
