"""The networks of the paper (Fig. 3, P1), and a small one for small images."""

from __future__ import annotations

import dataclasses

from ..architecture import Architecture
from ..layers import ConvSpec, DropoutSpec, FullyConnectedSpec, LayerSpec, MaxPoolSpec, NormSpec, ReLUSpec
from ..network import Network


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
