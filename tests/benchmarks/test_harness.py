"""benchmarks/harness.py: results are verified before they are timed, and what was not measured says so."""

import json

import harness
import numpy as np
import pytest


def case(**changes):
    defaults = {
        "part": "pool",
        "problem": "pool1",
        "flops": 2e9,
        "moved": 1e9,
        "ours": lambda: None,
        "peers": {"eager": lambda: None, "compiled": lambda: None},
        "error": lambda: 1e-7,
        "tolerance": 1e-5,
    }
    return harness.Case(**{**defaults, **changes})


def timer(calls):
    times = {"ours": [2.0, 1.9, 2.1], "eager": [6.0, 6.0, 9.0], "compiled": [4.0, 5.0, 3.0]}
    return {name: times[name] for name in calls}


def no_timer(calls):
    raise AssertionError("timed before it was right")


CEILINGS = harness.Ceilings(gflops=1000, gbytes=1000)


def test_ratio_is_against_the_fastest_peer_and_share_against_the_slower_floor():
    row = harness.measure(case(), timer, CEILINGS)
    assert row.best_peer == ("compiled", 4.0)
    assert row.ratio == pytest.approx(2.0)
    assert row.floor_ms == pytest.approx(2.0)  # 2e9 / 1000 GFLOP/s, where the bytes take 1 ms
    assert row.share == pytest.approx(1.0)


@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_wrong_result_gets_no_time(error):
    row = harness.measure(case(error=lambda: error), no_timer, CEILINGS)
    assert row.ours_ms is None
    assert row.ratio is None
    assert row.note.startswith("wrong: error")


def test_failing_peer_takes_no_part():
    def fails():
        raise RuntimeError("no compiler\nand a long trace")

    row = harness.measure(case(peers={"eager": lambda: None, "compiled": fails}), timer, None)
    assert row.best_peer == ("eager", 6.0)
    assert row.peers_ms["compiled"] is None
    assert row.note == "compiled fails: RuntimeError: no compiler"
    assert row.share is None


def test_our_own_failure_is_reported():
    def fails():
        raise ValueError("bad shape")

    row = harness.measure(case(error=fails), no_timer, CEILINGS)
    assert row.note == "ours fails: ValueError: bad shape"


def test_table_says_what_was_not_measured():
    measured = harness.measure(case(), timer, CEILINGS)
    wrong = harness.measure(case(problem="pool2", error=lambda: 1.0), no_timer, CEILINGS)
    lines = harness.table([measured, wrong]).splitlines()
    assert lines[2].startswith("| pool | pool1 | 2 ± 5% | 4 (compiled) | 2.00 | 100% | 1e-07 |")
    assert lines[3].count(harness.NOT_MEASURED) == 4
    assert len(lines) == 4  # one ratio alone has no geometric mean
    assert "geometric mean of 2 | | | 2.00" in harness.table([measured, measured])


def test_a_problem_without_a_bound_has_no_share():
    row = harness.measure(case(flops=0.0, moved=0.0), timer, CEILINGS)
    assert row.share is None
    assert "| no bound |" in harness.table([row])


def test_results_are_written_whole(tmp_path):
    row = harness.measure(case(), timer, CEILINGS)
    paths = harness.write_results(tmp_path / "results", "gpu", "A title", {"name": "a GPU"}, [row])
    written = json.loads(paths[0].read_text())
    assert written["environment"] == {"name": "a GPU"}
    assert written["rows"][0]["ratio"] == pytest.approx(2.0)
    assert paths[1].read_text().startswith("# A title\n\n- name: a GPU\n\n| part |")
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["gpu.json", "gpu.md"]


def test_environment_names_the_commit_and_the_versions():
    found = harness.environment()
    assert found["commit"]
    assert found["numpy"]
    assert found["torch"]


def test_relative_error_of_nan_is_no_success():
    assert not harness.relative_error(np.array([np.nan]), np.array([1.0])) <= 1.0
