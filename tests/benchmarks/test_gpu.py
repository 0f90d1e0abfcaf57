"""benchmarks/gpu.py as far as a machine without a GPU can tell: it invents no number, whatever happens."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu
import gpu_device
import gpu_plan
import gpu_worker
import harness
import numpy as np
import pytest

from zfcuda import ops

SCRIPT = Path(gpu.__file__)
REPOSITORY = SCRIPT.parent.parent


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name, which runs the given shell lines, alone on PATH."""

    def install(*lines):
        program = tmp_path / "nvidia-smi"
        program.write_text("\n".join(["#!/bin/sh", *lines]))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_without_nvidia_smi_it_measures_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path / "results"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 3
    assert result.stderr == (
        "Nothing was measured: nvidia-smi is not on PATH: install the NVIDIA driver with its tools\n"
    )
    assert not result.stdout
    assert not (tmp_path / "results").exists()


def test_a_gpu_that_zfcuda_cannot_use_is_not_measured(nvidia_smi, monkeypatch, tmp_path, capsys):
    nvidia_smi("echo 'NVIDIA Toy, 580.1, 9.0, 81559, 1980, 700.00'")
    monkeypatch.setattr(gpu_device, "state", lambda: "idle")
    monkeypatch.setattr("zfcuda.backends.status", lambda: {"cuda": "the CUDA backend cannot run: too old"})
    assert gpu.main(["--out", str(tmp_path / "results")]) == 3
    assert capsys.readouterr().err == "Nothing was measured: the CUDA backend cannot run: too old\n"
    assert not (tmp_path / "results").exists()


def test_description_of_the_gpu(nvidia_smi):
    nvidia_smi("echo 'NVIDIA Toy, 580.1, 9.0, 81559, 1980, 700.00'")
    assert gpu_device.describe() == {
        "name": "NVIDIA Toy",
        "driver": "580.1",
        "compute capability": "9.0",
        "memory, MiB": "81559",
        "greatest SM clock, MHz": "1980",
        "power limit, W": "700.00",
    }


def test_state_of_the_gpu(nvidia_smi):
    nvidia_smi("echo '1980, 2619, 61, 640.12'")
    assert gpu_device.state() == "SM clock, MHz 1980, memory clock, MHz 2619, temperature, C 61, power, W 640.12"


def test_a_failing_driver_is_reported(nvidia_smi):
    nvidia_smi("echo 'no devices were found'", "exit 6")
    with pytest.raises(gpu_device.NoGpuError, match="nvidia-smi fails: no devices were found"):
        gpu_device.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv", "cov"], "unknown part cov: choose from smoke, conv"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--families", "vgg"], "invalid choice"),
        (["--precisions", "fp16"], "invalid choice"),
        (["--minutes", "0"], "--minutes must be positive, got 0"),
        (["--minutes", "nan"], "--minutes must be positive, got nan"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        gpu.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_parts(tmp_path):
    assert gpu.parse(["--out", str(tmp_path)]).parts == list(gpu.PARTS)
    assert gpu.parse(["norm", "pool", "--out", str(tmp_path)]).parts == ["norm", "pool"]


# ---- What a run leaves, whatever happens -----------------------------------------------------------------------


def measure(device, jobs, schedule, limits, tuned, send):
    for job in jobs:
        for problem in job.problems:
            send(harness.Row(*gpu_worker.name_of(job, problem, tuned), ours_ms=2.0, peers_ms={"eager": 4.0}))


def spoil(monkeypatch, part, then):
    """The process of this part does `then` after its first row."""

    def work(device, jobs, schedule, limits, tuned, send):
        sent = []

        def sends(message):
            if sent and jobs[0].part == part:
                then()
            sent.append(message)
            send(message)

        measure(device, jobs, schedule, limits, tuned, sends)

    monkeypatch.setattr(gpu_worker, "measure", work)


def test_results_of_a_run(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_worker, "measure", measure)
    run.jobs()
    assert run.right
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("# zfcuda on NVIDIA Toy 9000\n")
    assert "- afterwards: warm" in text
    assert "| zfnet conv1, batch 128 | image dgrad | fp32 | 2 | 4 (eager) | 2.00 |" in text
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3 * 5 + 1
    assert "planned: 16 problems in 2 jobs, estimated at " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("then", "note"),
    [
        (lambda: os.kill(os.getpid(), 9), "its process ended with -9"),
        (lambda: {}["an illegal memory access"], "KeyError: 'an illegal memory access'"),
    ],
)
def test_a_part_that_crashes_spoils_no_other(run, monkeypatch, then, note):
    spoil(monkeypatch, "conv", then)
    run.jobs()
    assert not run.right
    assert [row.problem for row in run.record.rows()] == ["conv1, batch 128", "14 of 15 problems", "parameters"]
    assert run.record.rows()[1].note == f"not measured: {note}"


