"""benchmarks/gpu_smoke.py, every operation once, and what gpu.py makes of those that do not come back."""

import os
import time

import gpu
import gpu_rehearsal
import gpu_session
import gpu_smoke
import gpu_worker
import harness
import pytest

from zfcuda import backends, ops


@pytest.mark.parametrize(
    ("then", "note"),
    [
        (lambda: os.kill(os.getpid(), 9), "failed: its process ended with -9"),
        (lambda: os._exit(0), "failed: its process ended with 0"),
        (lambda: time.sleep(1000), "failed: it hangs: nothing for 3 s"),
        (lambda: "return", "failed: its process ended before it was done"),
    ],
    ids=["killed", "ended", "hangs", "returns"],
)
@pytest.mark.parametrize("which", ["relu", "add", "clip"])
def test_an_operation_that_does_not_come_back_is_one_row(run, monkeypatch, which, then, note):
    """And the others are tried, whether it is the first or the last."""
    monkeypatch.setattr(gpu, "_OPERATION_SECONDS", 3.0)
    monkeypatch.setattr(gpu_smoke, "checks", lambda: [("relu", "fp32"), ("add", "fp32"), ("clip", "fp32")])

    def work(device, checks, send):
        for name, precision in checks:
            if name == which and then() == "return":
                return
            send(harness.Row("smoke", name, "smoke", precision, error=0.0))

    monkeypatch.setattr(gpu_worker, "smoke", work)
    run.smoke()
    assert not run.right
    notes = {row.problem: row.note for row in run.record.rows()}
    assert notes == {"relu": "", "add": "", "clip": "", which: note}


def test_a_smoke_test_whose_time_is_over_is_no_failure(run, monkeypatch):
    monkeypatch.setattr(gpu_smoke, "checks", lambda: [("relu", "fp32"), ("add", "fp32")])
    monkeypatch.setattr(gpu, "_SMOKE_SECONDS", 1.0)
    monkeypatch.setattr(gpu_worker, "smoke", lambda device, checks, send: time.sleep(1000))
    run.smoke()
    assert run.right
    assert {row.problem: row.note for row in run.record.rows()} == dict.fromkeys(
        ["relu", "add"], "not measured: out of time"
    )


def test_a_process_that_dies_after_its_last_operation_is_a_failure(run, monkeypatch):
    monkeypatch.setattr(gpu_smoke, "checks", lambda: [("relu", "fp32")])

    def work(device, checks, send):
        send(harness.Row("smoke", "relu", "smoke", "fp32", error=0.0))
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(gpu_worker, "smoke", work)
    run.smoke()
    assert not run.right
    assert [row.problem for row in run.record.rows()] == ["relu", "the end of the process"]


def test_the_smoke_stage_of_a_session_has_time_for_an_operation_that_hangs(tmp_path):
    """By then gpu.py has started, twice, and written its row."""
    planned = gpu_session.stages(gpu_session.parse(["--out", str(tmp_path)]))
    share = 450 * planned[0].seconds / sum(stage.seconds for stage in planned)
    assert planned[0].name == "smoke"
    assert share - gpu_session._GRACE > gpu._OPERATION_SECONDS + 20


def test_an_operation_that_is_wrong_or_fails_is_not_right(run, monkeypatch):
    """And those behind it are tried."""

    def call_of(name, precision, place):
        return lambda: {}["no kernel"] if name == "add" else [name]

    monkeypatch.setattr(gpu_smoke, "checks", lambda: [("relu", "fp32"), ("add", "fp32"), ("clip", "fp32")])
    monkeypatch.setattr(gpu_smoke, "call_of", call_of)
    monkeypatch.setattr(gpu_smoke, "error", lambda name, precision, results: 0.0 if name == "relu" else float("nan"))
    run.device = gpu_rehearsal
    run.smoke()
    assert not run.right
    assert [row.note for row in run.record.rows()] == ["", "fails: KeyError: 'no kernel'", "wrong: error nan"]


# ---- Every operation once --------------------------------------------------------------------------------


def test_the_smoke_test_has_every_operation():
    assert sorted(gpu_smoke.OPERATIONS) == sorted(ops.__all__)
    assert {name for name, _ in gpu_smoke.checks()} == set(ops.__all__)


def test_every_operation_is_said_before_the_next_begins(monkeypatch, capfd):
    monkeypatch.setattr(gpu_smoke, "checks", lambda: [("relu", "fp32"), ("add", "tf32")])
    monkeypatch.setattr(gpu_smoke, "call_of", lambda name, precision, place: lambda: [name])
    monkeypatch.setattr(gpu_smoke, "error", lambda name, precision, results: 0.0 if name == "relu" else float("nan"))
    trial = gpu_smoke.tried(None)
    assert next(trial) is True
    assert capfd.readouterr().out == "relu fp32: error 0.0e+00\n"
    assert list(trial) == [False]
    assert capfd.readouterr().out == "add tf32: error nan, wrong\n"


@pytest.mark.parametrize(
    "name",
    ["batch_norm_grad", "batch_norm_statistics", "max_pool2d", "sgd_step", "softmax_cross_entropy", "spatial_max"],
)
def test_every_array_of_a_result_counts(name):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    with gpu_rehearsal.active() as place:
        results = gpu_smoke.call_of(name, "fp32", place)()
    assert gpu_smoke.error(name, "fp32", results) <= gpu_smoke.tolerance(name, "fp32")
    for array in results[1]:
        array += 1
        assert gpu_smoke.error(name, "fp32", results) > gpu_smoke.tolerance(name, "fp32")
        array -= 1


def test_the_smoke_test_passes_and_can_fail():
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    with gpu_rehearsal.active() as place:
        assert all(gpu_smoke.tried(place))
        results = gpu_smoke.call_of("relu", "bf16", place)()
    results[1][0, 0, 0, 0] += 1
    assert gpu_smoke.error("relu", "bf16", results) > gpu_smoke.tolerance("relu", "bf16")
