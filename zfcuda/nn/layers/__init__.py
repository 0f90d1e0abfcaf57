"""The kinds of layers, a file each, and the stages in which they run (paper 2.1, P1, P3).

A new kind is its file and its line in `KINDS`.
"""

from .base import PRECISIONS, RULES, Layer, LayerSpec
from .conv import Conv, ConvSpec
from .dropout import Dropout, DropoutSpec
from .fc import FullyConnected, FullyConnectedSpec
from .norm import Norm, NormSpec
from .pool import MaxPool, MaxPoolSpec
from .relu import ReLU, ReLUSpec
from .stage import Stage, build_stages

__all__ = [
    "KINDS",
    "PRECISIONS",
    "RULES",
    "Conv",
    "ConvSpec",
    "Dropout",
    "DropoutSpec",
    "FullyConnected",
    "FullyConnectedSpec",
    "Layer",
    "LayerSpec",
    "MaxPool",
    "MaxPoolSpec",
    "Norm",
    "NormSpec",
    "ReLU",
    "ReLUSpec",
    "Stage",
    "build_stages",
]

KINDS: dict[str, type[Layer]] = {
    layer.spec_type.kind: layer for layer in (Conv, ReLU, MaxPool, Norm, FullyConnected, Dropout)
}
