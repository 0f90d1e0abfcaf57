"""Kernels that not every GPU can run are checked on the GPU at hand before they are used.

Those of compute capability 9.0 (csrc/kernels/conv/wgmma.cuh, tma.cuh) stand on what only such a GPU can confirm. So the
first process that is to use one of them has it compute random problems, in a fraction of a second, of which nothing is
rounded: the results must be those of mma.sync, each to the bit. Verdicts are kept beside the tuned plans, in
$XDG_CACHE_HOME/zfcuda (~/.cache/zfcuda), and hold for the GPU's name, the driver and the build of zfcuda. Where they
cannot be read, kernels are checked again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _version
from ._cache import gpu_file
from ._devices import BFLOAT16, FLOAT32, Array, Backend
from .files import read_json, write_atomically
from .kernel_trials import Trials

__all__ = ["Kernel", "cache_path", "checkable", "fault", "faulty"]

# What multiplies in the kernels that every GPU runs; "composed": such kernels one after the other.
_EVERYWHERE = ("ffma", "mma", "patch", "composed")

_BLOCK = "conv2d_relu_pool"
_OPERATIONS = ("conv2d", "conv_transpose2d", "conv2d_weight_grad", _BLOCK)
_PRECISIONS = ("tf32", "bf16")

# Problems of several tiles of any kernel, each direction's last ones ragged, and of more k-tiles than stages: x, w,
# stride and padding. A tap's channels are filled up to a multiple of 64 bytes in the first and of 128 in the second:
# copies by the tensor memory accelerator have lines of as many (csrc/kernels/conv/tma_windows.h). In the third a
# transposed convolution has phases of two taps, of one and of none (csrc/conv_phases.h).
_Four = tuple[int, int, int, int]
_Problem = tuple[_Four, _Four, tuple[int, int], tuple[int, int]]
_PROBLEMS: tuple[_Problem, ...] = (
    ((3, 12, 11, 264), (264, 2, 3, 264), (1, 1), (1, 1)),
    ((3, 12, 11, 248), (248, 2, 3, 248), (1, 1), (1, 1)),
    ((3, 15, 19, 264), (264, 3, 2, 264), (2, 3), (1, 1)),
)
_SPLITS = (1, 2)

# Factors are whole numbers up to this in size: float32 holds every sum of their products over a depth of up to 4227,
# in whatever order they are added. In tf32 they have low bits, too, which rounding drops.
_LARGEST = 63
_LOW_BITS = 2.0**-13


@dataclass(frozen=True)
class Kernel:
    """A kernel of an operation of `zfcuda.ops` in a precision ("tf32", "bf16"), by the name that plans give it."""

    operation: str
    precision: str
    name: str

    def __str__(self) -> str:
        return f"kernel {self.name} of {self.operation} in {self.precision}"

    @property
    def is_checked(self) -> bool:
        """Whether it needs a check."""
        return self.name.partition(" ")[0] not in _EVERYWHERE


def cache_path(gpu: str) -> Path:
    """The file of a GPU's verdicts for this version of zfcuda. FileNotFoundError if there is no place for it."""
    return gpu_file("kernels", gpu)


