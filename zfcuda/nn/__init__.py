"""Networks: architecture, layers, forward and projection, training pass, files."""

from . import models
from .architecture import Architecture
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
    "Trace",
    "load",
    "models",
    "read_checkpoint",
]
