"""Residual networks (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from ..architecture import Architecture
from ..layers import (
    AddSpec,
    AvgPoolSpec,
    BatchNormSpec,
    ConvSpec,
    FullyConnectedSpec,
    LayerSpec,
    MaxPoolSpec,
    ReLUSpec,
)
from ..network import Network

_SMALL = 64  # images below this size keep their resolution in the stem


def resnet18(num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
    """ResNet-18: images (input_size, input_size, 3); layers bear the names that they have in torchvision, with
    "layer1.0.add" and "layer1.0.relu2" for the sum of a residual block and its ReLU. Weights start at He's scale.

    blocks: 1 the stem, 2 to 5 the four groups of residual blocks, 6 the classifier. Images below 64 pixels have a stem
    of one 3x3 convolution at stride 1 without a pool, as usual for CIFAR.
    """
    return Network(resnet18_architecture(num_classes, input_size), seed=seed)


def resnet50(num_classes: int = 1000, input_size: int = 224, *, seed: int = 0) -> Network:
    """ResNet-50, of bottleneck blocks whose 3x3 convolution has the stride (as in torchvision); else as `resnet18`."""
    return Network(resnet50_architecture(num_classes, input_size), seed=seed)


def resnet18_architecture(num_classes: int = 1000, input_size: int = 224) -> Architecture:
    return _resnet((2, 2, 2, 2), False, num_classes, input_size)


def resnet50_architecture(num_classes: int = 1000, input_size: int = 224) -> Architecture:
    return _resnet((3, 4, 6, 3), True, num_classes, input_size)


def _resnet(depths: Sequence[int], bottleneck: bool, num_classes: int, input_size: int) -> Architecture:
    layers: list[LayerSpec] = []
    if input_size < _SMALL:
        layers += _normalised("conv1", "bn1", 64, 3, inputs=(), block=1)
        layers.append(ReLUSpec("relu", block=1))
    else:
        layers += _normalised("conv1", "bn1", 64, 7, 2, inputs=(), block=1)
        layers += [ReLUSpec("relu", block=1), MaxPoolSpec("maxpool", 3, 2, 1, block=1)]
    channels = 64
    for group, depth in enumerate(depths, start=1):
        width = 64 * 2 ** (group - 1)
        maps = 4 * width if bottleneck else width
        for i in range(depth):
            stride = 2 if group > 1 and i == 0 else 1
            projects = stride > 1 or channels != maps
            below = layers[-1].name
            layers += _residual(f"layer{group}.{i}", below, width, maps, stride, bottleneck, projects, group + 1)
            channels = maps
    layers += [AvgPoolSpec("avgpool", block=6), FullyConnectedSpec("fc", num_classes, block=6)]
    return Architecture((input_size, input_size, 3), tuple(layers), initial="he")


def _residual(
    name: str, below: str, width: int, maps: int, stride: int, bottleneck: bool, projects: bool, block: int
) -> list[LayerSpec]:
    """One residual block on the output of layer `below`."""
    # (maps, kernel, stride) of its convolutions
    convolutions: tuple[tuple[int, int, int], ...] = ((width, 3, stride), (maps, 3, 1))
    if bottleneck:
        convolutions = ((width, 1, 1), (width, 3, stride), (maps, 1, 1))
    layers: list[LayerSpec] = []
    for i, (count, kernel, step) in enumerate(convolutions, start=1):
        inputs = (below,) if i == 1 else ()
        layers += _normalised(f"{name}.conv{i}", f"{name}.bn{i}", count, kernel, step, inputs=inputs, block=block)
        if i < len(convolutions):
            layers.append(ReLUSpec(f"{name}.relu{i}" if bottleneck else f"{name}.relu", block=block))
    main, skip = layers[-1].name, below
    if projects:
        down = f"{name}.downsample"
        layers += _normalised(f"{down}.0", f"{down}.1", maps, 1, stride, inputs=(below,), block=block)
        skip = layers[-1].name
    layers.append(AddSpec(f"{name}.add", inputs=(main, skip), block=block))
    layers.append(ReLUSpec(f"{name}.relu{len(convolutions)}", block=block))
    return layers


def _normalised(
    conv: str, norm: str, maps: int, kernel: int, stride: int = 1, *, inputs: tuple[str, ...], block: int
) -> list[LayerSpec]:
    return [
        ConvSpec(conv, maps, kernel, stride, kernel // 2, bias=False, inputs=inputs, block=block),
        BatchNormSpec(norm, block=block),
    ]
