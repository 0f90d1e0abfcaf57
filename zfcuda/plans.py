"""The cache of tuned plans: which kernel and how many splits serve a convolution best on a GPU.

Without it a table in csrc/kernels/conv/tiles.cuh decides by shape and the GPU's number of SMs. `zfcuda tune` writes it
(`zfcuda.tuning`), and the CUDA backend reads it when it is first used. There is a file for each GPU's name and version
of zfcuda, in $XDG_CACHE_HOME/zfcuda (~/.cache/zfcuda): JSON, a line for each plan. Without the file, nothing is tuned.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from . import _version, kernel_checks
from ._cache import gpu_file
from ._devices import Backend
from .files import read_text
from .kernel_checks import Kernel

__all__ = ["Plan", "Problem", "cache_path", "gpu_name", "load", "read", "to_json"]


@dataclass(frozen=True)
class Problem:
    """What a plan is for: an operation of `zfcuda.ops` that has one, a precision ("fp32", "tf32", "bf16"), the shapes
    of images (N,H,W,C) and filters (K,R,S,C/groups), strides, paddings, of two or four sides, and dilations; for a
    block also those of its pool."""

    operation: str
    precision: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, ...]
    window: tuple[int, int] | None = None
    pool_stride: tuple[int, int] | None = None
    pool_padding: tuple[int, ...] | None = None
    pool_ceil_mode: bool = False
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def key(self, backend: Backend) -> tuple[Any, ...]:
        """The arguments with which a backend's functions on plans begin. ValueError for an impossible geometry."""
        conv = backend.module.ConvShape(self.x, self.w, self.stride, self.padding, self.dilation, self.groups)
        pool = None
        if self.window is not None and self.pool_stride is not None and self.pool_padding is not None:
            own = self.window, self.pool_stride, self.pool_padding, self.pool_ceil_mode
            pool = backend.module.PoolShape(conv.output, *own)
        return self.operation, self.precision, conv, pool

    def __str__(self) -> str:
        def by(sizes: Iterable[int]) -> str:
            return "x".join(map(str, sizes))

        text = f"{self.operation} {self.precision}, images {by(self.x)}, filters {by(self.w)}, stride {by(self.stride)}"
        if self.dilation != (1, 1):
            text += f", dilation {by(self.dilation)}"
        if self.groups > 1:
            text += f", {self.groups} groups"
        return text if self.window is None else f"{text}, pool {by(self.window)}"


@dataclass(frozen=True)
class Plan:
    """A kernel by its main loop and tile ("mma 128x64"; or "composed": two operations one after the other), how many
    splits the depth of tiles beyond full waves is cut into, and what the tuner measured, in ms: with this plan, and
    with the one that would hold without it."""

    problem: Problem
    kernel: str
    splits: int
    ms: float
    untuned_ms: float

    @property
    def checked_kernel(self) -> Kernel:
        """The kernel, as `zfcuda.kernel_checks` knows it."""
        return Kernel(self.problem.operation, self.problem.precision, self.kernel)

    @property
    def gain(self) -> float:
        """How many times as fast as untuned."""
        return self.untuned_ms / self.ms


# ---- Files -----------------------------------------------------------------------------------------------


def cache_path(gpu: str) -> Path:
    """The file of a GPU's plans for this version of zfcuda. FileNotFoundError if there is no place for it."""
    return gpu_file("plans", gpu)


def to_json(gpu: str, plans: Iterable[Plan]) -> str:
    """The contents of a GPU's file."""
    lines = []
    for plan in plans:
        described = {**asdict(plan.problem), **asdict(plan)}
        del described["problem"]
        lines.append("  " + json.dumps({name: value for name, value in described.items() if value is not None}))
    head = f' "gpu": {json.dumps(gpu)},\n "zfcuda": {json.dumps(_version.__version__)},\n'
    return "{\n" + head + ' "plans": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def read(backend: Backend) -> list[Plan]:
    """The saved plans of the GPU here; none where there is no file, or, with a warning, where it cannot be used."""
    gpu = gpu_name(backend)
    try:
        path = cache_path(gpu)
        text = read_text(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return _ignore(path, f"the file cannot be read ({error})")
    try:
        contents = json.loads(text)
        owner, ours = (contents["gpu"], contents["zfcuda"]), (gpu, _version.__version__)
        if owner != ours:
            return _ignore(path, f"they are of {owner[0]} and zfcuda {owner[1]}, not of {ours[0]} and {ours[1]}")
        plans = [_plan(entry) for entry in contents["plans"]]
        for plan in plans:
            backend.module.check_plan(*plan.problem.key(backend), plan.kernel, plan.splits)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        return _ignore(path, f"the file is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    return plans


def _plan(entry: dict[str, Any]) -> Plan:
    geometry: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
    }
    names = {field.name for field in fields(Problem)}
    problem = Problem(**{name: value for name, value in geometry.items() if name in names})
    plan = Plan(problem, **{name: value for name, value in geometry.items() if name not in names})
    if not plan.gain > 0:
        raise ValueError(f"times must be positive, got {plan.ms} and {plan.untuned_ms}")
    return plan


def _ignore(path: Path, reason: str) -> list[Plan]:
    warnings.warn(
        f"the tuned plans in {path} are ignored: {reason}; `zfcuda tune` writes them anew", RuntimeWarning, stacklevel=3
    )
    return []


# ---- Use -------------------------------------------------------------------------------------------------


def gpu_name(backend: Backend) -> str:
    """The name that all GPUs here share, or "" if they have several: plans hold for all GPUs of a process."""
    names = set(backend.module.gpu_names())
    return names.pop() if len(names) == 1 else ""


def load(backend: Backend) -> None:
    """Puts the saved plans of the GPU here into effect, but for those whose kernel is wrong on it, with a warning: the
    first use of a kernel that not every GPU can run is preceded by a check (`zfcuda.kernel_checks`)."""
    gpu = gpu_name(backend)
    if not gpu:
        return
    found = read(backend)
    faulty = kernel_checks.faulty(backend, gpu, {plan.checked_kernel for plan in found})
    for plan in found:
        if plan.checked_kernel not in faulty:
            backend.module.set_plan(*plan.problem.key(backend), plan.kernel, plan.splits)
