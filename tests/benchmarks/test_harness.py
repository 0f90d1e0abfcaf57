"""benchmarks/harness.py: results are verified before they are timed, and what was not measured says so."""

import json

import harness
import numpy as np
import pytest

NAME = harness.Name("zfnet", "pool1", "pool", "fp32")


def calls(**changes):
    defaults = {
        "flops": 2e9,
        "moved": 1e9,
        "ours": lambda: None,
        "peers": {"eager": lambda: None, "compiled": lambda: None},
        "error": lambda: 1e-7,
        "tolerance": 1e-5,
    }
    return harness.Calls(**{**defaults, **changes})


def measure(timer, ceilings=None, name=NAME, **changes):
    return harness.measure(name, calls(**changes), timer, ceilings)


def timer(calls):
    times = {"ours": [2.0, 1.9, 2.1], "eager": [6.0, 6.0, 9.0], "compiled": [4.0, 5.0, 3.0]}
    return {name: times[name] for name in calls}


def no_timer(calls):
    raise AssertionError("timed before it was right")


CEILINGS = harness.Ceilings(gflops=1000, gbytes=1000)


def test_ratio_is_against_the_fastest_peer_and_share_against_the_slower_floor():
    row = measure(timer, CEILINGS)
    assert row.best_peer == ("compiled", 4.0)
    assert row.ratio == pytest.approx(2.0)
    assert row.floor_ms == pytest.approx(2.0)  # 2e9 / 1000 GFLOP/s, where the bytes take 1 ms
    assert row.share == pytest.approx(1.0)


def test_times_of_a_part_of_the_problem_are_scaled():
    row = measure(timer, peer_share=0.25)
    assert row.best_peer == ("compiled", 16.0)
    assert row.note == "peers: 0.25 of the problem, scaled"


@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_wrong_result_gets_no_time(error):
    row = measure(no_timer, error=lambda: error)
    assert row.ours_ms is None
    assert row.ratio is None
    assert row.note.startswith("wrong: error")


def test_failing_peer_takes_no_part():
    def fails():
        raise RuntimeError("no compiler\nand a long trace")

    row = measure(timer, peers={"eager": lambda: None, "compiled": fails})
    assert row.best_peer == ("eager", 6.0)
    assert row.peers_ms["compiled"] is None
    assert row.note == "compiled fails: RuntimeError: no compiler"
    assert row.share is None


def test_our_own_failure_is_reported():
    def fails():
        raise ValueError("bad shape")

    assert measure(no_timer, error=fails).note == "ours fails: ValueError: bad shape"


def test_table_says_what_was_not_measured():
    lines = harness.table([measure(timer, CEILINGS), measure(no_timer, error=lambda: 1.0)]).splitlines()
    assert lines[2].startswith("| zfnet pool1 | pool | fp32 | 2 ± 5% | 4 (compiled) | 2.00 | 100% | 1e-07 |")
    assert lines[3].count(harness.NOT_MEASURED) == 4
    assert len(lines) == 4


def test_a_problem_without_a_bound_has_no_share():
    row = measure(timer, CEILINGS, flops=0.0, moved=0.0)
    assert row.share is None
    assert "| no bound |" in harness.table([row])


def test_summary_has_means_the_lowest_and_what_is_slower():
    def row(ours_ms, **name):
        return harness.Row(*NAME._replace(**name), ours_ms=ours_ms, peers_ms={"eager": 4.0})

    rows = [row(1.0), row(4.0, problem="pool2"), row(1.0, setting="bf16"), row(8.0, family="vgg16"), row(None)]
    lines = harness.summary(rows).splitlines()
    assert "| zfnet | pool | 2.00 (1.00 of 2) | 4.00 |" in lines
    assert "| vgg16 | pool | 0.50 | not measured |" in lines
    assert "| all | pool | 1.26 (0.50 of 3) | 4.00 |" in lines
    assert lines[-1].startswith("| vgg16 pool1 | pool | fp32 | 8 |")
    assert harness.summary(rows[:3]).endswith("None below 1.\n")


def test_results_are_written_whole(tmp_path):
    harness.write_results(tmp_path / "results" / "gpu", "A title", {"name": "a GPU"}, [measure(timer, CEILINGS)] * 2)
    written = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert written["environment"] == {"name": "a GPU"}
    assert [row["ratio"] for row in written["rows"]] == [2.0, 2.0]
    text = (tmp_path / "results" / "gpu.md").read_text()
    assert text.startswith("# A title\n\n- name: a GPU\n\nTimes as fast")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["gpu.json", "gpu.md"]


def test_environment_names_the_commit_and_the_versions():
    found = harness.environment()
    assert found["commit"]
    assert found["numpy"]
    assert found["torch"]


def test_relative_error_of_nan_is_no_success():
    assert not harness.relative_error(np.array([np.nan]), np.array([1.0])) <= 1.0
