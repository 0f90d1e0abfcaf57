"""Other libraries: networks from PyTorch modules and back (`torch`), from ONNX (`onnx`) and from .pt2 files (`pt2`)."""

import importlib
from types import ModuleType

# Imported when first used: each but pt2 needs a package that zfcuda does without.
_LAZY = ("onnx", "pt2", "torch")


def __getattr__(name: str) -> ModuleType:
    if name not in _LAZY:
        raise AttributeError(f"{__name__} has {', '.join(_LAZY)}, and no {name!r}")
    return importlib.import_module(f".{name}", __name__)
