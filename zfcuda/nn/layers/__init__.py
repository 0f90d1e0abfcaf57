"""The kinds of layers, a file each, and the stages in which they run (paper 2.1, P1, P3).

A new kind is its file and its line in `KINDS`.
"""

from .add import Add, AddSpec
from .avgpool import AvgPool, AvgPoolSpec
from .base import PRECISIONS, RULES, Layer, LayerSpec
from .batchnorm import BatchNorm, BatchNormSpec
from .clip import Clip, ClipSpec
from .concat import Concat, ConcatSpec
from .conv import Conv, ConvSpec
from .dropout import Dropout, DropoutSpec
from .fc import FullyConnected, FullyConnectedSpec
from .flatten import Flatten, FlattenSpec
from .leaky_relu import LeakyReLU, LeakyReLUSpec
from .norm import Norm, NormSpec
from .passing import passing_stages
from .permute import Permute, PermuteSpec
from .pool import MaxPool, MaxPoolSpec
from .prelu import PReLU, PReLUSpec
from .relu import ReLU, ReLUSpec
from .slice import Slice, SliceSpec
from .stage import Stage, build_stages, needed_for

__all__ = [
    "KINDS",
    "PRECISIONS",
    "RULES",
    "Add",
    "AddSpec",
    "AvgPool",
    "AvgPoolSpec",
    "BatchNorm",
    "BatchNormSpec",
    "Clip",
    "ClipSpec",
    "Concat",
    "ConcatSpec",
    "Conv",
    "ConvSpec",
    "Dropout",
    "DropoutSpec",
    "Flatten",
    "FlattenSpec",
    "FullyConnected",
    "FullyConnectedSpec",
    "Layer",
    "LayerSpec",
    "LeakyReLU",
    "LeakyReLUSpec",
    "MaxPool",
    "MaxPoolSpec",
    "Norm",
    "NormSpec",
    "PReLU",
    "PReLUSpec",
    "Permute",
    "PermuteSpec",
    "ReLU",
    "ReLUSpec",
    "Slice",
    "SliceSpec",
    "Stage",
    "build_stages",
    "needed_for",
    "passing_stages",
]

KINDS: dict[str, type[Layer]] = {
    layer.spec_type.kind: layer
    for layer in (
        Conv,
        FullyConnected,
        ReLU,
        LeakyReLU,
        PReLU,
        Clip,
        MaxPool,
        AvgPool,
        Norm,
        BatchNorm,
        Add,
        Concat,
        Permute,
        Slice,
        Flatten,
        Dropout,
    )
}