def test_a_part_that_ends_early_without_a_word_is_a_failure(run, monkeypatch):
    def work(device, jobs, schedule, limits, tuned, send):
        if jobs[0].part == "conv":
            jobs = [dataclasses.replace(job, problems=job.problems[:1]) for job in jobs]
        measure(device, jobs, schedule, limits, tuned, send)

    monkeypatch.setattr(gpu_worker, "measure", work)
    run.jobs()
    assert not run.right
    _, missing, _ = run.record.rows()
    assert (missing.problem, missing.note) == (
        "14 of 15 problems",
        "not measured: its process ended before it was done",
    )


def test_a_problem_that_hangs_is_a_failure(run, monkeypatch):
    monkeypatch.setattr(gpu_plan, "_PATIENCE", (0.0, 3.0))
    spoil(monkeypatch, "conv", lambda: time.sleep(1000))
    run.jobs()
    assert not run.right
    *_, hung, last = run.record.rows()
    assert (hung.problem, hung.note) == ("14 of 15 problems", "not measured: it hangs: nothing for 3 s")
    assert (last.problem, last.ours_ms) == ("parameters", 2.0)


def test_a_part_whose_time_is_over_is_not_measured_and_no_failure(run, monkeypatch):
    limits = iter([1.0, 3600.0])
    monkeypatch.setattr(gpu_plan.Schedule, "limit", lambda self: next(limits))
    spoil(monkeypatch, "conv", lambda: time.sleep(1000))
    run.jobs()
    assert run.right
    assert (len(run.measured), run.left) == (2, 14)
    *_, late, last = run.record.rows()
    assert (late.direction, late.note) == ("conv", "not measured: out of time")
    assert (last.problem, last.ours_ms) == ("parameters", 2.0)


def test_a_part_that_is_measured_again_replaces_its_rows(run, monkeypatch):
    """Those that it does not reach this time, too; rows of tuned plans are others."""
    tuned = harness.Row("zfnet", "3 of 15 problems", "conv", "fp32, tuned", note="not measured: out of time")
    run.record.add(tuned)
    monkeypatch.setattr(gpu_worker, "measure", measure)
    run.jobs()
    spoil(monkeypatch, "conv", lambda: os.kill(os.getpid(), 9))
    gpu.Run(run.options, run.device, time.monotonic()).jobs()
    rows = [(row.problem, row.ours_ms) for row in run.record.rows()]
    assert rows == [(tuned.problem, None), ("conv1, batch 128", 2.0), ("14 of 15 problems", None), ("parameters", 2.0)]
    monkeypatch.setattr(gpu_worker, "measure", measure)
    run.jobs()
    assert [row for row in run.record.rows() if row.ours_ms is None] == [tuned]


def test_ceilings_are_measured_once_and_may_fail(run, monkeypatch):
    def fails(device, send):
        raise MemoryError("no room")

    run.record.folder.joinpath("facts.json").unlink()
    monkeypatch.setattr(gpu_worker, "ceilings", fails)
    run.ceilings()
    assert run.record.facts()["ceilings"] == "not measured: MemoryError: no room"
    assert run.limits() == {}
    monkeypatch.setattr(gpu_worker, "ceilings", lambda device, send: send({"copy, GB/s": 4321.06}))
    run.ceilings()
    monkeypatch.setattr(gpu_worker, "ceilings", fails)
    run.ceilings()
    assert run.record.facts()["copy, GB/s"] == 4321.1
    assert "ceilings" not in run.record.facts()


def test_rows_without_torch_compile_outlive_it(run, monkeypatch):
    """They are written before it begins."""
    run.options.parts = ["block"]

    def work(device, jobs, schedule, limits, tuned, send):
        measure(device, jobs, schedule, limits, tuned, send)
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(gpu_worker, "measure", work)
    run.jobs()
    assert [row.ours_ms for row in run.record.rows()] == [2.0] * 6 + [None]
    assert run.record.rows()[-1].problem == "with torch.compile"


# ---- CUDA graphs, on a model of CuPy -----------------------------------------------------------------------


def test_ours_as_a_graph(gpu):
    x = gpu.asarray(np.array([[-1.0, 2.0]], np.float32))
    launch = gpu_device.Graphs().ours(lambda: ops.relu(x))
    plain = gpu.plain
    first = launch()
    x[...] = np.array([[3.0, -4.0]], np.float32)
    assert launch() is first
    np.testing.assert_array_equal(first.get(), [[3, 0]])
    assert (gpu.captures, gpu.launches, gpu.plain - plain) == (1, 2, 1)


def test_what_reads_a_value_is_no_graph(gpu):
    x = gpu.asarray(np.ones((1, 2), np.float32))
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        gpu_device.Graphs().ours(lambda: float(ops.relu(x).sum()))
    gpu_device.Graphs().ours(lambda: ops.relu(x))()  # no capture was left open
