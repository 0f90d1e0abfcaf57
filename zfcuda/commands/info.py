"""`zfcuda info`: what is built, what can run here, why the rest cannot, and what to do; what a checkpoint is."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from .. import backends, plans
from .._build_info import BUILD
from .._version import __version__
from ..data import printable
from ..nn import load
from ..report import Facts, Report, Table
from ..report.sections.network import network_section
from . import common
from .common import Commands
from .ranks import alone

_PACKAGES = (
    *("numpy", "pillow", "safetensors", "tqdm", "matplotlib", "jinja2", "scikit-learn"),
    *("cupy-cuda12x", "cupy-cuda13x", "torch"),
)

_ADVICE = {
    "cpu": "reinstall zfcuda with a C++17 compiler: pip install .",
    "cuda": (
        "to use an NVIDIA GPU: install the CUDA toolkit (nvcc), reinstall zfcuda (ZFCUDA_CUDA=ON pip install .), and "
        "add CuPy (pip install 'zfcuda[cuda12]' or 'zfcuda[cuda13]')"
    ),
    "emulated": "CUDA kernels on a processor, for tests: pip install -e '.[test]', or ZFCUDA_EMULATED=ON pip install .",
}


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="backends built and usable, devices and versions; or what a checkpoint is",
        description="Says which backends are built and usable, why one is not, and what to do about it. Of a "
        "checkpoint: its layers, classes, preprocessing, and what it was trained on.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help="a network that `zfcuda train` saved")
    parser.add_argument("--out", metavar="DIR", help="also leave a report of the checkpoint here")


def run(arguments: argparse.Namespace) -> int:
    if arguments.checkpoint is not None:
        return _describe(arguments)
    if arguments.out is not None:
        raise ValueError("--out needs CHECKPOINT: a report is of a network")
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
    for what, value in BUILD.items():
        if value:
            print(f"built from {value}" if what == "commit" else f"{what}: {value}")
    versions = ((package, _version(package)) for package in _PACKAGES)
    print(", ".join(f"{package} {version}" for package, version in versions if version))
    return 0


@alone
def _describe(arguments: argparse.Namespace) -> int:
    section = network_section(load(arguments.checkpoint))
    directory = None if arguments.out is None else common.output(arguments)
    print(printable(arguments.checkpoint))
    for part in section.parts:
        if isinstance(part, Facts):
            print("\n".join(f"{name:14} {printable(value)}" for name, value in part.facts))
        elif isinstance(part, Table):
            print(f"\n{_aligned(part)}")
    if directory is None:
        return 0
    report = Report("A network", printable(arguments.checkpoint), common.command_line(arguments))
    report.add(section)
    return common.finish(report, directory)


def _aligned(table: Table) -> str:
    """A table as lines of text."""
    rows = [list(table.columns), *([cell["text"] for cell in row] for row in table.shown()["rows"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _tuned(backend: backends.Backend) -> str:
    saved = len(plans.read(backend)) if plans.gpu_name(backend) else 0
    return f"{saved} tuned plans, in {plans.cache_path(plans.gpu_name(backend))}" if saved else "no tuned plans"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
