"""`zfcuda info`: what is built, what can run here, why the rest cannot, and what to do about it."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from .. import backends, plans
from .._version import __version__
from .common import Commands

_PACKAGES = (
    *("numpy", "pillow", "safetensors", "tqdm", "matplotlib", "jinja2", "scikit-learn"),
    *("cupy-cuda12x", "cupy-cuda13x", "torch"),
)

_ADVICE = {
    "cpu": "reinstall zfcuda with a C++17 compiler: pip install .",
    "cuda": (
        "to use an NVIDIA GPU: install the CUDA toolkit (nvcc), reinstall zfcuda (pip install .), and add CuPy "
        "(pip install '.[cuda12]' or '.[cuda13]')"
    ),
    "emulated": "needed for zfcuda's own tests only: reinstall with a C++17 compiler",
}


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="backends built and usable, devices and versions",
        description="Says which backends are built and usable, why one is not, and what to do about it.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    print(f"zfcuda {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print()
    for name, reason in backends.status().items():
        if reason:
            print(f"{name:9} not usable: {reason}")
            print(f"{'':9} {_ADVICE[name]}")
        else:
            print(f"{name:9} usable: {backends.get(name).module.description()}")
            if name == "cuda":
                print(f"{'':9} {_tuned(backends.get(name))}")
    print()
    versions = ((package, _version(package)) for package in _PACKAGES)
    print(", ".join(f"{package} {version}" for package, version in versions if version))
    return 0


def _tuned(backend: backends.Backend) -> str:
    saved = len(plans.read(backend)) if plans.gpu_name(backend) else 0
    return f"{saved} tuned plans, in {plans.cache_path(plans.gpu_name(backend))}" if saved else "no tuned plans"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
