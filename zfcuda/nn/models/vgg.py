"""VGG (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from ..architecture import Architecture
from ..layers import ConvSpec, DropoutSpec, FullyConnectedSpec, LayerSpec, MaxPoolSpec, ReLUSpec
from ..network import Network

_MAPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
    """VGG-16 (configuration D): images (input_size, input_size, 3) of at least 32 pixels; layers "conv1_1", "relu1_1",
    ... "pool5", "fc6" ... "fc8", blocks 1 to 5 that end with the pools. Weights start at He's scale."""
    return Network(vgg16_architecture(num_classes, input_size), seed=seed)


def vgg16_architecture(num_classes: int = 1000, input_size: int = 224) -> Architecture:
    layers: list[LayerSpec] = []
    for block, maps in enumerate(_MAPS, start=1):
        for i, count in enumerate(maps, start=1):
            name = f"{block}_{i}"
            layers += [ConvSpec(f"conv{name}", count, 3, padding=1, block=block), ReLUSpec(f"relu{name}", block=block)]
        layers.append(MaxPoolSpec(f"pool{block}", 2, 2, block=block))
    for block in (6, 7):
        layers.append(FullyConnectedSpec(f"fc{block}", 4096, block=block))
        layers += [ReLUSpec(f"relu{block}", block=block), DropoutSpec(f"drop{block}", 0.5, block=block)]
    layers.append(FullyConnectedSpec("fc8", num_classes, block=8))
    return Architecture((input_size, input_size, 3), tuple(layers), initial="he")
