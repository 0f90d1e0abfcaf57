"""Numbers as arguments: zfcuda/numbers.py, and who asks it."""

import numpy as np
import pytest

from zfcuda import analysis, models, numbers, training
from zfcuda.backends import BFLOAT16


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), BFLOAT16.type(2)])
def test_a_number(value):
    number = numbers.check_number("slope", value)
    assert (number, type(number)) == (2.0, float)


@pytest.mark.parametrize("value", [None, "2", b"2", 2j, (2,), [2], np.ones(1), np.array("2")])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="slope must be a number, got "):
        numbers.check_number("slope", value)


def test_a_number_that_no_float_holds():
    with pytest.raises(ValueError, match="slope is too large for a float"):
        numbers.check_number("slope", 10**5000)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_a_whole_number(value):
    number = numbers.check_whole("size", value)
    assert (number, type(number)) == (3, int)


@pytest.mark.parametrize("value", [3.0, None, "3", True, (3,), [3], np.float32(3), np.array([3, 3])])
def test_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match="size must be an int, got "):
        numbers.check_whole("size", value)


def test_a_number_that_is_too_small():
    assert numbers.check_at_least("k", np.int64(2), 2) == 2
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        numbers.check_at_least("k", 1, 2)


NET = models.zfnet_small(3, (28, 28, 3))
X = np.zeros((2, 28, 28, 3), np.float32)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("lr must be a number, got '3'", lambda: training.Trainer(NET, lr="3")),
        ("momentum must be a number, got None", lambda: training.Trainer(NET, momentum=None)),
        ("weight_decay must be a number, got None", lambda: training.Trainer(NET, weight_decay=None)),
        ("max_filter_rms must be a number, got 'x'", lambda: training.Trainer(NET, max_filter_rms="x")),
        ("seed must be an int, got 1.5", lambda: training.Trainer(NET, seed=1.5)),
        ("epochs must be an int, got 1.5", lambda: training.Trainer(NET).fit(None, epochs=1.5)),
        ("batch_size must be an int, got '2'", lambda: training.Trainer(NET).fit(None, epochs=1, batch_size="2")),
        ("epochs must be an int, got None", lambda: training.Linear(None)),
        ("k must be an int, got 1.5", lambda: analysis.top_activations(NET, X, "pool5", k=1.5)),
        ("batch_size must be an int, got 1.5", lambda: analysis.top_activations(NET, X, "pool5", batch_size=1.5)),
        ("seed must be an int, got None", lambda: analysis.occlusion(NET, X[0], 0, size=9, stride=9, seed=None)),
        ("x must be a NumPy or CuPy array .*, got None", lambda: NET.forward(None)),
        ("activations must be a NumPy or CuPy array .*, got None", lambda: NET.project(NET.forward(X), "pool5", None)),
        ("x must be a NumPy or CuPy array .*, got None", lambda: training.Trainer(NET).step(None, None)),
        ("labels must be a NumPy or CuPy array .*, got None", lambda: training.Trainer(NET).step(X, None)),
    ],
)
def test_an_argument_that_is_none_of_these_is_named(message, call):
    with pytest.raises(TypeError, match=message):
        call()
