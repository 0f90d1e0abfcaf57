"""Networks: architecture, layers, forward and projection, training pass, files."""

from . import models
from .architecture import Architecture
from .blocks import number_blocks
from .checkpoint import Checkpoint, read_checkpoint
from .layers import (
    AddSpec,
    AvgPoolSpec,
    BatchNormSpec,
    ClipSpec,
    ConcatSpec,
    ConvSpec,
    DropoutSpec,
    FlattenSpec,
    FullyConnectedSpec,
    LeakyReLUSpec,
    MaxPoolSpec,
    NormSpec,
    PermuteSpec,
    PReLUSpec,
    ReLUSpec,
    SliceSpec,
)
from .network import Network, load
from .trace import Trace

__all__ = [
    "AddSpec",
    "Architecture",
    "AvgPoolSpec",
    "BatchNormSpec",
    "Checkpoint",
    "ClipSpec",
    "ConcatSpec",
    "ConvSpec",
    "DropoutSpec",
    "FlattenSpec",
    "FullyConnectedSpec",
    "LeakyReLUSpec",
    "MaxPoolSpec",
    "Network",
    "NormSpec",
    "PReLUSpec",
    "PermuteSpec",
    "ReLUSpec",
    "SliceSpec",
    "Trace",
    "load",
    "models",
    "number_blocks",
    "read_checkpoint",
]
