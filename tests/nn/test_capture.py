"""Calls that become CUDA graphs: `zfcuda.nn.capture`, on a model of CuPy."""

import warnings

import numpy as np
import pytest

from tests.cupy_model import CaptureError
from zfcuda import ops
from zfcuda.nn.capture import Captured, identity


@pytest.fixture
def work(gpu):
    """A function with a state of its own, which counts how often the host went through it."""

    class Work:
        def __init__(self):
            self.total = gpu.zeros(3, np.float32)
            self.runs = 0
            self.captured = Captured()

        def __call__(self, x, y):
            self.runs += 1
            self.total += ops.relu(x) * y
            return ops.relu(self.total)

        def call(self, x, y, key=0):
            x, y = (gpu.asarray(np.array(values, np.float32)) for values in (x, y))
            return self.captured(self, key=lambda: key, x=x, y=y).get().tolist()

    return Work()


def test_the_first_call_is_plain_the_second_is_captured_the_others_are_launched(gpu, work):
    seen = []
    for factor in (1, 2, 3, 4):
        result = work.call([-1, 1, 2], [5, 6, factor])
        seen.append((result, work.runs, gpu.captures, gpu.launches))
    assert seen == [
        ([0, 6, 2], 1, 0, 0),
        ([0, 12, 6], 2, 1, 1),
        ([0, 18, 12], 2, 1, 2),
        ([0, 24, 20], 2, 1, 3),
    ]


def test_results_of_a_graph_are_overwritten_by_the_next_launch(gpu, work):
    x = gpu.asarray(np.ones(3, np.float32))
    results = [work.captured(work, key=lambda: 0, x=x, y=x) for _ in range(4)]
    assert [result.get()[0] for result in results] == [1, 4, 4, 4]
    assert results[2] is results[3]


@pytest.mark.parametrize("change", ["key", "shape", "stream"])
def test_what_changes_is_captured_anew(gpu, work, change):
    for _ in range(3):
        work.call([1, 1, 1], [1, 1, 1])
    assert (gpu.captures, gpu.launches) == (1, 2)
    arguments = ([1], [1]) if change == "shape" else ([1, 1, 1], [1, 1, 1])
    if change == "stream":
        gpu.streams.append(gpu.cuda.Stream(non_blocking=True))
    for plain_and_captured in ((1, 2), (2, 3), (2, 4)):
        work.call(*arguments, key=int(change == "key"))
        assert (gpu.captures, gpu.launches) == plain_and_captured
    assert work.total.get().tolist() == [6, 6, 6]


def test_a_changing_key_is_never_captured(gpu, work):
    for key in (0, 1, 0, 1):
        work.call([1, 1, 1], [1, 1, 1], key=key)
    assert (gpu.captures, work.runs) == (0, 4)


def test_a_failed_capture_is_told_once_and_changes_nothing(gpu):
    captured, total = Captured(), gpu.zeros((), np.float32)

    def reads(x):
        added = x + 1
        total[...] = total + added
        return added.get()  # waits

    x = gpu.asarray(np.float32(1))
    assert captured(reads, key=lambda: 0, x=x) == 2
    with pytest.warns(RuntimeWarning, match="no CUDA graph.* CaptureError: operation not permitted") as told:
        assert captured(reads, key=lambda: 0, x=x) == 2
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(reads, key=lambda: 0, x=x) == 2
    assert float(total) == 6
    assert gpu.launches == 0
    assert gpu.streams[-1].ptr == 0


def test_a_cupy_that_cannot_capture_is_told(gpu, work, monkeypatch):
    monkeypatch.delattr("tests.cupy_model.Stream.begin_capture")
    work.call([1, 1, 1], [1, 1, 1])
    with pytest.warns(RuntimeWarning, match="AttributeError.*begin_capture"):
        assert work.call([1, 1, 1], [1, 1, 1]) == [2, 2, 2]


def test_errors_of_the_call_itself_are_not_hidden(gpu):
    def fails(x):
        raise ValueError("x is wrong")

    for _ in range(3):
        with pytest.raises(ValueError, match="x is wrong"):
            Captured()(fails, key=lambda: 0, x=gpu.zeros(1, np.float32))
    assert gpu.captures == 0


def test_the_model_refuses_to_read_during_a_capture_and_knows_freed_memory(gpu):
    """What the other tests rely on."""
    stream = gpu.cuda.Stream(non_blocking=True)
    array = gpu.zeros(2, np.float32)
    with stream:
        stream.begin_capture()
        for read in (bool, float, int, lambda a: a.item(), lambda a: a.tolist(), lambda a: a.get()):
            with pytest.raises(CaptureError):
                read(array)
        with pytest.raises(AssertionError, match="common pool"):
            ops.relu(array)
        ops.relu(array, out=array)
        array += 1
        graph = stream.end_capture()
    assert array.get().tolist() == [0, 0]
    graph.launch()
    assert array.get().tolist() == [1, 1]
    del array
    with pytest.raises(AssertionError, match="freed"):
        graph.launch()


def test_on_the_host_every_call_is_plain(device):
    if device.name == "cuda":
        pytest.skip("not a host")
    x, calls = np.ones(2, np.float32), []

    def double(x):
        calls.append(x)
        return 2 * x

    captured = Captured()
    for _ in range(3):
        assert captured(double, key=pytest.fail, x=x).tolist() == [2, 2]
    assert [seen is x for seen in calls] == [True] * 3


def test_identity_is_of_addresses_and_values(gpu):
    array = gpu.zeros(2, np.float32)
    before = identity({"a": array, "b": {"c": 1.5}, "d": None})
    array += 1
    assert identity({"a": array, "b": {"c": 1.5}, "d": None}) == before
    assert identity({"a": array.copy(), "b": {"c": 1.5}, "d": None}) != before
    assert identity({"a": array, "b": {"c": 2.5}, "d": None}) != before
