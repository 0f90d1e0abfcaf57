"""Tuning: which plan of each convolution is the fastest on the GPU at hand.

A plan names the kernel of a convolution, with the tile that it computes in a block, and the number of splits that the
depth of tiles beyond full waves (one an SM) is cut into. Without tuning it follows from the shape and the GPU's number
of SMs, so that results have the same bits on GPUs of a kind. A tuned plan may add in another order, so results may
differ in their last bits from untuned ones; with the same file of plans (`zfcuda.plans`) they are the same, run after
run.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import backends, kernel_checks, ops, plans
from .backends import BFLOAT16, Array, Backend
from .errors import BackendError
from .files import write_atomically
from .kernel_checks import Kernel
from .nn import Network
from .pairs import as_pair, as_sides
from .plans import Plan, Problem

__all__ = ["problems", "save", "tune"]

# How far results of two plans of one problem may be apart, relative to their norm, and how many switches may differ.
_TOLERANCE = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 2e-2}
_OTHER_SWITCHES = 0.01

# What takes part in the second round: up to so many times the time of the fastest in the first.
_SLACK = 1.5
# A plan must save so much to take the place of the untuned one: noise should not change bits.
_LEAST_GAIN = 0.02
_ROUNDS = 7
_SAMPLE_MS = 2.0


def problems(network: Network, batch_size: int) -> list[Problem]:
    """Every problem with a choice of plan that a network meets with batches of this size, forward, back and in
    projections of whole maps, in the precision that it has now."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    found: list[Problem] = []
    for stage in network.stages:
        layer, pool = stage.layers[0], stage.pool
        if layer.product is None:
            continue
        product = layer.product
        geometry: Any = ((batch_size, *product.x), product.filters, product.stride, product.padding)
        products = ("conv2d", "conv_transpose2d", "conv2d_weight_grad")
        found += [Problem(operation, layer.precision, *geometry) for operation in products]
        if pool is not None and pool.is_plain:
            (top, _), (left, _) = as_sides(pool.padding)
            own: Any = [as_pair(pool.window), as_pair(pool.stride), (top, left)]
            # After what they may be composed of.
            blocks = ("conv2d_relu_pool", "unpool_conv2d_weight_grad")
            found += [Problem(operation, layer.precision, *geometry, *own) for operation in blocks]
    return list(dict.fromkeys(found))


def tune(
    wanted: Iterable[Problem], *, device: str = "cuda", report: Callable[[Plan], None] = lambda plan: None
) -> list[Plan]:
    """Times every candidate plan of these problems, each checked against the result of the untuned one, and puts the
    fastest into effect in this process; `save` keeps them for others. `report` is called after each problem.

    device: "cuda", or "emulated" to try the mechanism. The time of other work on the GPU would be taken for a plan's
    own. BackendError where there is nothing to tune; ValueError for a problem that cannot be.
    """
    backend = _tunable(device)
    found = []
    with contextlib.nullcontext() if device == "cuda" else backends.use(device):
        for problem in wanted:
            found.append(_tune_one(backend, problem))
            report(found[-1])
    return found


def save(found: Sequence[Plan], *, device: str = "cuda") -> Path:
    """Adds plans to the file of this GPU, in the place of older ones for the same problems; returns its path. The CUDA
    backend of every later process goes by them. OSError if the file cannot be written."""
    backend = _tunable(device)
    gpu = plans.gpu_name(backend)
    merged = {plan.problem: plan for plan in (*plans.read(backend), *found)}
    path = plans.cache_path(gpu)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, plans.to_json(gpu, merged.values()).encode())
    return path


def _tunable(device: str) -> Backend:
    backend = backends.get(device)
    if not hasattr(backend.module, "set_plan"):
        raise BackendError(f"there is nothing to tune on the {device} backend: plans are of the CUDA kernels")
    if not plans.gpu_name(backend):
        names = ", ".join(backend.module.gpu_names())
        raise BackendError(f"the GPUs differ ({names}), but plans are of one kind: choose with CUDA_VISIBLE_DEVICES")
    return backend


# ---- One problem -----------------------------------------------------------------------------------------

_Choice = tuple[str, int]  # kernel, splits


def _tune_one(backend: Backend, problem: Problem) -> Plan:
    key = problem.key(backend)
    choices = _choices(backend, problem)
    call = _operation(backend, problem)
    best = untuned = choices[0]
    try:
        first = _first_round(backend, problem, choices, call)
        slowest = max(first[untuned], _SLACK * min(first.values()))
        ms = _second_round(backend, key, {choice: ms for choice, ms in first.items() if ms <= slowest}, call)
        fastest = min(ms, key=lambda choice: ms[choice])
        if ms[fastest] <= (1 - _LEAST_GAIN) * ms[untuned]:
            best = fastest
    finally:
        backend.module.set_plan(*key, *best)
    return Plan(problem, *best, ms=round(ms[best], 5), untuned_ms=round(ms[untuned], 5))


