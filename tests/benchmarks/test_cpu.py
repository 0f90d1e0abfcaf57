"""benchmarks/cpu.py: what it chooses, how it measures, and what it writes. Its problems are checked in test_gpu.py."""

import dataclasses
import json
import os

import cases
import cpu
import cpu_device
import harness
import pytest

from tests.benchmarks.test_gpu import SCRIPT

pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Workers find this tree, and nobody measures the machine."""
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parent.parent))
    monkeypatch.setattr(cpu_device, "ceilings", lambda: None)


def test_a_selection(tmp_path, capsys):
    out = tmp_path / "results"
    arguments = ["--quick", "--only", "lenet", "pool2", "--allocator", "as installed", "--out", str(out)]
    assert cpu.main(arguments) == 0
    text = capsys.readouterr().out
    for direction in ("pool", "unpool"):
        assert f"| lenet pool2, batch 4 | {direction} | as installed | " in text
        assert f"| lenet | {direction} | " in text
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["direction"] for row in written["rows"]] == ["pool", "unpool"]
    assert all(row["ratio"] > 0 for row in written["rows"])
    assert {"commit", "processor", "cpu backend", "torch threads", "torch"} <= set(written["environment"])


def test_steps_of_a_net_with_batch_normalisation_and_their_memory(tmp_path, capsys):
    arguments = ["--quick", "--only", "resnet18", "step", "1", "--only", "resnet18", "memory"]
    assert cpu.main([*arguments, "--allocator", "as installed", "--out", str(tmp_path / "results")]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["direction"], row["note"]) for row in rows] == [("step", ""), ("memory MiB", "")]
    assert all(row["ratio"] > 0 for row in rows)


def test_samples_that_waited_for_a_core_do_not_count(monkeypatch):
    waited = iter(range(0, 10_000, 50))
    samples = iter([*[(1.0, False)] * 4, *[(2.0, True)] * 3, *[(3.0, False)] * 4])
    assert cpu_device._sample(lambda: None, 1)[1] in (True, False)
    monkeypatch.setattr(cpu_device, "_waited_ms", lambda: next(waited))
    assert not cpu_device._sample(lambda: None, 1)[1]
    monkeypatch.setattr(cpu_device, "_waited_ms", lambda: 0.0)
    monkeypatch.setattr(cpu_device, "_warm_up", lambda call: None)
    monkeypatch.setattr(cpu_device, "_sample", lambda call, repeats: next(samples))
    assert cpu_device.time_alternating({"a": lambda: None}, rounds=(9, 9)) == {"a": [2.0, 2.0, 2.0]}


def test_list(capsys):
    assert cpu.main(["--list", "--only", "zfnet", "conv1"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"zfnet conv1 {d} 16" for d in ("fprop", "image dgrad", "wgrad")]


def test_nothing_selected(capsys):
    with pytest.raises(SystemExit):
        cpu.main(["--only", "zfnet", "conv9"])
    assert "no problem has these words in its name" in capsys.readouterr().err


def test_a_problem_that_kills_its_process_is_one_row(monkeypatch):
    import cpu_worker

    problem = cases.problems(cases.CASES[:1])[0]
    work = cpu_worker.Work([problem], "as installed", 0.1, (1, 1), None)
    monkeypatch.setitem(cpu_worker.MAKERS, "fprop", lambda *_: os.kill(os.getpid(), 9))
    row = cpu_worker.in_own_process(work, problem)
    assert row == harness.Row("zfnet", "conv1, batch 16", "fprop", "as installed", note="its process ended with -9")


@pytest.mark.parametrize("status", [0, 9])
def test_a_worker_that_ends_early_leaves_a_row_for_each_problem(status, monkeypatch, tmp_path):
    problems = cases.problems(cases.CASES[:1])
    first = harness.Row("zfnet", "conv1, batch 16", "fprop", "as installed", ours_ms=1.0)
    worker = tmp_path / "cpu_worker.py"
    worker.write_text(
        f"import sys\nsys.stdin.buffer.read()\nprint({json.dumps(dataclasses.asdict(first))!r})\nsys.exit({status})"
    )
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "cpu.py"))
    rows = list(cpu.measure({"problems": problems, "allocator": "as installed"}))
    assert rows[0] == first
    assert [row.direction for row in rows] == [problem.direction for problem in problems]
    note = f"not measured: the process that measures ended with {status}"
    assert {(row.ours_ms, row.note) for row in rows[1:]} == {(None, note)}


def test_results_are_there_when_a_run_is_interrupted(monkeypatch, tmp_path):
    row = harness.Row("zfnet", "conv1, batch 16", "fprop", "as installed", ours_ms=1.0, peers_ms={"PyTorch": 2.0})

    def measure(work):
        yield row
        raise KeyboardInterrupt

    monkeypatch.setattr(cpu, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        cpu.main(["--quick", "--only", "zfnet", "conv1", "--out", str(tmp_path / "results")])
    (written,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert (written["problem"], written["ratio"]) == ("conv1, batch 16", 2.0)


def test_results_are_named_by_the_machine():
    facts = {"processor": "AMD EPYC (TM), family 26", "cpu backend": "avx512, 2 threads", "torch threads": "2"}
    assert cpu.default_path(facts).name == "cpu-amd-epyc-tm-family-26-avx512-2-cores"
