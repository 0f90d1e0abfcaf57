"""Networks to start from: the paper's (Fig. 3, P1) with the variants of Table 3 (P10), and later ones."""

from .resnet import resnet18, resnet18_architecture, resnet50, resnet50_architecture
from .variants import VARIANTS, Variant, change_first_layer, drop_layers, scale_layers
from .vgg import vgg16, vgg16_architecture
from .zfnet import (
    alexnet,
    alexnet_architecture,
    zfnet,
    zfnet_architecture,
    zfnet_small,
    zfnet_small_architecture,
)

__all__ = [
    "VARIANTS",
    "Variant",
    "alexnet",
    "alexnet_architecture",
    "change_first_layer",
    "drop_layers",
    "resnet18",
    "resnet18_architecture",
    "resnet50",
    "resnet50_architecture",
    "scale_layers",
    "vgg16",
    "vgg16_architecture",
    "zfnet",
    "zfnet_architecture",
    "zfnet_small",
    "zfnet_small_architecture",
]
