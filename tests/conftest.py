"""Which backends the tests run on, and how a test meets arrays of each.

A test that takes `device` runs once per backend. A test that takes `case` runs on many random cases per backend, each
with its own number, from which its random generator starts: `pytest -k "cpu-137"` runs one again. What needs a GPU
bears the mark `gpu`: `pytest -m gpu` runs that alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest

from tests.cupy_model import Cupy, Kernels
from zfcuda import backends, kernel_checks

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job that a script starts behind it, and its children then
    signal.signal(signal.SIGINT, signal.default_int_handler)

CASES = {"cpu": 200, "emulated": 60, "cuda": 200}  # random cases per operation


@dataclass(frozen=True)
class Device:
    """A backend under test: makes its arrays from NumPy's and back, and activates it."""

    name: str

    def array(self, array):
        return backends.get("cuda").xp.asarray(array) if self.name == "cuda" else array

    def numpy(self, array):
        return array.get() if self.name == "cuda" else array

    def place(self, network):
        """Moves a network here."""
        return network.to("cuda" if self.name == "cuda" else "cpu")

    def active(self):
        return contextlib.nullcontext() if self.name == "cuda" else backends.use(self.name)

    def orders(self):
        """Five turns, in each of which the emulator runs blocks, warps and threads in another order."""
        debug = getattr(backends.get(self.name).module, "debug", None)
        before = debug.configuration() if debug else {}
        try:
            for turn in range(5):
                if debug:
                    debug.configure(seed=before["seed"] + 1 + turn, schedule="random" if turn % 2 else "depth_first")
                yield
        finally:
            if debug:
                debug.configure(**before)

    @property
    def max_work(self):
        """Multiply-adds that one random convolution may cost here."""
        return 300_000 if self.name == "emulated" else 3_000_000

    @property
    def max_size(self):
        """Elements that one random array may have here."""
        return 8_000 if self.name == "emulated" else 60_000


@dataclass(frozen=True)
class Case:
    """One random case: a device and a number, which is also the seed."""

    device: Device
    number: int

    @property
    def rng(self):
        return np.random.default_rng(self.number)


def parameter(backend, *numbers):
    """A parameter of a test: a backend's name, alone or with numbers."""
    value = (backend, *numbers) if numbers else backend
    marks = [pytest.mark.gpu] if backend == "cuda" else []
    return pytest.param(value, marks=marks, id="-".join(map(str, (backend, *numbers))))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and (reason := backends.status()["cuda"]):
        pytest.skip(f"needs a GPU: {reason}")


def pytest_generate_tests(metafunc):
    # With -m gpu the others are not even collected, which takes half a minute.
    names = ("cuda",) if metafunc.config.option.markexpr == "gpu" else backends.NAMES
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", [parameter(name) for name in names], indirect=True)
    if "case" in metafunc.fixturenames:
        status = backends.status()
        # A backend that cannot run here is skipped once per operation, not once per case.
        cases = [parameter(name, i) for name in names for i in range(1 if status[name] else CASES[name])]
        metafunc.parametrize("case", cases, indirect=True)


@contextlib.contextmanager
def activated(name):
    """The backend as a device, active; the test is skipped where it cannot run."""
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    device = Device(name)
    with device.active():
        yield device


@pytest.fixture
def device(request):
    with activated(request.param) as device:
        yield device


@pytest.fixture
def case(request):
    name, number = request.param
    with activated(name) as device:
        yield Case(device, number)


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """The emulated one, with a cache of its own for plans and checks."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backend = backends.get("emulated")
    yield backend
    backend.module.clear_plans()


@pytest.fixture
def few_multiprocessors():
    """Of the emulated device: a check has soon filled them."""
    if backends.status()["emulated"]:
        yield
        return
    debug = backends.get("emulated").module.debug
    before = debug.configuration()
    debug.configure(multiprocessors=1)
    yield
    debug.configure(**before)


SMALL_CHECK = ((1, 5, 5, 72), (72, 3, 3, 72), (1, 1), (1, 1))


@pytest.fixture
def small_checks(monkeypatch):
    """Of kernels: one problem of a few tiles, for tests of what becomes of a verdict."""
    monkeypatch.setattr(kernel_checks, "_PROBLEMS", (SMALL_CHECK,))
    monkeypatch.setattr(kernel_checks, "_long_problems", lambda kernel, multiprocessors: [])


@pytest.fixture
def spoil(backend, monkeypatch):
    """Call it with a kernel of conv2d and what is done in its place: instead(conv2d, its arguments)."""
    set_plan = backend.module.set_plan
    current = []

    def set_and_note(*plan):
        set_plan(*plan)
        current[:] = plan[-2:]

    def break_it(kernel, instead):
        of = getattr(backend.module, kernel.precision)
        conv2d = of.conv2d

        def broken(*arguments):
            if current[:1] == [kernel.name]:
                instead(conv2d, arguments)
            else:
                conv2d(*arguments)

        monkeypatch.setattr(of, "conv2d", broken)
        monkeypatch.setattr(backend.module, "set_plan", set_and_note)

    return break_it


_GUARD = 256  # bytes on either side; keeps the alignment that real arrays have


@pytest.fixture
def guarded_memory(monkeypatch):
    """Every array that an operation asks for (results and workspaces) starts as NaN, 255 or -1, between two guard zones
    that must be intact at the end."""
    blocks = []

    def guard(cls):
        def empty(self, shape, dtype=np.float32):
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            if os.environ.get("ZFCUDA_EMULATED_MODULE") == "_sanitized":  # AddressSanitizer guards exact allocations
                return np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape)
            block = self.xp.full(size + 2 * _GUARD + 64, 0xFF, np.uint8)
            start = _GUARD + -self.pointer(block) % 64
            blocks.append((block, start, size))
            return block[start : start + size].view(dtype).reshape(shape)

        monkeypatch.setattr(cls, "empty", empty)

    guard(backends.HostBackend)
    guard(backends.CudaBackend)
    yield
    for block, start, size in blocks:
        assert bool((block[:start] == 0xFF).all()), "an operation wrote before the start of an array"
        assert bool((block[start + size :] == 0xFF).all()), "an operation wrote past the end of an array"


@pytest.fixture
def gpu(monkeypatch):
    """A model of CuPy (`tests/cupy_model.py`), whose arrays the CUDA backend serves with the emulated kernels."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    cupy, get = Cupy(), backends.get
    backend = backends.CudaBackend(Kernels(get("emulated").module, cupy), cupy)
    monkeypatch.setattr(backends, "get", lambda name: backend if name == "cuda" else get(name))
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    return cupy
