"""benchmarks/record.py: what was not measured says so, and what was is on disk before the next is."""

import dataclasses
import json
import time
from pathlib import Path

import harness
import pytest
import record
from processes import messages

import zfcuda
from tests.benchmarks.test_harness import CEILINGS, NAME, measure, no_timer, timer


def test_table_says_what_was_not_measured():
    lines = record.table([measure(timer, CEILINGS), measure(no_timer, error=lambda result: 1.0)]).splitlines()
    assert lines[2].startswith("| zfnet pool1 | pool | fp32 | 2 ± 5% | 4 (compiled) | 2.00 | 100% | 1e-07 |")
    assert lines[3].count(harness.NOT_MEASURED) == 4
    assert len(lines) == 4


def test_a_problem_without_a_bound_has_no_share():
    row = measure(timer, CEILINGS, flops=0.0, moved=0.0)
    assert row.share is None
    assert "| no bound |" in record.table([row])


def test_summary_has_means_the_lowest_and_what_is_slower():
    def row(ours_ms, **name):
        return harness.Row(*NAME._replace(**name), ours_ms=ours_ms, peers_ms={"eager": 4.0})

    rows = [row(1.0), row(4.0, problem="pool2"), row(1.0, setting="bf16"), row(8.0, family="vgg16"), row(None)]
    lines = record.summary(rows).splitlines()
    assert "| zfnet | pool | 2.00 (1.00 of 2) | 4.00 |" in lines
    assert "| vgg16 | pool | 0.50 | not measured |" in lines
    assert "| all | pool | 1.26 (0.50 of 3) | 4.00 |" in lines
    assert lines[-3].startswith("| vgg16 pool1 | pool | fp32 | 8 |")
    assert lines[-1] == "Without a ratio, of 5 rows: zfnet pool1 pool fp32."
    assert record.summary(rows[:3]).endswith("None below 1.\n")


def test_summary_names_what_has_no_ratio():
    """What failed and what no peer takes part in; of operations that were tried, those that failed."""
    wrong, alone = (row(problem=problem, note=note) for problem, note in (("pool2", "wrong"), ("pool3", "")))
    alone = dataclasses.replace(alone, ours_ms=1.0, peers_ms={"eager": None})
    tried = [row(direction=harness.SMOKE, problem=name, error=1e-7) for name in ("relu", "add")]
    tried[1] = dataclasses.replace(tried[1], note="failed: it hangs")
    text = record.summary([row(ours_ms=1.0, peers_ms={"eager": 4.0}), wrong, alone, *tried])
    assert text.endswith(
        "Without a ratio, of 4 rows: zfnet pool2 pool fp32; zfnet pool3 pool fp32; zfnet add smoke fp32.\n"
    )


