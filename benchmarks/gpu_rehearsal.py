"""What stands in for a GPU when a run on one is rehearsed (`--rehearse`): the CUDA kernels run by the emulator on small
shapes. The functions are those of gpu_device.py; no number that comes out is a measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import cases
import numpy as np
from harness import Call

from zfcuda import backends, kernel_checks, models

BACKEND = "emulated"

# ZFNet's layers, small.
LAYERS = cases._family(
    "zfnet",
    2,
    cases._conv("conv1", 23, 3, 16, 7, 2, 1),
    cases._pool("pool1", 10, 16, 3, 2, 1),
    cases._norm("norm1", 5, 16),
    cases._conv("conv2", 9, 5, 7, 3, 2),
    cases._dense("fc6", 36, 20),
    cases.Average(layer="average", size=7, channels=5, window=3, stride=2, padding=1),
    cases.BatchNorm(layer="batchnorm", size=6, channels=5),
    cases.Joint(layer="joint", size=6, channels=5),
    cases._residual("residual", 6, 5, 7, 3, 1),
    cases.Depthwise(layer="depthwise", size=9, channels=5, stride=2),
)
WHOLE = [
    cases.Net(family="zfnet", n=2),
    cases.Update(family="zfnet"),
    cases.Projection(family="zfnet", layer="pool5", n=4, maps=4, peer_maps=2),
    cases.Occlusion(family="zfnet", square=20, stride=20),
    cases.Curves(family="zfnet", patch=32, peer_steps=4),
]


def architecture() -> Any:
    """ZFNet on images of 64 pixels, with a sixteenth of its maps and hardly any units."""
    return models.scale_layers(
        models.zfnet_architecture(10, 64), {**dict.fromkeys(range(1, 6), 1 / 16), 6: 1 / 256, 7: 1 / 256}
    )


def shrink() -> None:
    """Puts small cases in the place of all others, in this process."""
    import networks

    cases.CASES[:] = [*LAYERS, *WHOLE]
    networks.ARCHITECTURES["zfnet"] = architecture


@contextlib.contextmanager
def active() -> Iterator[Callable[[np.ndarray], Any]]:
    """Within it the emulated kernels serve NumPy arrays, which lie as arrays on a GPU do; gives what makes them. Checks
    of kernels are small, too."""
    empty = backends.HostBackend.empty
    checks = kernel_checks._PROBLEMS, kernel_checks._long_problems

    def aligned_empty(self: Any, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory = np.empty(size + 256, np.uint8)
        start = -memory.ctypes.data % 256
        return memory[start : start + size].view(dtype).reshape(shape)

    def aligned(array: np.ndarray) -> np.ndarray:
        copy = aligned_empty(None, array.shape, array.dtype)
        copy[...] = array
        return copy

    backends.HostBackend.empty = aligned_empty  # type: ignore[method-assign]
    kernel_checks._PROBLEMS = (((1, 5, 5, 72), (72, 3, 3, 72), (1, 1), (1, 1)),)
    kernel_checks._long_problems = lambda kernel, multiprocessors: []
    try:
        with backends.use("emulated"):
            yield aligned
    finally:
        backends.HostBackend.empty = empty  # type: ignore[method-assign]
        kernel_checks._PROBLEMS, kernel_checks._long_problems = checks


def profiled() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def describe() -> dict[str, str]:
    return {"name": "a rehearsal, without a GPU: its numbers mean nothing"}


def measured() -> str:
    return describe()["name"]


def state() -> str:
    return "no clocks"


def require(tuned: bool) -> None:
    """Nothing: the emulator is there, or `active` says why not."""


def clear() -> None:
    """Nothing."""


def ceilings() -> dict[str, float]:
    return {"copy, GB/s": 1.0, "float32, TFLOP/s": 1.0, "TF32, TFLOP/s": 1.0, "bfloat16, TFLOP/s": 1.0}


def time_alternating(calls: dict[str, Call], *, seconds: float = 0.0) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        samples[name] = [1e3 * (time.perf_counter() - start)] * 3
    return samples


class Graphs:
    """Calls as they are."""

    def ours(self, call: Call) -> Call:
        return call

    peer = ours

    def spoil(self, results: Any) -> None:
        from setting import spoil

        spoil(results)

    def host_us(self, call: Call) -> float:
        return 0.0


def setting(**changes: Any) -> Any:
    from setting import Setting

    return dataclasses.replace(Setting(device="cpu"), **{**changes, "compiled": 0})
