"""Networks: architecture, layers, forward and projection, training pass, files."""

from . import models
from .architecture import Architecture
from .checkpoint import Checkpoint, load, read_checkpoint, save_network
from .network import Network
from .trace import Trace

__all__ = ["Architecture", "Checkpoint", "Network", "Trace", "load", "models", "read_checkpoint", "save_network"]
