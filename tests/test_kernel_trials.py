"""Kernels are checked in a process of their own, which may hang or end."""

import subprocess
import time
from dataclasses import asdict, replace

import pytest

from tests.conftest import SMALL_CHECK
from tests.test_kernel_checks import GPU, KERNEL, OTHER, PLAN, held, write
from zfcuda import kernel_checks, kernel_trials, plans
from zfcuda.kernel_trials import Trials

# In the process: checks are small, and in that of KERNEL the emulated kernel calls what stands in the braces.
PROGRAM = f"""
import os, sys, time
from zfcuda import backends, kernel_checks, kernel_trial_process
kernel_checks._PROBLEMS, kernel_checks._long_problems = ({SMALL_CHECK},), lambda *_: []
bf16, check = backends.get("emulated").module.bf16, kernel_checks.fault
conv2d = bf16.conv2d
def fault(backend, kernel):
    bf16.conv2d = (lambda *arguments: {{}}) if kernel.name == "wgmma 128x128" else conv2d
    return check(backend, kernel)
kernel_checks.fault = fault
kernel_trial_process.main()
"""
RIGHT = "conv2d(*arguments)"


@pytest.fixture
def processes(monkeypatch):
    """Those that were started."""
    started, start = [], subprocess.Popen

    def note(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    return started


@pytest.fixture
def spoiled(monkeypatch):
    """Call it with what KERNEL does, or to have the process check what is small."""
    return lambda does: monkeypatch.setattr(
        kernel_trials, "_PROGRAM", f"exec({PROGRAM.replace('{}', does)!r}, globals())"
    )


def test_one_process_checks_all_that_are_right(backend, processes, spoiled):
    spoiled(RIGHT)
    with Trials(backend) as trials:
        assert processes == []
        assert [trials.fault(asdict(kernel)) for kernel in (KERNEL, OTHER)] == ["", ""]
        assert len(processes) == 1
        assert processes[0].poll() is None
    assert processes[0].poll() is not None


def test_a_kernel_that_hangs(backend, processes, spoiled, monkeypatch):
    """The next one is checked by another process."""
    spoiled("time.sleep(1000)")
    monkeypatch.setattr(kernel_trials, "_SECONDS", 3.0)
    begun = time.monotonic()
    with Trials(backend) as trials:
        assert trials.fault(asdict(KERNEL)) == "it hangs: no result within 3 s"
        assert processes[0].poll() is not None
        monkeypatch.setattr(kernel_trials, "_SECONDS", 60.0)
        assert trials.fault(asdict(OTHER)) == ""
    assert time.monotonic() - begun < 300
    assert len(processes) == 2


def test_a_kernel_that_breaks_the_context_breaks_that_of_the_process(backend, processes, spoiled):
    spoiled("exec('raise RuntimeError(\"an illegal instruction\")')")
    with Trials(backend) as trials:
        with pytest.raises(RuntimeError, match=r"^RuntimeError: an illegal instruction$"):
            trials.fault(asdict(KERNEL))  # that of mma.sync, too
        assert trials.fault(asdict(OTHER)) == ""
    assert len(processes) == 2


def test_what_is_printed_is_no_answer(backend, spoiled):
    spoiled(f"[print('{{}}'), os.write(1, b'{{}}'), {RIGHT}]")
    with Trials(backend) as trials:
        assert trials.fault(asdict(KERNEL)) == ""


def test_a_process_that_ends(backend, processes, spoiled):
    spoiled("os._exit(7)")
    with Trials(backend) as trials:
        with pytest.raises(RuntimeError, match=r"^the process that checks kernels ended with 7$"):
            trials.fault(asdict(KERNEL))
        assert trials.fault(asdict(OTHER)) == ""


def test_a_process_that_was_ended_between_two_checks(backend, processes, spoiled):
    spoiled(RIGHT)
    with Trials(backend) as trials:
        assert trials.fault(asdict(KERNEL)) == ""
        processes[0].kill()
        processes[0].wait()
        with pytest.raises(RuntimeError, match=r"^the process that checks kernels does not listen: .*Broken pipe$"):
            trials.fault(asdict(OTHER))
        assert trials.fault(asdict(OTHER)) == ""


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(3)", "^the process that checks kernels ended with 3$"),
        ("import time; time.sleep(1000)", "^the process that checks kernels was not ready in 1 s$"),
    ],
)
def test_a_process_that_does_not_begin(backend, processes, monkeypatch, program, message):
    monkeypatch.setattr(kernel_trials, "_PROGRAM", program)
    monkeypatch.setattr(kernel_trials, "_START_SECONDS", 1.0 if "sleep" in program else 60.0)
    with Trials(backend) as trials, pytest.raises(RuntimeError, match=message):
        trials.fault(asdict(KERNEL))
    assert processes[0].poll() is not None


def test_a_backend_that_cannot_be_used(backend, monkeypatch):
    monkeypatch.setattr(backend, "name", "nonesuch")
    with Trials(backend) as trials, pytest.raises(RuntimeError, match=r"^ValueError: backend must be one of "):
        trials.fault(asdict(KERNEL))


def test_without_python_there_is_no_verdict(backend, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with Trials(backend) as trials, pytest.raises(FileNotFoundError):
        trials.fault(asdict(KERNEL))


def test_a_gpus_kernels_are_checked_there(backend, monkeypatch):
    """A hang is a verdict, which is kept, and a process that ends is none."""
    write(backend, PLAN, replace(PLAN, problem=replace(PLAN.problem, x=(1, 7, 7, 8)), kernel=OTHER.name))
    monkeypatch.setattr(backend, "on_host", False)
    monkeypatch.setattr(kernel_checks, "_is_capturing", lambda backend: False)

    def fault(self, kernel):
        if kernel == asdict(OTHER):
            raise RuntimeError("the process that checks kernels ended with -9")
        return "it hangs: no result within 60 s"

    monkeypatch.setattr(Trials, "fault", fault)
    with pytest.warns(RuntimeWarning) as caught:
        plans.load(backend)
    said = [str(one.message) for one in caught]
    assert len(said) == 2
    assert "128x128 of conv2d in bf16 is wrong on emulator and not used: it hangs: no result within 60 s;" in said[0]
    assert "could not be checked on emulator and not used: RuntimeError: the process that checks" in said[1]
    monkeypatch.setattr(Trials, "fault", lambda self, kernel: "")
    with pytest.warns(RuntimeWarning, match="it hangs"):
        assert kernel_checks.faulty(backend, GPU, [KERNEL, OTHER]) == {KERNEL}
    monkeypatch.setattr(backend, "on_host", True)
    assert "WgmmaTile" not in held(backend)
