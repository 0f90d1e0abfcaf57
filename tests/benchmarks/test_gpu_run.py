"""benchmarks/gpu.py: what a run says where it does not come to its end, or not everywhere."""

import contextlib
import itertools
import os
import types

import gpu
import gpu_device
import gpu_plan
import gpu_rehearsal
import gpu_worker
import harness
import pytest
import record

from tests.benchmarks.test_gpu import measure


def test_what_was_measured_of_a_gpu_that_answers_no_more_is_written(run, monkeypatch, tmp_path):
    def fails():
        raise gpu_device.NoGpuError("nvidia-smi fails: GPU is lost")

    monkeypatch.setattr(run.device, "state", fails)
    monkeypatch.setattr(gpu_worker, "measure", measure)
    run.jobs()
    text = (tmp_path / "table.md").read_text()
    assert "- afterwards: not measured: nvidia-smi fails: GPU is lost\n" in text
    assert "| zfnet parameters | sgd | fp32 | 2 |" in text


def test_a_run_that_is_stopped_writes_its_table(monkeypatch, tmp_path):
    def stopped(run):
        run.record.add(harness.Row("zfnet", "conv1", "fprop", "fp32", ours_ms=2.0))
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_rehearsal, "shrink", lambda: None)
    monkeypatch.setattr(gpu.Run, "jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["conv", "--rehearse", "--out", str(tmp_path)])
    assert "| zfnet conv1 | fprop | fp32 | 2 |" in (tmp_path / "table.md").read_text()


def test_what_is_not_right_is_printed_at_once(run, capsys):
    run.add(harness.Row("zfnet", "conv1", "fprop", "fp32", ours_ms=2.0))
    assert "wrong" not in capsys.readouterr().out
    run.add(harness.Row("zfnet", "conv1", "fprop", "fp32", error=1.0, note="wrong: error 1.0e+00"))
    assert capsys.readouterr().out.startswith("wrong: zfnet conv1 fprop fp32\n|")


# ---- torch.compile among the peers ---------------------------------------------------------------------------------

MODES = "modes of torch.compile among the peers"


def compiling(until, then=lambda: None):
    """Work of three precisions that goes so far: (precision, modes) is the last for which there is time."""

    def work(device, jobs, schedule, limits, tuned, send):
        measure(device, jobs, schedule, limits, tuned, send)
        is_late = False
        for modes in range(1 + jobs[0].modes):
            for job in jobs:
                if is_late:
                    send(gpu_worker.Uncompiled(job, modes))
                else:
                    send(gpu_worker.Took(job, modes, 1.0, len(job.problems)))
                if (job.precision, modes) == until:
                    is_late = True
                    then()

    return work


def said(run):
    return run.record.facts()[MODES]


def test_which_rows_have_torch_compile_among_their_peers(run, monkeypatch, tmp_path):
    """Of the last run of each part; another part's says nothing of it."""
    run.options.precisions = list(gpu.PRECISIONS)
    run.options.parts = ["block"]
    monkeypatch.setattr(gpu_worker, "measure", compiling(("fp32", 2)))
    run.jobs()
    found = {"zfnet block fp32": "2 of 2", "zfnet block tf32": "1 of 2", "zfnet block bf16": "1 of 2"}
    assert said(run) == found
    run.options.parts = ["forward"]
    monkeypatch.setattr(gpu_worker, "measure", compiling(("bf16", 0)))
    run.jobs()
    found |= dict.fromkeys((f"zfnet forward {precision}" for precision in gpu.PRECISIONS), "0 of 2")
    assert said(run) == found
    assert f"- {MODES}: zfnet block fp32: 2 of 2; zfnet block tf32: 1 of 2; " in (tmp_path / "table.md").read_text()
    assert run.right
    run.options.no_compile = True
    run.options.parts = ["block"]
    monkeypatch.setattr(gpu_worker, "measure", compiling(("bf16", 0)))
    run.jobs()
    assert set(said(run).values()) == {"0 of 2"}


def test_every_precision_that_a_compiler_that_crashes_leaves_out_has_a_row(run, monkeypatch):
    run.options.precisions = list(gpu.PRECISIONS)
    run.options.parts = ["block"]
    monkeypatch.setattr(gpu_worker, "measure", compiling(("fp32", 2), lambda: os.kill(os.getpid(), 9)))
    run.jobs()
    assert not run.right
    missing = [(row.setting, row.problem) for row in run.record.rows() if row.ours_ms is None]
    assert missing == [("tf32", "with torch.compile"), ("bf16", "with torch.compile")]
    assert said(run) == {"zfnet block fp32": "2 of 2", "zfnet block tf32": "1 of 2", "zfnet block bf16": "1 of 2"}


# ---- The end of a process ------------------------------------------------------------------------------------------


def test_a_process_that_fails_when_all_is_measured_is_not_right(run, monkeypatch):
    """As where it crashes when it ends."""

    def work(device, jobs, schedule, limits, tuned, send):
        measure(device, jobs, schedule, limits, tuned, send)
        raise OSError("no space left on device")

    monkeypatch.setattr(gpu_worker, "measure", work)
    run.options.parts = ["conv"]
    run.jobs()
    assert not run.right
    last = run.record.rows()[-1]
    assert (last.problem, last.note) == (
        "the end of the process",
        "not measured: OSError: no space left on device",
    )


class Tuning:
    """Makes plans of problems, which it is told; the disk is full after so many."""

    def __init__(self, monkeypatch, problems, disk):
        self.saved, self.disk = [], disk
        for name, value in {"problems": lambda *_: problems, "tune": self.tune, "save": self.save}.items():
            monkeypatch.setattr("zfcuda.tuning." + name, value)

    def tune(self, problems, device):
        return [types.SimpleNamespace(problem=problems[0], ms=1.0, untuned_ms=2.0, kernel="a kernel", splits=1)]

    def save(self, plans, device):
        if len(self.saved) == self.disk:
            raise OSError("no space left on device")
        self.saved += [plan.problem for plan in plans]


@pytest.fixture
def tune(monkeypatch):
    """What a process that tunes ZFNet sent, with a clock on which each problem takes the first estimate."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    import networks

    monkeypatch.setitem(networks.ARCHITECTURES, "zfnet", gpu_rehearsal.architecture)
    device = types.SimpleNamespace(require=lambda tuned: None, active=contextlib.nullcontext, BACKEND="toy")
    jobs = gpu_plan.plan(["tune"], ["zfnet"], ["fp32"], 2)

    def run(seconds=1e6):
        schedule, sent = gpu_plan.Schedule(jobs, seconds, clock=itertools.count().__next__), []
        with contextlib.suppress(OSError):
            gpu_worker.tune(device, jobs, schedule, 2, sent.append)
        return [message for message in sent if isinstance(message, harness.Row)]

    return run


def test_plans_are_saved_one_by_one(tune, monkeypatch):
    tuning = Tuning(monkeypatch, ["a", "b", "c"], disk=2)
    assert [row.problem for row in tune()] == tuning.saved == ["a", "b"]


def test_what_is_not_tuned_is_counted_among_the_problems_of_the_network(tune, monkeypatch):
    """Of which the cases may have fewer."""
    Tuning(monkeypatch, [str(number) for number in range(100)], disk=100)
    *tuned, late = tune(seconds=60)
    assert late.problem == f"{100 - len(tuned)} of 100 problems"
    assert late.note == "not measured: out of time"


def test_a_second_run_in_the_folder_measures_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_rehearsal, "shrink", lambda: None)
    with record.alone(tmp_path):
        assert gpu.main(["conv", "--rehearse", "--out", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert said == f"Nothing was measured: another run, or a process that it has left, adds to {tmp_path}\n"
    assert not (tmp_path / "facts.json").exists()


@pytest.mark.parametrize(
    ("listed", "measured", "found"),
    [
        ("NVIDIA Toy", "NVIDIA Toy", ("NVIDIA Toy", None)),
        ("NVIDIA Toy", "NVIDIA Toy MIG 1g.18gb", ("NVIDIA Toy", None)),
        ("NVIDIA Toy", "NVIDIA Other", ("NVIDIA Other", "of NVIDIA Toy, which nvidia-smi lists first")),
    ],
)
def test_results_have_the_name_of_the_gpu_that_is_measured(monkeypatch, tmp_path, listed, measured, found):
    monkeypatch.setattr(gpu_rehearsal, "shrink", lambda: None)
    monkeypatch.setattr(gpu_rehearsal, "describe", lambda: {"name": listed})
    monkeypatch.setattr(gpu_rehearsal, "measured", lambda: measured)
    monkeypatch.setattr(gpu.Run, "jobs", lambda run: None)
    assert gpu.main(["conv", "--rehearse", "--out", str(tmp_path)]) == 0
    facts = record.Record(tmp_path).facts()
    assert (facts["name"], facts.get("clocks, temperature and power")) == found
