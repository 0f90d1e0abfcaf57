"""benchmarks/calls.py: every operation gives what PyTorch's gives, and one that does not gets no time."""

import numpy as np
import pytest

calls = pytest.importorskip("calls", reason="needs PyTorch")


def once(contestants):
    """A timer that calls each contestant."""
    assert all(call() is not None for call in contestants.values())
    return {name: [1.0, 1.0] for name in contestants}


def test_contestants_are_compared():
    rows = calls.compare(once)
    assert {"conv2d", "linear", "LeNet, one image"} <= {row.problem for row in rows}
    assert [row.note for row in rows if row.ratio != 1] == []


def test_other_results_get_no_time(monkeypatch):
    relu = calls.ops.relu
    monkeypatch.setattr(calls.ops, "relu", lambda x: relu(x) + np.float32(1))
    (row,) = (row for row in calls.compare(once) if row.problem == "relu")
    assert row.ours_ms is None
    assert row.note.startswith("wrong: error ")