def faulty(backend: Backend, gpu: str, kernels: Iterable[Kernel]) -> set[Kernel]:
    """Those of the kernels that are not to be used on this GPU, each with a warning that says why.

    With ZFCUDA_KERNELS=wgmma in the environment every kernel that needs a check has it, and the warnings, but is used
    all the same; with ZFCUDA_KERNELS=mma none is used anyway. While CuPy's current stream is captured nothing can be
    checked, and a check may itself fail, as where there is no memory or an earlier kernel broke the GPU's context: what
    has no verdict then is not used by this process.
    """
    use = backend.module.wgmma_use() if backend.module.can_run_wgmma() else "never"
    wanted = {kernel for kernel in kernels if kernel.is_checked} if use == "if planned" else set()
    if use == "always":
        wanted = set(checkable(backend))
    if not wanted:
        return set()
    verdicts, failures = _verdicts(backend, gpu, wanted)
    all_the_same = "but used, as ZFCUDA_KERNELS asks" if use == "always" else "and not used"
    for kernel, verdict in sorted(verdicts.items(), key=lambda item: str(item[0])):
        if verdict:
            message = f"{kernel} is wrong on {gpu} {all_the_same}: {verdict}; please report it"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
    for reason in dict.fromkeys(failures.values()):
        message = (
            f"{_listed(kernel for kernel in failures if failures[kernel] == reason)}: could not be checked on {gpu} "
            f"{all_the_same}: {reason}; the next process checks again"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    unchecked = wanted - verdicts.keys()
    if (waiting := unchecked - failures.keys()) and use != "always":
        warnings.warn(
            f"{_listed(waiting)}: not used by this process, for a first use is checked, and nothing can be while a "
            "stream is captured; call an operation on the GPU before the capture",
            RuntimeWarning,
            stacklevel=3,
        )
    return set() if use == "always" else unchecked | {kernel for kernel, verdict in verdicts.items() if verdict}


def _listed(kernels: Iterable[Kernel]) -> str:
    return ", ".join(sorted(map(str, kernels)))


def checkable(backend: Backend) -> list[Kernel]:
    """Every kernel that needs a check."""
    shape = backend.module.ConvShape(*_PROBLEMS[0])
    return [
        kernel
        for operation in _OPERATIONS
        for precision in _PRECISIONS
        for pool in _pools(backend, operation, shape)[:1]  # either has every kernel
        for name in dict(backend.module.plan_candidates(operation, precision, shape, pool))
        if (kernel := Kernel(operation, precision, name)).is_checked
    ]


# ---- Verdicts: what is wrong with a kernel, "" where nothing is ---------------------------------------------


def _verdicts(backend: Backend, gpu: str, wanted: set[Kernel]) -> tuple[dict[Kernel, str], dict[Kernel, str]]:
    """Of the wanted kernels, from the file or by a check, each kept before the next begins; and why checks failed.
    Those that cannot be checked now are in neither."""
    built = os.stat(str(backend.module.__file__))
    of = {
        "gpu": gpu,
        "zfcuda": _version.__version__,
        "driver": backend.module.driver_version(),
        "build": f"{built.st_size} bytes, {built.st_mtime_ns} ns",
    }
    known = _read(gpu, of)
    unknown = sorted(wanted - known.keys(), key=str)
    failures = {}
    with Trials(backend) as trials:
        for kernel in unknown if not _is_capturing(backend) else ():
            try:
                known[kernel] = fault(backend, kernel) if backend.on_host else trials.fault(asdict(kernel))
                _write(gpu, of, known)
            except Exception as reason:
                failures[kernel] = f"{type(reason).__name__}: {reason}"
    return {kernel: verdict for kernel, verdict in known.items() if kernel in wanted}, failures


def _read(gpu: str, of: dict[str, str]) -> dict[Kernel, str]:
    """The verdicts that were kept; none where they are of something else, or cannot be read."""
    try:
        contents = read_json(cache_path(gpu))
        if {name: contents[name] for name in of} != of:
            return {}
        found = {}
        for entry in contents["kernels"]:
            verdict = entry.pop("fault")
            kernel = Kernel(**entry)
            if not all(isinstance(value, str) for value in (verdict, *entry.values())):
                return {}
            found[kernel] = verdict
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(gpu: str, of: dict[str, str], verdicts: dict[Kernel, str]) -> None:
    """Keeps them; where that is impossible, the next process makes its own."""
    lines = [json.dumps({**asdict(kernel), "fault": verdict}) for kernel, verdict in verdicts.items()]
    head = "".join(f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in of.items())
    text = "{\n" + head + ' "kernels": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    with contextlib.suppress(OSError):
        path = cache_path(gpu)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def _is_capturing(backend: Backend) -> bool:
    if backend.on_host:
        return False
    try:
        return backend.xp.cuda.get_current_stream().is_capturing()
    except RuntimeError:  # another stream is, which this one would wait for
        return True


def _pools(backend: Backend, operation: str, shape: Any) -> tuple[Any, ...]:
    """The pools that a problem is checked with, None where an operation has none: of windows that overlap and hang over
    the edges, and of such as lie side by side, for which the map is cut in another way (csrc/kernels/conv/block_tma.h)
    and whose lines do not fill a tile."""
    if operation != _BLOCK:
        return (None,)
    sides = shape.output[1:3]

    def pool(window: int, stride: int, padding: int) -> Any:
        own = zip(*((window, stride, padding) if side > 1 else (1, 1, 0) for side in sides), strict=True)
        return backend.module.PoolShape(shape.output, *own, False)

    return pool(3, 2, 1), pool(3, 3, 0)


# ---- One check ---------------------------------------------------------------------------------------------


def fault(backend: Backend, kernel: Kernel) -> str:
    """What is wrong with a kernel on the current GPU: how many values of its result of a random problem are not those
    of mma.sync, or why it cannot run; "" where all are."""
    problems = (*_PROBLEMS, *_long_problems(kernel, backend.module.multiprocessors()))
    faults = (
        _fault_of(backend, kernel, problem, shape, pool)
        for problem in problems
        for shape in (backend.module.ConvShape(*problem),)
        for pool in _pools(backend, kernel.operation, shape)
    )
    return next(filter(None, faults), "")


def _long_problems(kernel: Kernel, multiprocessors: int) -> list[_Problem]:
    """Of more than two tiles for each multiprocessor: some kernels' blocks compute one after the other, and what is
    left of one may spoil the next. As in _PROBLEMS of both lengths of lines, and ragged; of few k-tiles, and where it
    is transposed of more and fewer."""
    tile_rows, tile_cols = (int(side) for side in kernel.name.split()[1].split("x"))
    tiles = 2 * multiprocessors + 1
    tiles_m = math.isqrt(tiles - 1) + 1
    rows, cols = tiles_m * tile_rows - 8, -(-tiles // tiles_m) * tile_cols

    def problem(more: int) -> _Problem:
        if kernel.operation in ("conv2d", _BLOCK):
            return (1, rows, 1, 64 + more), (cols - 8, 7, 1, 64 + more), (1, 1), (3, 0)
        if kernel.operation == "conv_transpose2d":
            return (1, rows, 1, cols - 8), (64 + more, 7, 1, cols - 8), (2, 1), (3, 0)
        channels = -(-cols // (3 * 64)) * 64 + more
        return (1, 443, 1, channels), (rows, 3, 1, channels), (1, 1), (1, 0)

    return [problem(more) for more in (8, -8)]


def _fault_of(backend: Backend, kernel: Kernel, problem: _Problem, shape: Any, pool: Any) -> str:
    """The same of one problem, and one of its pools."""
    key = kernel.operation, kernel.precision, shape, pool
    choices = backend.module.plan_candidates(*key)
    launch = _launcher(backend, kernel, *problem[:2], shape, pool)
    all_splits = (1,) if kernel.operation == _BLOCK else _SPLITS

    def compute(name: str, splits: int) -> np.ndarray:
        backend.module.set_plan(*key, name, splits)
        return launch()

    try:
        expected = compute(next(name for name, _ in choices if name.startswith("mma ")), 1)
        try:
            wrong = max(np.count_nonzero(compute(kernel.name, splits) != expected) for splits in all_splits)
        except RuntimeError as reason:
            return f"{type(reason).__name__}: {reason}"
    finally:
        backend.module.set_plan(*key, *choices[0])
    of = f"x {problem[0]} and w {problem[1]}" + (f", pooled to {tuple(pool.output)}," if pool else "")
    return f"{wrong} of {expected.size} values of its result for {of} are not those of mma.sync" if wrong else ""


def _launcher(backend: Backend, kernel: Kernel, x: _Four, w: _Four, shape: Any, pool: Any) -> Callable[[], np.ndarray]:
    """A call of the operation by the plan that holds; gives its result in float32, of a block with the switches behind.
    What it does not write is NaN, in its workspace too."""
    rng = np.random.default_rng(0)
    kernels = {"tf32": backend.module.tf32, "bf16": backend.module.bf16}[kernel.precision]
    dtype = {"tf32": FLOAT32, "bf16": BFLOAT16}[kernel.precision]

    def factors(sizes: tuple[int, ...]) -> Array:
        values = rng.integers(-_LARGEST, _LARGEST, sizes, np.int8, endpoint=True).astype(np.float32)
        if kernel.precision == "tf32":
            values *= 1 + _LOW_BITS * rng.random(sizes, np.float32)
        return backend.xp.asarray(values.astype(dtype).view(np.uint8)).view(dtype)  # CuPy takes no bfloat16 from hosts

    y = tuple(shape.output)
    shapes = (shape, pool) if pool else (shape,)
    pooled = tuple(pool.output) if pool else ()
    conv2d = kernels.conv2d, kernels.conv2d_workspace, (x, w), (None, None, None, False, w[0]), ((y, dtype),)
    transpose = kernels.conv_transpose2d, kernels.conv_transpose2d_workspace, (y, w), (), ((x, dtype),)
    weight_grad = kernels.conv2d_weight_grad, kernels.conv2d_weight_grad_workspace, (x, y), (), ((w, FLOAT32),)
    made = (pooled, dtype), (pooled, np.dtype(np.uint8))
    block = kernels.conv2d_relu_pool, kernels.conv2d_relu_pool_workspace, (x, w), (None,), made
    operation, workspace, inputs, options, results = {
        "conv2d": conv2d,
        "conv_transpose2d": transpose,
        "conv2d_weight_grad": weight_grad,
        _BLOCK: block,
    }[kernel.operation]
    arrays = [factors(one) for one in inputs]

    def launch() -> np.ndarray:
        size = workspace(*shapes)
        scratch = backend.scratch(size) if size else None
        own = [backend.empty(*result) for result in results]
        for array in (scratch, *own):
            if array is not None:
                array.view(np.uint8).fill(0xFF)
        backend.run(operation, (*shapes, *arrays, *options, *own, scratch), ())
        values = [
            backend.read_later(array.view(np.uint8))().view(made).astype(np.float32)
            for array, (_, made) in zip(own, results, strict=True)
        ]
        return values[0] if len(values) == 1 else np.concatenate([one.reshape(-1) for one in values])

    return launch
