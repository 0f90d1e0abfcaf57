"""Which backend serves an array, and what is said when none can."""

import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import zfcuda
from zfcuda import backends, ops

X = np.ones((1, 2, 2, 1), np.float32)


class OnGpu:
    """An array of another library that lives on a GPU."""

    __cuda_array_interface__ = {"shape": (1,), "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012


class Foreign:
    """A host array of another library: offers DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_names():
    assert "cpu" in backends.available()
    assert set(backends.status()) == {"cpu", "cuda", "emulated"}
    assert all(reason == "" or len(reason) > 20 for reason in backends.status().values())


def test_a_wrong_choice_of_kernels_is_a_reason_against_cuda_alone(monkeypatch):
    """Where the kernels of wgmma could run, what the environment asks for is read at the first use."""

    def wgmma_use():
        raise ValueError("ZFCUDA_KERNELS must be mma or wgmma, got 'foo'")

    there = {"unavailable_reason": lambda: "", "gpu_names": lambda: ["no GPU of that name"]}
    cuda = types.SimpleNamespace(**there, can_run_wgmma=lambda: True, wgmma_use=wgmma_use)
    load = backends._load
    monkeypatch.setattr(backends, "_load", lambda module, name: cuda if name == "cuda" else load(module, name))
    monkeypatch.setattr(backends, "_used_cuda", set())
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    backends.get.cache_clear()
    reason = "the CUDA backend cannot run: ZFCUDA_KERNELS must be mma or wgmma, got 'foo'"
    assert backends.status()["cuda"] == reason
    assert "cuda" not in backends.available()
    assert "cpu" in backends.available()
    with pytest.raises(zfcuda.BackendError, match=f"^{reason}$"):
        backends.get("cuda")


def test_use_is_undone_also_after_an_error():
    if "emulated" not in backends.available():
        pytest.skip(backends.status()["emulated"])

    def fail():
        with backends.use("emulated"):
            assert backends.resolve(x=X)[0].name == "emulated"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert backends.resolve(x=X)[0].name == "cpu"


def test_use_holds_in_its_thread_only():
    if "emulated" not in backends.available():
        pytest.skip(backends.status()["emulated"])
    seen = []
    with backends.use("emulated"):
        thread = threading.Thread(target=lambda: seen.append(backends.resolve(x=X)[0].name))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_use_refuses_what_serves_no_numpy_arrays(name):
    with pytest.raises(ValueError, match="only cpu and emulated"), backends.use(name):
        pass


def test_unknown_backend():
    with pytest.raises(ValueError, match="must be one of cpu, cuda, emulated, got 'tpu'"):
        backends.get("tpu")


def test_arrays_of_other_libraries_are_viewed_not_copied():
    array = np.array([[-1.0, 2.0]], np.float32)
    _, (viewed,) = backends.resolve(x=Foreign(array))
    assert viewed.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(ops.relu(Foreign(array)), [[0, 2]])


def test_gpu_array_without_a_usable_gpu_says_why():
    if "cuda" in backends.available():
        pytest.skip("a GPU is here")
    with pytest.raises(zfcuda.BackendError, match=r"(?i)the cuda backend"):
        ops.relu(OnGpu())


def test_mixed_devices(gpu):
    for on_host, on_gpu in (("x", "w"), ("w", "x")):
        with pytest.raises(TypeError, match=f"{on_host} on the CPU") as error:
            ops.conv2d(**{on_host: X, on_gpu: gpu.asarray(X)})
        assert f"{on_gpu} on GPU 0" in str(error.value)


def test_results_live_on_the_gpu_of_the_arguments(monkeypatch):
    """CuPy allocates on its current GPU, which need not be that of the arrays."""
    current = [0]

    class Gpu:
        def __init__(self, number):
            self.id = number

        def __enter__(self):
            current.append(self.id)

        def __exit__(self, *_):
            current.pop()

    allocated = []
    cupy = types.SimpleNamespace(
        empty=lambda shape, dtype: allocated.append((shape, current[-1])), cuda=types.SimpleNamespace(Device=Gpu)
    )
    array = types.SimpleNamespace(device=Gpu(3))
    monkeypatch.setattr(backends, "_view", lambda name, value: value)
    monkeypatch.setattr(backends, "get", lambda name: backends.CudaBackend(None, cupy))
    backend, _ = backends.resolve(x=array, out=None)
    backend.empty((2, 5))
    assert allocated == [((2, 5), 3)]
    assert current == [0]


@pytest.mark.parametrize("dtype", [np.float32, backends.BFLOAT16, np.uint8])
@pytest.mark.parametrize("numbers", [(), (5,), (3, 2, 4)])
def test_rows_are_taken(dtype, numbers):
    rng = np.random.default_rng(0)
    rows, numbers = rng.integers(0, 200, (9, 6)).astype(dtype), rng.integers(0, 9, numbers)
    taken = backends.get("cpu").take(rows, numbers)
    assert taken.dtype == dtype
    np.testing.assert_array_equal(taken, rows[numbers])


def test_rows_and_zeros_are_in_memory_that_is_used_again():
    backend, rows = backends.get("cpu"), np.ones((1 << 16, 16), np.float32)
    address = backend.pointer(backend.take(rows, np.arange(len(rows))))
    zeros = backend.zeros(rows.shape)
    assert not zeros.any()
    assert backend.pointer(zeros) == address
    del zeros
    assert backend.pointer(backend.empty(rows.shape)) == address


def test_values_are_read_later_as_they_were():
    array = np.array([1.0, 2.0], np.float32)
    read = backends.get("cpu").read_later(array)
    array[0] = 5
    assert read().tolist() == [1, 2]


def test_values_on_a_gpu_are_read_without_waiting_for_what_comes_after(monkeypatch):
    happened = []

    class Event:
        def __init__(self, disable_timing):
            assert disable_timing

        def record(self):
            happened.append("event recorded")

        def synchronize(self):
            happened.append("event waited for")

    class OnItsGpu:
        shape, dtype = (), np.dtype(np.float32)

        def get(self, out, blocking):
            assert not blocking
            happened.append("copy queued")
            out[...] = 7

    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(Event=Event))
    read = backends.CudaBackend(None, cupy).read_later(OnItsGpu())
    assert happened == ["copy queued", "event recorded"]
    assert float(read()) == 7
    assert happened[2:] == ["event waited for"]


def test_instruction_set_by_name(monkeypatch):
    from zfcuda import _cpu

    monkeypatch.setenv("ZFCUDA_ISA", "baseline")
    assert _cpu.load().description().startswith("baseline")
    monkeypatch.setenv("ZFCUDA_ISA", "mmx")
    with pytest.raises(zfcuda.BackendError, match="avx512, avx2, baseline"):
        _cpu.load()


@pytest.mark.parametrize(
    ("asked", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "70"}, "70"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_sleep_soon_unless_something_else_is_asked_for(asked, spins):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    others = {name: value for name, value in os.environ.items() if name not in names}
    code = f"import os; from zfcuda import _cpu; _cpu.load(); print([os.environ.get(name) for name in {names}])"
    environment = {**others, **asked, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    if "GOMP" not in done.stderr:
        pytest.skip("not GCC's OpenMP")
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) == [spins]
    assert done.stdout == f"{[asked.get(name) for name in names]}\n"


def test_import_is_light():
    """`import zfcuda` brings in none of the heavy libraries, and the commands' own only when they are used."""
    code = "import sys, zfcuda; print(','.join(m for m in ('cupy','matplotlib','jinja2','torch') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_its_source_which_is_not_built_says_so(tmp_path):
    """An installed zfcuda is hidden where Python is started in the folder of the source."""
    built = shutil.ignore_patterns("*.so", "_build_info.py", "__pycache__")
    shutil.copytree(Path(zfcuda.__file__).parent, tmp_path / "zfcuda", ignore=built)
    # Without the finders that a development install puts before this folder.
    command = [sys.executable, "-S", "-c", "import zfcuda"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *map(str, sys.path)])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith(
        f"ImportError: zfcuda is imported from its source, {tmp_path / 'zfcuda'}, where it is not"
    )
    assert "pip install -e ." in message
