"""Kernels that not every GPU can run: checked before their first use, and not used where they are wrong."""

import errno
import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from tests.cupy_model import Cupy
from zfcuda import backends, kernel_checks, kernel_trials, plans, tuning
from zfcuda.kernel_checks import Kernel
from zfcuda.plans import Plan, Problem

GPU = "emulator"
CONV = Problem("conv2d", "bf16", (1, 6, 6, 8), (8, 3, 3, 8), (1, 1), (1, 1))
PLAN = Plan(CONV, "wgmma 128x128", 1, 0.5, 0.75)
KERNEL = PLAN.checked_kernel
OTHER = replace(KERNEL, name="wgmma 128x256")


pytestmark = pytest.mark.usefixtures("few_multiprocessors")


@pytest.fixture
def checked(monkeypatch):
    """The kernels that are checked, in turn; each still is."""
    kernels, check = [], kernel_checks.fault
    monkeypatch.setattr(
        kernel_checks, "fault", lambda backend, kernel: kernels.append(kernel) or check(backend, kernel)
    )
    return kernels


def scaled(by):
    """Computes, then spoils one element of the result."""

    def instead(conv2d, arguments):
        conv2d(*arguments)
        y = arguments[8]
        y[0, 2, 3, 4] *= by

    return instead


def held(backend):
    """The names of the kernels that serve the problem of PLAN."""
    x, w = np.ones(CONV.x, backends.BFLOAT16), np.ones(CONV.w, backends.BFLOAT16)
    y = np.empty(CONV.x, backends.BFLOAT16)
    shape = CONV.key(backend)[2]
    before = backend.module.debug.variants()
    bf16 = backend.module.bf16
    backend.run(bf16.conv2d, (shape, x, w, None, None, None, False, CONV.w[0], y), (bf16.conv2d_workspace, shape))
    return "".join(name for name, n in backend.module.debug.variants().items() if n > before.get(name, 0))


def write(backend, *tuned):
    path = plans.cache_path(GPU)
    path.parent.mkdir(exist_ok=True)
    path.write_text(plans.to_json(GPU, tuned))


def test_which_kernels_need_one(backend):
    found = kernel_checks.checkable(backend)
    assert KERNEL in found
    products = {"conv2d", "conv_transpose2d", "conv2d_weight_grad"}
    assert {kernel.operation for kernel in found} == {*products, "conv2d_relu_pool"}
    assert len([kernel for kernel in found if kernel.name.startswith("wgmma")]) == 3 * 3
    names = ("ffma 64x32", "mma 64x64", "patch 256x96", "composed")
    assert not any(Kernel("conv2d", "bf16", name).is_checked for name in names)


def test_every_kernel_that_needs_one_has_one(backend):
    """Whatever the operation: nothing that a plan may name would go unchecked."""
    allowed = set(kernel_checks.checkable(backend))
    geometry = {"x": (2, 16, 16, 64), "w": (64, 3, 3, 64)}
    pool = {"window": (3, 3), "pool_stride": (2, 2), "pool_padding": (1, 1)}
    products = ("conv2d", "conv_transpose2d", "conv2d_weight_grad")
    problems = [replace(CONV, operation=operation, **geometry) for operation in products]
    problems += [
        replace(CONV, operation=one, **geometry, **pool) for one in ("conv2d_relu_pool", "unpool_conv2d_weight_grad")
    ]
    for problem in problems:
        for precision in ("fp32", "tf32", "bf16"):
            key = replace(problem, precision=precision).key(backend)
            kernels = {Kernel(problem.operation, precision, name) for name, _ in backend.module.plan_candidates(*key)}
            assert {kernel for kernel in kernels if kernel.is_checked} <= allowed


def test_a_check_leaves_no_plan(backend):
    shape = backend.module.ConvShape(*kernel_checks._PROBLEMS[0])
    before = backend.module.bf16.conv2d_workspace(shape)
    kernel_checks.fault(backend, KERNEL)
    assert backend.module.bf16.conv2d_workspace(shape) == before


# ---- Before the first use ----------------------------------------------------------------------------------


def test_the_first_process_checks_and_the_next_reads(backend, checked, recwarn):
    write(backend, PLAN)
    plans.load(backend)
    assert checked == [KERNEL]
    assert "WgmmaTile" in held(backend)
    backend.module.clear_plans()
    plans.load(backend)
    assert checked == [KERNEL]
    assert "WgmmaTile" in held(backend)
    assert kernel_checks.faulty(backend, GPU, {KERNEL, OTHER}) == set()
    assert checked == [KERNEL, OTHER]
    assert kernel_checks.faulty(backend, GPU, {KERNEL, OTHER}) == set()
    assert checked == [KERNEL, OTHER]
    assert not recwarn.list


def test_what_plans_do_not_name_is_not_run(backend, checked):
    write(backend, replace(PLAN, kernel="mma 64x64"))
    plans.load(backend)
    assert checked == []
    assert not kernel_checks.cache_path(GPU).exists()


