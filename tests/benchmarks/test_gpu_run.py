"""benchmarks/gpu.py: what a run says where it does not come to its end, or not everywhere."""

import gpu
import gpu_device
import gpu_rehearsal
import gpu_worker
import harness
import pytest

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