def test_results_are_written_whole(tmp_path):
    record.write_results(tmp_path / "results" / "gpu", "A title", {"name": "a GPU"}, [measure(timer, CEILINGS)] * 2)
    written = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert written["environment"] == {"name": "a GPU"}
    assert [row["ratio"] for row in written["rows"]] == [2.0, 2.0]
    text = (tmp_path / "results" / "gpu.md").read_text()
    assert text.startswith("# A title\n\n- name: a GPU\n\nTimes as fast")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["gpu.json", "gpu.md"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("cpu", ["--quick"]),
        ("gpu", ["--rehearse"]),
        ("gpu_session", ["--rehearse"]),
        ("gpu_static", []),
        ("loader", []),
        ("scaling", ["--processes"]),
        ("training", ["nothing"]),
    ],
)
def test_results_that_could_not_be_written_are_not_measured(script, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    main = pytest.importorskip(script, reason="needs PyTorch").main
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--out", str(tmp_path / "file" / "folder" / "found")])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert f"--out: nothing can be written to {tmp_path / 'file' / 'folder'}" in said.err
    assert said.err.endswith("Not a directory\n")


def test_environment_names_the_commit_and_the_versions():
    found = record.environment()
    assert found["commit"]
    assert found["zfcuda"].endswith(str(Path(zfcuda.__file__).parent))
    assert found["numpy"]
    assert found["torch"]


def row(**changes):
    return harness.Row(**{**NAME._asdict(), **changes})


def test_rows_are_on_disk_one_by_one_and_the_last_of_a_name_counts(tmp_path):
    results = record.Record(tmp_path / "deep" / "results")
    for one in (row(ours_ms=2.0), row(problem="pool2"), row(ours_ms=1.0, plain_ms={"ours": 3.0})):
        results.add(one)
    assert len((tmp_path / "deep/results/rows.jsonl").read_text().splitlines()) == 3
    again = record.Record(tmp_path / "deep" / "results")
    assert again.rows() == [row(ours_ms=1.0, plain_ms={"ours": 3.0}), row(problem="pool2")]


def test_facts_of_several_processes_add_up(tmp_path):
    record.Record(tmp_path).note({"name": "a GPU", "before": "cold"})
    record.Record(tmp_path).note({"before": "warm"})
    assert record.Record(tmp_path).facts() == {"name": "a GPU", "before": "warm"}
    record.Record(tmp_path).add(row(ours_ms=2.0, peers_ms={"eager": 4.0}))
    text = record.Record(tmp_path).write("A title").read_text()
    assert text.startswith("# A title\n\n- name: a GPU\n- before: warm\n\nTimes as fast")
    assert "| zfnet pool1 | pool | fp32 | 2 | 4 (eager) | 2.00 |" in text


def test_what_a_killed_run_left_half_written_is_dropped(tmp_path, capsys):
    record.Record(tmp_path).add(row(ours_ms=2.0))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"family": "zfnet", "problem": "conv1, ba')
    (tmp_path / "facts.json").write_text("")
    results = record.Record(tmp_path)
    said = capsys.readouterr().out
    assert "rows.jsonl: 1 of 2 rows cannot be read and are dropped\n" in said
    assert "facts.json cannot be read and is dropped: " in said
    results.add(row(problem="pool2"))
    assert results.rows() == [row(ours_ms=2.0), row(problem="pool2")]
    assert results.facts() == {}
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text[:-1])  # all but the end of the line
    record.Record(tmp_path).add(row(problem="pool3"))
    assert [one.problem for one in record.Record(tmp_path).rows()] == ["pool1", "pool2", "pool3"]
    record.Record(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changed", ["name", "driver", "power limit, W", "commit", "CUDA machine code", "torch", "captum", "cupy"]
)
def test_results_of_another_gpu_build_or_peer_are_set_aside(tmp_path, capsys, changed):
    shared = {"name": "a GPU", "commit": "abc", changed: "this"}
    facts = {**shared, "copy, GB/s": 1.0}
    record.Record(tmp_path).begin(facts)
    record.Record(tmp_path).add(row(ours_ms=2.0))
    record.Record(tmp_path).write("A title")
    record.Record(tmp_path).begin(shared)
    assert record.Record(tmp_path).facts() == facts
    assert capsys.readouterr().out == ""
    other = shared | {changed: "other"}
    record.Record(tmp_path).begin(other)
    assert record.Record(tmp_path).facts() == other
    assert record.Record(tmp_path).rows() == []
    assert f"has results of {changed} {facts[changed]}, not other: they are kept in" in capsys.readouterr().out
    record.Record(tmp_path).add(row(ours_ms=3.0))
    record.Record(tmp_path).begin(facts)
    for ending, ms in (("old", 2.0), ("old1", 3.0)):
        assert json.loads((tmp_path / f"rows.jsonl.{ending}").read_text())["ours_ms"] == ms
    assert (tmp_path / "table.md.old").exists()
    assert not (tmp_path / "table.md").exists()


def test_a_folder_without_rows_is_of_no_other_origin_but_what_it_says(tmp_path):
    """As a session leaves it for the first run."""
    record.Record(tmp_path).begin({"commit": "abc"})
    record.Record(tmp_path).note({"stage smoke": "done"})
    record.Record(tmp_path).begin({"commit": "abc", "name": "a GPU"})
    assert record.Record(tmp_path).facts() == {"commit": "abc", "stage smoke": "done", "name": "a GPU"}
    record.Record(tmp_path).begin({"commit": "other"})
    assert record.Record(tmp_path).facts() == {"commit": "other"}


def test_two_runs_in_one_folder(tmp_path):
    """The second is refused, also while a process of the first goes on."""
    folder = tmp_path / "deep" / "results"
    with record.alone(folder):
        said = f"^another run, or a process that it has left, adds to {folder}$"
        with pytest.raises(record.BusyError, match=said), record.alone(folder):
            pass
        left = messages(lambda send: [send("here"), time.sleep(1000)])
        next(left)
    with pytest.raises(record.BusyError), record.alone(folder):
        pass
    left.close()
    with record.alone(folder):
        pass


def test_rows_of_unknown_origin_are_set_aside(tmp_path):
    record.Record(tmp_path).add(row(ours_ms=2.0))
    record.Record(tmp_path).begin({"name": "a GPU"})
    assert record.Record(tmp_path).rows() == []
