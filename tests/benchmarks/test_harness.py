"""benchmarks/harness.py: results are verified before they are timed, and what was not measured says so."""

import warnings

import harness
import numpy as np
import pytest
import record

NAME = harness.Name("zfnet", "pool1", "pool", "fp32")


def calls(**changes):
    defaults = {
        "flops": 2e9,
        "moved": 1e9,
        "ours": lambda: None,
        "peers": {"eager": lambda: None, "compiled": lambda: None},
        "error": lambda result: 1e-7,
        "tolerance": 1e-5,
        "alike": lambda theirs, ours: 0.0,
        "peers_may": 1e-4,
    }
    return harness.Calls(**{**defaults, **changes})


def measure(timer, ceilings=None, name=NAME, graphs=None, **changes):
    return harness.measure(name, calls(**changes), timer, ceilings, graphs)


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
    row = measure(no_timer, error=lambda result: error)
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


def test_a_peer_with_another_result_takes_no_part():
    peers = {"eager": lambda: 2.0 + 5e-5, "compiled": lambda: 3.0}
    compared = {"ours": lambda: 2.0, "alike": lambda theirs, ours: abs(theirs - ours)}
    row = measure(timer, **compared, peers=peers)
    assert row.peers_ms == {"eager": 6.0, "compiled": None}
    assert row.note == "compiled is wrong: 1.0e+00 from ours"
    nothing = measure(timer, **compared)
    assert nothing.best_peer is None
    assert nothing.note.startswith("eager fails: TypeError")
    row = measure(timer, **compared, peers={"eager": lambda: float("nan")})
    assert row.note == "eager is wrong: nan from ours"


def test_our_own_failure_is_reported():
    def fails():
        raise ValueError("bad shape")

    assert measure(no_timer, ours=fails).note == "ours fails: ValueError: bad shape"


def test_a_failure_while_it_is_timed_may_be_a_peers():
    def fails(calls):
        raise MemoryError("no room")

    row = measure(fails)
    assert (row.ours_ms, row.note) == (None, "timing fails: MemoryError: no room")


# ---- On a GPU ------------------------------------------------------------------------------------------------------


class Graphs:
    """Of calls that return numbers: a graph returns its call's plus 100."""

    def ours(self, call):
        return lambda: call() + 100

    def peer(self, call):
        return lambda: call() + 100

    def spoil(self, results):
        pass

    def host_us(self, call):
        return 7.0


class NoGraphs(Graphs):
    def ours(self, call):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    peer = ours


class Timer:
    """Remembers what it timed: a call that returns n takes n ms."""

    def __init__(self):
        self.timed = []

    def __call__(self, calls):
        results = {name: call() for name, call in calls.items()}
        self.timed.append(results)
        return {name: [result] * 3 for name, result in results.items()}


OF_NUMBERS = {"ours": lambda: 1, "peers": {"eager": lambda: 2, "compiled": lambda: 3}}


def test_the_graph_that_is_timed_is_the_one_that_is_verified_before_and_after():
    judged, timer = [], Timer()

    def error(result):
        judged.append(result)
        return 1e-7

    row = measure(timer, graphs=Graphs(), error=error, **OF_NUMBERS)
    assert judged == [101, 101]
    assert timer.timed == [{"ours": 101, "eager": 102, "compiled": 103}, {"ours": 1, "eager": 2, "compiled": 3}]
    assert (row.ours_ms, row.best_peer) == (101, ("eager", 102))
    assert row.plain_ms == timer.timed[1]
    assert row.plain_ratio == 2
    assert row.host_us == {"ours": 7.0, "eager": 7.0, "compiled": 7.0}
    assert "| 1, 2 | 2.00 | 7, 7 | 1e-07 |" in record.table([row])


class Static(Graphs):
    """A graph's result lies in its own memory; one of `empty` is captured without its work, which ran beside it."""

    def __init__(self, *empty):
        self.empty = empty

    def ours(self, call):
        result = [call()]

        def launch():
            if call not in self.empty:
                result[0] = call()
            return result

        return launch

    peer = ours

    def spoil(self, results):
        results[0] = float("nan")


