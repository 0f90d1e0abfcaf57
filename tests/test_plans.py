"""The cache of tuned plans: what is written is read and holds, and what is not ours is left alone."""

import json
import subprocess
import sys
import types
from dataclasses import replace

import pytest

import zfcuda
from zfcuda import backends, plans
from zfcuda.commands.info import _tuned
from zfcuda.plans import Plan, Problem

CONV = Problem("conv2d", "fp32", (1, 6, 6, 8), (8, 3, 3, 8), (1, 1), (1, 1))
BLOCK = replace(CONV, operation="conv2d_relu_pool", window=(3, 3), pool_stride=(2, 2), pool_padding=(1, 1))
PARTIAL_SUMS = 64 * (8 + 3 * 4 * 32)  # bytes, of the one tile of 64 x 32: where a row is, and its sums
PLANS = [Plan(CONV, "ffma 64x32", 3, 0.5, 0.75), Plan(BLOCK, "composed", 1, 1.25, 1.5)]


def write(text, gpu="emulator"):
    path = plans.cache_path(gpu)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def workspace(backend, problem=CONV):
    """Bytes of partial sums: which splits hold."""
    return backend.module.fp32.conv2d_workspace(problem.key(backend)[2])


def test_a_file_for_each_gpu_and_version(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = plans.cache_path("NVIDIA H100 80GB HBM3")
    assert path == tmp_path / "zfcuda" / f"plans-nvidia-h100-80gb-hbm3-{zfcuda.__version__}.json"
    monkeypatch.setattr("zfcuda._version.__version__", "9.9")
    assert plans.cache_path("NVIDIA H100 80GB HBM3") != path


@pytest.mark.parametrize("value", ["", "relative/directory"])
def test_the_cache_is_in_the_home_directory_otherwise(value, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert plans.cache_path("x").parent == tmp_path / ".cache" / "zfcuda"


def test_without_a_home_there_are_no_plans(backend, monkeypatch, recwarn):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert plans.read(backend) == []
    assert not recwarn.list
    with pytest.raises(FileNotFoundError, match="set XDG_CACHE_HOME"):
        plans.cache_path("emulator")


def test_what_is_written_is_read_and_holds(backend):
    assert workspace(backend) == 0
    path = write(plans.to_json("emulator", PLANS))
    assert '"operation": "conv2d"' in path.read_text().splitlines()[4]
    assert plans.read(backend) == PLANS
    assert workspace(backend) == 0
    plans.load(backend)
    assert workspace(backend) == PARTIAL_SUMS
    backend.module.clear_plans()
    assert workspace(backend) == 0


def test_another_process_goes_by_the_plans(backend):
    code = (
        "from zfcuda import backends, plans; b = backends.get('emulated'); plans.load(b);"
        "shape = b.module.ConvShape((1, 6, 6, 8), (8, 3, 3, 8), (1, 1), (1, 1));"
        "print(b.module.fp32.conv2d_workspace(shape))"
    )
    write(plans.to_json("emulator", PLANS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{PARTIAL_SUMS}\n"


def test_without_a_file_nothing_is_said(backend, recwarn):
    plans.load(backend)
    assert not recwarn.list
    assert workspace(backend) == 0


def changed(**fields):
    contents = json.loads(plans.to_json("emulator", PLANS))
    contents["plans"][1] |= fields
    return json.dumps(contents)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        b"\xff\xfe",
        "[" * 100_000,
        '{"gpu": "emulator"}',
        f'{{"gpu": "emulator", "zfcuda": "{zfcuda.__version__}", "plans": 3}}',
        f'{{"gpu": "emulator", "zfcuda": "{zfcuda.__version__}", "plans": ["x"]}}',
        changed(operation="conv3d"),
        changed(operation=7),
        changed(precision="fp16"),
        changed(x=[1, 6, 6]),
        changed(x="text"),
        changed(x=[1, 6, 6, [8]]),
        changed(w=[8, 30, 30, 8]),
        changed(window=None),
        changed(window=[0, 0]),
        changed(kernel="ffma 1x1"),
        changed(kernel=None),
        changed(splits=0),
        changed(splits=2),  # a block has none
        changed(splits="1"),
        changed(ms="fast"),
        changed(untuned_ms=0),
        changed(unknown=1),
    ],
)
def test_a_damaged_file_is_ignored_with_a_warning(backend, text):
    path = write(text)
    with pytest.warns(RuntimeWarning) as caught:
        plans.load(backend)
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith(f"the tuned plans in {path} are ignored: the file ")
    assert message.endswith("`zfcuda tune` writes them anew")
    assert len(message) < 600
    assert workspace(backend) == 0


def test_a_file_that_cannot_be_read_is_ignored_with_a_warning(backend):
    plans.cache_path("emulator").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="the file cannot be read"):
        assert plans.read(backend) == []


def test_plans_of_another_gpu_or_version_are_ignored_with_a_warning(backend, monkeypatch):
    write(plans.to_json("NVIDIA H100", PLANS))
    with pytest.warns(RuntimeWarning, match="they are of NVIDIA H100 and zfcuda .*, not of emulator"):
        plans.load(backend)
    text = plans.to_json("emulator", PLANS)
    monkeypatch.setattr("zfcuda._version.__version__", "9.9")
    write(text)
    with pytest.warns(RuntimeWarning, match=r"not of emulator and 9\.9"):
        plans.load(backend)
    assert workspace(backend) == 0


def test_plans_of_another_gpu_in_its_own_file_are_not_looked_at(backend, recwarn):
    write(plans.to_json("NVIDIA H100", PLANS), gpu="NVIDIA H100")
    plans.load(backend)
    assert not recwarn.list
    assert workspace(backend) == 0


class FakeModule:
    """Of a CUDA backend: remembers the plans that are set."""

    def __init__(self, *names):
        self.names = list(names)
        self.set = []

    def unavailable_reason(self):
        return ""

    def gpu_names(self):
        return self.names

    def set_plan(self, *plan):
        self.set.append(plan)

    def __getattr__(self, name):  # shapes and checks as the emulator has them
        return getattr(backends.get("emulated").module, name)


@pytest.mark.parametrize(
    ("names", "count"), [(["NVIDIA Toy"], 2), (["NVIDIA Toy", "NVIDIA Toy"], 2), (["NVIDIA Toy", "NVIDIA Other"], 0)]
)
def test_the_cuda_backend_loads_them_when_it_is_first_used(backend, monkeypatch, names, count):
    """And none where GPUs of several kinds would share them."""
    write(plans.to_json("NVIDIA Toy", PLANS), gpu="NVIDIA Toy")
    module = FakeModule(*names)
    monkeypatch.setattr(backends, "_load", lambda *_: module)
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    backends.get.__wrapped__("cuda")
    assert len(module.set) == count
    assert [(plan[0], *plan[-2:]) for plan in module.set] == [
        ("conv2d", "ffma 64x32", 3),
        ("conv2d_relu_pool", "composed", 1),
    ][:count]


def test_info_says_how_many_are_saved(backend):
    assert _tuned(backend) == "no tuned plans"
    path = write(plans.to_json("emulator", PLANS))
    assert _tuned(backend) == f"2 tuned plans, in {path}"
