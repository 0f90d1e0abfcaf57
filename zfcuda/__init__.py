"""zfcuda: CUDA kernels for convnets and deconvnets, after Zeiler and Fergus (arXiv 1311.2901)."""

from . import backends, models, nn, ops
from .errors import BackendError, CheckpointError, DataError
from .nn import Network, load

__version__ = "0.1.0"

__all__ = ["BackendError", "CheckpointError", "DataError", "Network", "backends", "load", "models", "nn", "ops"]
