"""The GPU that is measured: what it is, how calls on it are timed, and the most that it can do."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import Call

_IDENTITY = {
    "name": "name",
    "driver": "driver_version",
    "compute capability": "compute_cap",
    "memory, MiB": "memory.total",
    "greatest SM clock, MHz": "clocks.max.sm",
    "power limit, W": "power.limit",
}
_STATE = {
    "SM clock, MHz": "clocks.sm",
    "memory clock, MHz": "clocks.mem",
    "temperature, C": "temperature.gpu",
    "power, W": "power.draw",
}


BACKEND = "cuda"
PEAK = Path(__file__).with_name("gpu_peak.cu")


class NoGpuError(RuntimeError):
    """Nothing can be measured here; the message says why, and what to do about it."""


def describe() -> dict[str, str]:
    """Which GPU it is, as nvidia-smi says (the first that it lists). NoGpuError if it cannot."""
    return _ask(_IDENTITY)


def measured() -> str:
    """The name of the GPU that both libraries use, which nvidia-smi may not list first: CUDA sorts them otherwise, and
    CUDA_VISIBLE_DEVICES chooses."""
    import torch

    return torch.cuda.get_device_name(torch.cuda.current_device())


def state() -> str:
    """Its clocks, temperature and power at this moment, in words."""
    return ", ".join(f"{name} {value}" for name, value in _ask(_STATE).items())


def _ask(fields: dict[str, str]) -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise NoGpuError("nvidia-smi is not on PATH: install the NVIDIA driver with its tools") from None
    except subprocess.TimeoutExpired:
        raise NoGpuError("nvidia-smi does not answer within a minute") from None
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    if answer.returncode or len(values) != len(fields):
        raise NoGpuError(f"nvidia-smi fails: {(answer.stderr or answer.stdout).strip()}")
    return dict(zip(fields, values, strict=True))


@contextlib.contextmanager
def active() -> Iterator[Callable[[Any], Any]]:
    """Gives what makes arrays of NumPy's on the GPU."""
    from zfcuda import backends

    yield backends.get("cuda").xp.asarray


@contextlib.contextmanager
def profiled() -> Iterator[None]:
    """What is launched within is what a profiler looks at."""
    from cupy.cuda import runtime

    runtime.deviceSynchronize()
    runtime.profilerStart()
    yield
    runtime.deviceSynchronize()
    runtime.profilerStop()


def setting(**changes: Any) -> Any:
    """Where and how PyTorch computes (`setting.Setting`)."""
    from setting import Setting

    return Setting(**changes)


def require(tuned: bool) -> None:
    """Gets both libraries ready, with the tuned plans that there are or without; NoGpuError unless zfcuda, CuPy and
    PyTorch can all use a GPU here."""
    from zfcuda import backends

    reason = backends.status()["cuda"]
    if reason:
        raise NoGpuError(reason)
    try:
        import torch
    except ImportError:
        raise NoGpuError("PyTorch, the peer, is missing: pip install 'zfcuda[parity]' (a CUDA build)") from None
    if not torch.cuda.is_available():
        raise NoGpuError("PyTorch finds no GPU: install its CUDA build, from https://pytorch.org")
    if not tuned:  # what somebody has tuned would not be a measurement of this run
        backends.get("cuda").module.clear_plans()
    # Exact float32 on both sides; cuDNN picks its fastest algorithm for each shape.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def clear() -> None:
    """Gives both libraries' cached memory back, so that neither starves the other, and forgets compiled code, of which
    PyTorch keeps a limited number of versions."""
    import cupy
    import torch

    cupy.get_default_memory_pool().free_all_blocks()
    torch.cuda.empty_cache()
    torch.compiler.reset()


class Graphs:
    """Calls as CUDA graphs of the library that makes them; both are launched on the default stream, which the two
    share."""

    def ours(self, call: Call) -> Call:
        from zfcuda import backends
        from zfcuda.nn.capture import capture

        call()  # kernels are loaded, memory is taken
        captured = capture(backends.get("cuda"), call, {})

        def launch() -> Any:
            captured.graph.launch()
            return captured.results

        return launch

    def peer(self, call: Call) -> Call:
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # code is compiled, algorithms are chosen
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            result = call()

        def launch() -> Any:
            graph.replay()
            return result

        return launch

    def spoil(self, results: Any) -> None:
        from setting import spoil

        spoil(results)

    def host_us(self, call: Call, calls: int = 3, rounds: int = 7) -> float:
        """A median; so few calls fit into the queue of launches, where no host waits."""
        import torch

        samples = []
        for _ in range(rounds):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            samples.append(1e6 * (time.perf_counter() - start) / calls)
        torch.cuda.synchronize()
        return statistics.median(samples)