def _choices(backend: Backend, problem: Problem) -> list[_Choice]:
    """The candidates, but for those whose kernel is wrong on this GPU."""
    found: list[_Choice] = backend.module.plan_candidates(*problem.key(backend))
    kernels = {name: Kernel(problem.operation, problem.precision, name) for name, _ in found}
    faulty = kernel_checks.faulty(backend, plans.gpu_name(backend), kernels.values())
    return [choice for choice in found if kernels[choice[0]] not in faulty]


def _first_round(
    backend: Backend, problem: Problem, choices: list[_Choice], call: Callable[[], tuple[Array, ...]]
) -> dict[_Choice, float]:
    """Milliseconds of one call of every plan that computes what the first one does."""
    found: dict[_Choice, float] = {}
    expected: tuple[Array, ...] = ()
    for choice in choices:
        backend.module.set_plan(*problem.key(backend), *choice)
        try:
            results = call()
            expected = expected or results
            if _agree(problem, choice, results, expected):
                found[choice] = _elapsed(backend, call, 1)
        except (RuntimeError, MemoryError):
            # Such as too little memory for many splits.
            if choice == choices[0]:
                raise
    return found


def _second_round(
    backend: Backend, key: tuple[Any, ...], first: dict[_Choice, float], call: Callable[[], Any]
) -> dict[_Choice, float]:
    """Milliseconds a call, the median of several samples. The plans take turns, so that clocks are the same for all."""
    samples: dict[_Choice, list[float]] = {choice: [] for choice in first}
    for _ in range(_ROUNDS):
        for choice, ms in first.items():
            backend.module.set_plan(*key, *choice)
            samples[choice].append(_elapsed(backend, call, max(1, min(100, round(_SAMPLE_MS / max(ms, 1e-3))))))
    return {choice: statistics.median(times) for choice, times in samples.items()}


def _agree(problem: Problem, choice: _Choice, results: tuple[Array, ...], expected: tuple[Array, ...]) -> bool:
    """Whether results are those of the untuned plan but for rounding; warns if not, which no plan should do."""
    xp = backends.array_module(expected[0])
    wanted = ops.cast(expected[0], np.float32)
    difference = ops.cast(results[0], np.float32) - wanted
    error = float(xp.linalg.norm(difference.ravel()) / xp.linalg.norm(wanted.ravel()))
    others = max((float((a != b).mean()) for a, b in zip(results[1:], expected[1:], strict=True)), default=0.0)
    if error <= _TOLERANCE[problem.precision] and others <= _OTHER_SWITCHES:
        return True
    warnings.warn(
        f"plan {choice[0]} with {choice[1]} splits of {problem} is wrong (error {error:.1e}, other switches "
        f"{others:.1%}) and was left out; please report it",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _operation(backend: Backend, problem: Problem) -> Callable[[], tuple[Array, ...]]:
    """The operation on arrays of its own, filled at random."""
    _, _, conv, pool = problem.key(backend)
    xp: Any = backend.xp
    rng = xp.random.default_rng(0)
    dtype = BFLOAT16 if problem.precision == "bf16" else np.float32

    def normal(*shape: int) -> Array:
        return ops.cast(rng.standard_normal(shape, dtype=np.float32), dtype)

    names = ("stride", "padding", "dilation", "groups")
    geometry: dict[str, Any] = {name: getattr(problem, name) for name in names}
    if problem.precision == "tf32":
        geometry["precision"] = "tf32"
    (_, h, w, _), (k, r, s, _) = problem.x, problem.w
    if pool is not None:
        geometry |= {
            "window": problem.window,
            "pool_stride": problem.pool_stride,
            "pool_padding": problem.pool_padding,
            "pool_ceil_mode": problem.pool_ceil_mode,
        }
    bias = rng.standard_normal((k,), dtype=np.float32)
    if problem.operation == "conv2d":
        x, filters = normal(*problem.x), normal(*problem.w)
        return lambda: (ops.conv2d(x, filters, bias, relu=True, **geometry),)
    if problem.operation == "conv_transpose2d":
        y, filters = normal(*conv.output), normal(*problem.w)
        return lambda: (ops.conv_transpose2d(y, filters, output_size=(h, w), **geometry),)
    if problem.operation == "conv2d_weight_grad":
        x, dy = normal(*problem.x), normal(*conv.output)
        return lambda: (ops.conv2d_weight_grad(x, dy, kernel_size=(r, s), **geometry),)
    if problem.operation == "conv2d_relu_pool":
        x, filters = normal(*problem.x), normal(*problem.w)
        return lambda: ops.conv2d_relu_pool(x, filters, bias, **geometry)
    # unpool_conv2d_weight_grad: `key` knows of no others
    x, dy = normal(*problem.x), normal(*pool.output)
    cells = problem.window[0] * problem.window[1] if problem.window else 0
    switches = (rng.random(dy.shape, dtype=np.float32) * cells).astype(np.uint8)
    return lambda: (ops.unpool_conv2d_weight_grad(x, dy, switches, kernel_size=(r, s), **geometry),)


def _elapsed(backend: Backend, call: Callable[[], Any], repeats: int) -> float:
    """Milliseconds a call, by the GPU's own events or, on the host, its clock."""
    if backend.on_host:
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e3 * (time.perf_counter() - started) / repeats
    cuda: Any = backend.xp.cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return cuda.get_elapsed_time(start, end) / repeats