@pytest.mark.parametrize("use", ["never", "always"])
def test_the_environment_has_the_last_word(backend, checked, spoil, small_checks, monkeypatch, use):
    write(backend, PLAN)
    spoil(KERNEL, scaled(np.nan))
    monkeypatch.setattr(backend.module, "wgmma_use", lambda: use)
    if use == "never":
        plans.load(backend)
        assert checked == []
    else:
        with pytest.warns(RuntimeWarning, match="is wrong on emulator but used, as ZFCUDA_KERNELS asks: ") as caught:
            plans.load(backend)
        assert len(caught) == 1
        assert set(checked) == set(kernel_checks.checkable(backend))
        assert "WgmmaTile" in held(backend)


def test_a_gpu_without_such_kernels(backend, checked, monkeypatch):
    monkeypatch.setattr(backend.module, "can_run_wgmma", lambda: False)
    monkeypatch.delattr(backend.module, "wgmma_use")  # an error where ZFCUDA_KERNELS asks for them
    assert kernel_checks.faulty(backend, GPU, [KERNEL]) == set()
    assert checked == []


# ---- Kernels that are wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instead",
    [scaled(1.5), scaled(np.nan), scaled(-1), scaled(np.inf), lambda conv2d, arguments: None],
    ids=["scaled", "nan", "negative", "infinite", "nothing written"],
)
def test_a_wrong_kernel_is_not_used(backend, spoil, checked, instead):
    spoil(KERNEL, instead)
    write(backend, PLAN)
    message = (
        "kernel wgmma 128x128 of conv2d in bf16 is wrong on emulator and not used: "
        r"\d+ of 113256 values of its result for x \(3, 12, 11, 264\) and w \(264, 2, 3, 264\) are not those of "
        "mma.sync; please report it"
    )
    for _ in range(2):  # the second by the file
        with pytest.warns(RuntimeWarning, match=f"^{message}$") as caught:
            plans.load(backend)
        assert len(caught) == 1
        assert "WgmmaTile" not in held(backend)
    assert checked == [KERNEL]


def test_other_plans_hold(backend, spoil, monkeypatch):
    spoil(KERNEL, scaled(2))
    right = replace(PLAN, problem=replace(CONV, operation="conv_transpose2d"))
    problem = replace(CONV, x=(1, 7, 7, 8))
    write(backend, PLAN, right, replace(PLAN, problem=problem, kernel="mma 64x64"))
    held_plans = []
    set_plan = backend.module.set_plan
    monkeypatch.setattr(backend.module, "set_plan", lambda *plan: held_plans.append(plan[-2:]) or set_plan(*plan))
    with pytest.warns(RuntimeWarning, match="is wrong"):
        plans.load(backend)
    assert held_plans[-2:] == [("wgmma 128x128", 1), ("mma 64x64", 1)]


def test_a_kernel_that_cannot_run_is_not_used(backend, spoil):
    def fail(conv2d, arguments):
        raise RuntimeError("an illegal instruction was encountered")

    spoil(KERNEL, fail)
    write(backend, PLAN)
    with pytest.warns(
        RuntimeWarning, match="and not used: RuntimeError: an illegal instruction was encountered; please report it$"
    ):
        plans.load(backend)
    assert "WgmmaTile" not in held(backend)


def test_too_little_memory_is_no_verdict(backend, spoil):
    def fail(conv2d, arguments):
        raise MemoryError("no room")

    spoil(KERNEL, fail)
    write(backend, PLAN)
    message = (
        r"^kernel wgmma 128x128 of conv2d in bf16: could not be checked on emulator and not used: "
        r"MemoryError: no room; the next process checks again$"
    )
    with pytest.warns(RuntimeWarning, match=message):
        plans.load(backend)
    assert not kernel_checks.cache_path(GPU).exists()
    assert "WgmmaTile" not in held(backend)


def test_the_tuner_leaves_it_out(backend, spoil, small_checks, monkeypatch):
    spoil(KERNEL, scaled(3))
    monkeypatch.setattr(tuning, "_elapsed", lambda backend, call, repeats: 1.0)
    timed = []
    first_round = tuning._first_round
    monkeypatch.setattr(
        tuning, "_first_round", lambda b, p, choices, call: timed.extend(choices) or first_round(b, p, choices, call)
    )
    with pytest.warns(RuntimeWarning, match="kernel wgmma 128x128 of conv2d in bf16 is wrong on emulator"):
        tuning.tune([CONV], device="emulated")
    names = {name for name, _ in timed}
    assert "wgmma 128x256" in names
    assert "wgmma 128x128" not in names


# ---- The file of verdicts ----------------------------------------------------------------------------------