def time_alternating(
    calls: dict[str, Call], *, seconds: float = 5.0, rounds: tuple[int, int] = (3, 15)
) -> dict[str, list[float]]:
    """Milliseconds a call, by CUDA events on the default stream, which CuPy and PyTorch share.

    The contestants take turns, so that clocks and temperature are the same for all. A sample is as many calls in a row
    as fill 3 ms: a call that is shorter than its launch is charged for the launch. Takes about `seconds`, within the
    bounds of `rounds`.
    """
    repeats, round_ms = {}, 0.0
    for name, call in calls.items():
        for _ in range(2):  # kernels are compiled in the first call, a CUDA graph is captured in the second
            call()
        once = _elapsed(call, 1)
        repeats[name] = max(1, min(200, round(3.0 / max(1e-3, once))))
        round_ms += once * repeats[name]
    count = max(rounds[0], min(rounds[1], round(1e3 * seconds / round_ms)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            samples[name].append(_elapsed(call, repeats[name]))
    return samples


def _elapsed(call: Call, repeats: int) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / repeats


def ceilings() -> dict[str, float]:
    """The most that this GPU does, measured: GB/s of a 1 GiB copy (read and written), the TFLOP/s of the vendor's
    8192^3 matrix product in float32, TF32 and bfloat16, those of mma.sync alone, and the GB/s of reads of L2."""
    import torch

    found = {"copy, GB/s": _copy_rate()}
    n = 8192
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    flops = 2 * n**3 / 1e9
    found["float32, TFLOP/s"] = flops / _median(lambda: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found["TF32, TFLOP/s"] = flops / _median(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    a, b = a.bfloat16(), b.bfloat16()
    found["bfloat16, TFLOP/s"] = flops / _median(lambda: a @ b)
    return found | _instruction_rates()


def _copy_rate() -> float:
    import torch

    source = torch.randn(1 << 28, device="cuda")  # zeros would be faster than what is real
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e6 / _median(lambda: target.copy_(source))


def _instruction_rates(rounds: int = 4096, threads: int = 256) -> dict[str, float]:
    """Of the kernels of gpu_peak.cu, two blocks on every SM; nothing where NVRTC cannot compile them."""
    import cupy

    try:
        module = cupy.RawModule(code=PEAK.read_text(), options=("-std=c++17",))
        kernels = {name: module.get_function(name) for name in ("mma_bf16", "mma_tf32", "read_l2")}
    except Exception as failure:  # of NVRTC, whatever CuPy makes of it
        print(f"no rates of single instructions: {failure}")
        return {}
    blocks = 2 * cupy.cuda.Device().attributes["MultiProcessorCount"]
    out = cupy.empty(threads, np.float32)
    source = cupy.asarray(np.random.default_rng(0).standard_normal(1 << 22, np.float32))  # 16 MiB, in L2
    never = np.float32(-1.5)

    def rate(name: str, work: float, *more: Any) -> float:
        """`work` of a thread and round, in 1e9 a second."""
        arguments = (np.int32(rounds), never, *more, out)
        ms = _median(lambda: kernels[name]((blocks,), (threads,), arguments))
        return work * rounds * blocks * threads / ms / 1e6

    return {
        "mma.sync bfloat16, TFLOP/s": rate("mma_bf16", 4 * 2 * 16 * 8 * 16 / 32) / 1e3,
        "mma.sync TF32, TFLOP/s": rate("mma_tf32", 4 * 2 * 16 * 8 * 8 / 32) / 1e3,
        "reads of L2, GB/s": rate("read_l2", 8 * 16, source, np.int32(source.size // 4)),
    }


def _median(call: Call) -> float:
    return statistics.median(time_alternating({"call": call})["call"])