def test_a_graph_that_does_nothing_is_not_judged_by_what_is_left_of_another_launch():
    def ours():
        return 1.0

    def peer():
        return 1.0

    compared = {
        "ours": ours,
        "peers": {"eager": peer},
        "error": lambda result: abs(result[0] - 1),
        "alike": lambda theirs, ours: abs(theirs[0] - ours[0]),
    }

    def timed(calls):
        return {name: [1.0] * 3 for name in calls}

    assert measure(timed, graphs=Static(), **compared).ratio == 1
    assert measure(timed, graphs=Static(ours), **compared).note.startswith("wrong: error nan")
    row = measure(timed, graphs=Static(peer), **compared)
    assert (row.best_peer, row.note) == (None, "eager is wrong: nan from ours")


def test_what_is_wrong_after_it_was_timed_gets_no_time():
    errors = iter([1e-7, float("nan")])
    row = measure(Timer(), graphs=Graphs(), error=lambda result: next(errors), **OF_NUMBERS)
    assert row.note.startswith("wrong: error nan")
    assert (row.ours_ms, row.plain_ms, row.ratio) == (None, {}, None)


def test_a_call_that_cannot_be_captured_is_a_plain_one_and_its_row_says_so():
    timer = Timer()
    row = measure(timer, graphs=NoGraphs(), **OF_NUMBERS)
    assert timer.timed[0] == {"ours": 1, "eager": 2, "compiled": 3}
    assert row.ours_ms == 1
    assert row.note.split("; ")[:2] == [
        "no CUDA graph: RuntimeError: operation not permitted",
        "eager: no CUDA graph: RuntimeError: operation not permitted",
    ]


def test_a_graph_of_its_own_that_falls_back_says_so():
    def step():
        warnings.warn("no CUDA graph, every operation is launched by itself: out of memory", RuntimeWarning, 2)
        return 5

    timer = Timer()
    row = measure(timer, graphs=Graphs(), own_graph=step, **OF_NUMBERS)
    assert timer.timed[0]["ours"] == 5
    assert row.note == "no CUDA graph, every operation is launched by itself: out of memory"


def test_both_ways_of_a_graph_of_its_own_are_verified():
    """The one without the graph has times of plain calls."""
    ways = {"own_graph": lambda: 5, "ours": lambda: 6, "peers": {}}
    for right in (5, 6):
        row = measure(Timer(), graphs=Graphs(), error=lambda result, right=right: float(result != right), **ways)
        assert row.note.startswith("wrong: error 1.0e+00")
        assert row.plain_ms == {}
    assert measure(Timer(), graphs=Graphs(), **ways).plain_ms == {"ours": 6}


def test_what_waits_for_the_gpu_is_timed_as_it_is():
    timer = Timer()
    row = measure(timer, graphs=NoGraphs(), captured=False, **OF_NUMBERS)
    assert timer.timed == [{"ours": 1, "eager": 2, "compiled": 3}]
    assert (row.note, row.plain_ms) == ("", {})


def test_arrays_are_put_back_before_a_result_is_judged():
    done = []
    measure(
        Timer(),
        graphs=Graphs(),
        prepare=lambda: done.append("prepared"),
        error=lambda result: done.append("judged") or 0.0,
        alike=lambda theirs, ours: done.append("compared") or 0.0,
        **OF_NUMBERS,
    )
    ours, peer = ["prepared", "judged"], ["prepared", "compared"]
    assert done == ours + 2 * peer + ours


def test_a_result_of_another_shape_is_no_success():
    for result in (np.ones((0, 1)), np.ones((1, 3)), np.ones(3)):
        with pytest.raises(ValueError, match=r"a result of shape \(.*\), not \(2, 3\)"):
            harness.relative_error(result, np.ones((2, 3)))


def test_relative_error_of_nan_is_no_success():
    assert not harness.relative_error(np.array([np.nan]), np.array([1.0])) <= 1.0