def test_what_the_file_says_holds(backend, checked, small_checks):
    """No check where there is a verdict."""
    assert kernel_checks.faulty(backend, GPU, [KERNEL, OTHER]) == set()
    path = kernel_checks.cache_path(GPU)
    contents = json.loads(path.read_text())
    assert contents["gpu"] == GPU
    assert {entry["name"]: entry["fault"] for entry in contents["kernels"]} == {KERNEL.name: "", OTHER.name: ""}
    contents["kernels"][0]["fault"] = "its result is 40 times too far from home"
    path.write_text(json.dumps(contents))
    checked.clear()
    with pytest.warns(RuntimeWarning, match="40 times too far from home; please report it$"):
        assert len(kernel_checks.faulty(backend, GPU, [KERNEL, OTHER])) == 1
    assert checked == []


@pytest.mark.parametrize("what", ["gpu", "driver", "build", "version"])
def test_verdicts_of_something_else_do_not_count(backend, checked, small_checks, monkeypatch, tmp_path, what):
    kernel_checks.faulty(backend, GPU, [KERNEL])
    if what == "driver":
        monkeypatch.setattr(backend.module, "driver_version", lambda: "99.0")
    elif what == "version":
        monkeypatch.setattr("zfcuda._version.__version__", "9.9")
    elif what == "build":
        copy = tmp_path / "module.so"
        copy.write_bytes(b"another")
        monkeypatch.setattr(backend.module, "__file__", str(copy))
    for _ in range(2):
        kernel_checks.faulty(backend, "GPU 2" if what == "gpu" else GPU, [KERNEL])
    assert checked == [KERNEL, KERNEL]


def damaged(**fields):
    return lambda contents: json.dumps(contents | fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda contents: "",
        lambda contents: "{",
        lambda contents: "[]",
        lambda contents: "null",
        lambda contents: "[" * 100_000,
        lambda contents: json.dumps(contents).encode("utf-16"),
        damaged(kernels=3),
        damaged(kernels=["x"]),
        damaged(kernels=[{}]),
        damaged(kernels=[{"operation": "conv2d", "precision": "bf16", "name": "wgmma 128x128"}]),
        damaged(kernels=[{"operation": "conv2d", "precision": "bf16", "name": "wgmma 128x128", "fault": 0}]),
        damaged(kernels=[{"operation": ["conv2d"], "precision": "bf16", "name": "wgmma 128x128", "fault": ""}]),
        damaged(kernels=[{"operation": "conv2d", "precision": "bf16", "name": "x", "fault": "", "more": ""}]),
    ],
)
def test_a_damaged_file_is_as_none(backend, checked, small_checks, recwarn, damage):
    kernel_checks.faulty(backend, GPU, [KERNEL])
    path = kernel_checks.cache_path(GPU)
    whole = path.read_text()
    text = damage(json.loads(whole))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert kernel_checks.faulty(backend, GPU, [KERNEL]) == set()
    assert checked == [KERNEL, KERNEL]
    assert path.read_text() == whole
    assert not recwarn.list


@pytest.mark.parametrize("place", ["directory", "nowhere", "full"])
def test_where_nothing_can_be_kept_each_process_checks(backend, checked, small_checks, monkeypatch, tmp_path, place):
    write(backend, PLAN)
    if place == "directory":
        kernel_checks.cache_path(GPU).mkdir()
    elif place == "full":

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(kernel_checks, "write_atomically", fail)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    for turn in range(2):
        assert kernel_checks.faulty(backend, GPU, [KERNEL]) == set()
        assert len(checked) == turn + 1


# ---- On a GPU ----------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(backend, monkeypatch):
    """A CUDA backend on a model of CuPy, with the emulated kernels."""
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    cuda = backends.CudaBackend(backend.module, Cupy())
    monkeypatch.setattr(kernel_trials.Trials, "fault", lambda self, kernel: kernel_checks.fault(cuda, Kernel(**kernel)))
    return cuda


def test_arrays_are_those_of_the_gpu(cuda):
    assert kernel_checks.fault(cuda, KERNEL) == ""


def test_a_capture_is_not_disturbed(cuda, checked):
    """What has no verdict is not used; the next process, or the tuner, checks it."""
    write(cuda, PLAN)
    stream = cuda.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.warns(
            RuntimeWarning, match=r"^kernel wgmma 128x128 of conv2d in bf16: not used by this process, .* a"
        ):
            plans.load(cuda)
        assert stream.recorded == []
        stream.end_capture()
    assert checked == []
    assert not kernel_checks.cache_path(GPU).exists()
    kernel_checks.faulty(cuda, GPU, [KERNEL])
    assert checked == [KERNEL]
    with stream:  # now there is a verdict
        stream.begin_capture()
        assert kernel_checks.faulty(cuda, GPU, [KERNEL]) == set()
        stream.end_capture()


def test_the_capture_of_another_stream_is_not_disturbed(cuda, checked, monkeypatch):
    def implicit(self):
        raise RuntimeError("cudaErrorStreamCaptureImplicit")

    monkeypatch.setattr("tests.cupy_model.Stream.is_capturing", implicit)
    with pytest.warns(RuntimeWarning, match="nothing can be while a stream is captured"):
        assert kernel_checks.faulty(cuda, GPU, [KERNEL]) == {KERNEL}
    assert checked == []
