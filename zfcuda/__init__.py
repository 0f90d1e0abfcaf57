"""zfcuda: CUDA kernels for convnets and deconvnets, after Zeiler and Fergus (arXiv 1311.2901)."""

import importlib
from types import ModuleType

from . import backends, models, nn, ops
from ._version import __version__ as __version__
from .errors import BackendError, CheckpointError, DataError, Interrupted
from .nn import Network, load

__all__ = [
    "BackendError",
    "CheckpointError",
    "DataError",
    "Interrupted",
    "Network",
    "backends",
    "load",
    "models",
    "nn",
    "ops",
]

# Imported when first used: they bring Pillow, Matplotlib and the like with them.
_LAZY = ("analysis", "data", "interop", "report", "training")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
