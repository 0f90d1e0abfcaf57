"""The processor that is measured: how calls on it are timed, the most that it can do, and its allocator's settings."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import Ceilings

# Tells glibc to keep large blocks. As installed, it gives them back to the system, and each new array of a library that
# has no pool of its own costs a page fault for every 4 KiB.
TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}
ALLOCATORS: dict[str, dict[str, str]] = {"as installed": {}, "tuned allocator": TUNED_ALLOCATOR}

# Between two libraries: the threads of the one spin for milliseconds after its last call, on the cores of the other.
PAUSE_S = 0.03

# After the pause, the first calls of any library find the caches cold, and the memory asleep: a pool of a sixth of a
# millisecond took five times as long at its first call and twice as long at its third.
WARM_UP_S = 0.01


def environment_for(allocator: str) -> dict[str, str]:
    """This process's environment with the settings of `allocator`, one of ALLOCATORS."""
    kept = {name: value for name, value in os.environ.items() if name not in TUNED_ALLOCATOR}
    return {**kept, **ALLOCATORS[allocator]}


def describe() -> dict[str, str]:
    """Instruction set and threads of both libraries."""
    import torch

    from zfcuda import backends

    return {
        "cpu backend": backends.get("cpu").module.description(),
        "torch threads": str(torch.get_num_threads()),
        "torch instruction set": torch.backends.cpu.get_cpu_capability(),
    }


def time_alternating(
    calls: dict[str, Callable[[], Any]], *, seconds: float = 3.0, rounds: tuple[int, int] = (5, 25)
) -> dict[str, list[float]]:
    """Milliseconds a call; the contestants take turns, with a pause and, if they are short, untimed calls before each.

    A sample is as many calls in a row as fill 3 ms. One during which other processes took this one's cores is kept only
    if there are fewer than 3 quiet ones. Takes about `seconds`, within the bounds of `rounds`.
    """
    repeats, short = {}, {}
    for name, call in calls.items():
        time.sleep(PAUSE_S)
        milliseconds = _sample(call, 1)[0]
        short[name] = milliseconds < 500
        if short[name]:
            _warm_up(call)
            milliseconds = _sample(call, 1)[0]
        repeats[name] = max(1, min(100, round(3.0 / max(1e-3, milliseconds))))
    quiet: dict[str, list[float]] = {name: [] for name in calls}
    disturbed: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() - start > seconds:
            break
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            if short[name]:
                _warm_up(call)
            milliseconds, is_quiet = _sample(call, repeats[name])
            (quiet if is_quiet else disturbed)[name].append(milliseconds)
    return {name: quiet[name] if len(quiet[name]) >= 3 else quiet[name] + disturbed[name] for name in calls}


def _warm_up(call: Callable[[], Any]) -> None:
    start = time.perf_counter()
    while True:
        call()
        if time.perf_counter() - start > WARM_UP_S:
            return


def _sample(call: Callable[[], Any], repeats: int) -> tuple[float, bool]:
    """Milliseconds a call, and whether the system left it the cores meanwhile: it took them away a few times at most,
    and for a moment each (Linux lets others run for 50 ms a second, whatever the priority of this process)."""
    switches, waited = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, _waited_ms()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    elapsed = 1e3 * (time.perf_counter() - start)
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
    allowed = 1 + 0.02 * elapsed  # the system's own threads need a moment
    return elapsed / repeats, switches <= allowed and _waited_ms() - waited <= 1 + 0.02 * elapsed


def _waited_ms() -> float:
    """How long the threads of this process have been ready to run and had no core; 0 where the system does not say."""
    nanoseconds = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # of a thread that has ended meanwhile
            nanoseconds += int(path.read_text().split()[1])
    return nanoseconds / 1e6


@functools.cache
def ceilings() -> Ceilings | None:
    """What this machine's cores and memory do at best, best of several tries; None without a C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "cpu_peak.so"
        source = Path(__file__).with_name("cpu_peak.cpp")
        flags = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        peak = ctypes.CDLL(str(library))
    peak.multiply_adds.restype = ctypes.c_double
    peak.multiply_adds.argtypes = [ctypes.c_int64]
    peak.copy.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]

    size = 128 << 20
    memory = np.ones(2 * size + 64, np.uint8)  # zeros would all be one page, and read from the cache
    start_address = memory.ctypes.data + -memory.ctypes.data % 64

    def gflops() -> float:
        start = time.perf_counter()
        operations = peak.multiply_adds(2_000_000)
        return operations / (time.perf_counter() - start) / 1e9

    def gbytes() -> float:
        start = time.perf_counter()
        peak.copy(size // 4, start_address, start_address + size)
        return 2 * size / (time.perf_counter() - start) / 1e9

    return Ceilings(gflops=max(gflops() for _ in range(8)), gbytes=max(gbytes() for _ in range(12)))
