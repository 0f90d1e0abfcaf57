"""A fork of a process that has computed (by multiprocessing, or PyTorch's DataLoader): it has none of its parent's
threads, and computes all the same."""

import os
import subprocess
import sys

import pytest

from zfcuda import backends

# fork(task) runs it in a child. Whoever hangs is ended by an alarm.
_PRELUDE = """
import os, signal, sys, threading, traceback
import numpy as np
from zfcuda import backends, ops

_SECONDS = 30
signal.alarm(2 * _SECONDS)
x = np.random.default_rng(0).standard_normal((4, 32, 32, 3), np.float32)
w = np.random.default_rng(1).standard_normal((32, 5, 5, 3), np.float32)

def compute():
    y, switches = ops.max_pool2d(ops.relu(ops.conv2d(x, w, padding=2)), window=2, stride=2)
    return ops.conv2d_weight_grad(x, ops.max_unpool2d(y, switches, window=2, stride=2, output_size=32),
                                  kernel_size=5, padding=2)

def fork(task):
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(_SECONDS)
            task()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def threads():
    return len(os.listdir("/proc/self/task"))
"""

_COMPUTES = """
expected = compute()
def same():
    np.testing.assert_array_equal(compute(), expected)
fork(same)                 # a child
fork(lambda: fork(same))   # a child of a child that has not computed
fork(lambda: (same(), fork(same)))
same()                     # and the parent goes on
"""

_SEVERAL_THREADS = """
expected = compute()
assert threads() > 1
def check():
    np.testing.assert_array_equal(compute(), expected)
    assert threads() > 1, "the child computes on one thread"
fork(check)
"""

_BESIDES = """
expected = compute()
stop = threading.Event()
def busy():
    with backends.use(sys.argv[1]):
        while not stop.is_set():
            compute()
others = [threading.Thread(target=busy) for _ in range(3)]
for thread in others:
    thread.start()
for _ in range(8):         # whatever the other threads are in the middle of
    fork(lambda: np.testing.assert_array_equal(compute(), expected))
stop.set()
"""

_CUDA = """
import types, zfcuda
from zfcuda import plans
backends._load = lambda *_: types.SimpleNamespace(unavailable_reason=lambda: "")  # as if there were a GPU
plans.load = lambda backend: None
sys.modules["cupy"] = types.ModuleType("cupy")
def check():
    try:
        backends.get("cuda")
    except zfcuda.BackendError as error:
        assert 'start it by multiprocessing' in str(error)
    else:
        raise AssertionError("CUDA runs, or seems to")
fork(lambda: backends.get("cuda"))  # nobody has used it yet
backends.get("cuda")
fork(check)
backends.get("cuda")
"""

_POOL = """
import multiprocessing
expected = compute()
with multiprocessing.get_context("fork").Pool(2, signal.alarm, [_SECONDS]) as pool:
    for found in pool.starmap(compute, [()] * 4):
        np.testing.assert_array_equal(found, expected)
"""


def run(program, name):
    command = [sys.executable, "-c", f"{_PRELUDE}\nwith backends.use(sys.argv[1]):\n{_indented(program)}", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "ZFCUDA_EMULATOR_THREADS": "4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _indented(program):
    return "\n".join(f"    {line}" for line in program.strip().splitlines())


_ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux shows them")


@_ON_LINUX
@pytest.mark.parametrize("name", backends.HOST_BACKENDS)
@pytest.mark.parametrize(
    "program",
    [_COMPUTES, _SEVERAL_THREADS, _BESIDES, _POOL],
    ids=["computes", "on several threads", "beside other threads", "multiprocessing"],
)
def test_a_fork_computes(name, program):
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    run(program, name)


@_ON_LINUX
def test_a_fork_of_a_process_that_has_used_a_gpu():
    run(_CUDA, "cpu")
