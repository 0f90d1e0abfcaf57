"""zfcuda: CUDA kernels for convnets and deconvnets, after Zeiler and Fergus (arXiv 1311.2901)."""

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from . import backends, display, models, nn, ops
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
    "open_report",
    "ops",
]

if importlib.util.find_spec(f"{__name__}._build_info") is None:
    raise ImportError(
        f"zfcuda is imported from its source, {__path__[0]}, where it is not built: go to another folder to use the "
        "installed one, or build it here with pip install -e ."
    )

# Imported when first used: they bring Pillow, Matplotlib and the like with them.
_LAZY = ("analysis", "data", "interop", "report", "training")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _notebook() -> Any:
    return importlib.import_module(".report.notebook", __name__)


display.register(lambda result: _notebook().result_html(result))


def open_report(shown: Any) -> Any:
    """Opens a report in the browser; in a notebook it returns what shows it there.

    shown: a command's --out directory or the report.html in it, a `zfcuda.report.Report`, or the result of an analysis.
    FileNotFoundError if there is no report at a path, TypeError for anything else.
    """
    return _notebook().open_report(shown)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
