"""Networks: architecture, layers, forward and projection, training pass, files."""

from . import models
from .architecture import Architecture
from .checkpoint import Checkpoint, read_checkpoint
from .network import Network, load
from .trace import Trace

__all__ = ["Architecture", "Checkpoint", "Network", "Trace", "load", "models", "read_checkpoint"]
