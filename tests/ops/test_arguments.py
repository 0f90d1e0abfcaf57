"""What arguments are checked for: zfcuda/ops/arguments.py."""

import numpy as np
import pytest

from zfcuda import backends
from zfcuda.ops import arguments
from zfcuda.pairs import check_padding

BACKEND = backends.get("cpu")


@pytest.mark.parametrize("value", [3, np.int64(3), (3, 3), [3, np.int32(3)], (np.uint8(3), 3)])
def test_a_pair(value):
    pair = arguments.check_pair("stride", value)
    assert pair == (3, 3)
    assert {type(number) for number in pair} == {int}


@pytest.mark.parametrize(
    "value", [1.5, "3", None, True, (1,), (1, 2, 3), (1, 2.0), (1, True), (True, 1, 2), np.ones(2, int)]
)
def test_what_is_no_pair(value):
    with pytest.raises(TypeError, match=r"stride must be an int or \(height, width\), got "):
        arguments.check_pair("stride", value)


@pytest.mark.parametrize("value", [2**31, -(2**31), (1, 2**40)])
def test_a_pair_out_of_range(value):
    with pytest.raises(ValueError, match="padding is out of range"):
        arguments.check_pair("padding", value)


@pytest.mark.parametrize(
    ("value", "sides"),
    [(2, (2, 2, 2, 2)), ((1, 3), (1, 1, 3, 3)), ((0, 1, 2, 3), (0, 1, 2, 3)), ([1] * 4, (1, 1, 1, 1))],
)
def test_a_padding(value, sides):
    assert check_padding("padding", value) == sides


@pytest.mark.parametrize("value", [1.5, True, (1,), (1, 2, 3), (1, 2, 3, True), (1, 2, 3, 4.0), None])
def test_what_is_no_padding(value):
    with pytest.raises(TypeError, match="padding must be an int"):
        check_padding("padding", value)


def test_a_geometry_is_checked_at_every_call():
    """However often a like one has been asked for: True equals 1."""
    good = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}

    def shape(**others):
        return arguments.conv_shape(BACKEND, (1, 4, 4, 2), (3, 3, 3, 2), **{**good, **others})

    assert shape() is shape(stride=(1, 1)) is shape(padding=[0, 0], groups=np.int64(1))
    assert shape().output == (1, 2, 2, 3)
    assert shape(stride=2).output == (1, 1, 1, 3)
    for name in ("stride", "dilation", "groups"):
        with pytest.raises(TypeError, match=f"{name} must be an int"):
            shape(**{name: True})
    with pytest.raises(TypeError, match="stride must be an int"):
        shape(stride=(1, True))
    for _ in range(2):
        with pytest.raises(ValueError, match="padding height must be at least 0, got -1"):
            shape(padding=-1)


def test_a_number_where_the_arrays_are():
    placed = arguments.place_number(BACKEND, "lr", 0.5, np.float32)
    assert (placed.shape, placed.dtype, placed) == ((), np.float32, 0.5)
    assert arguments.place_number(BACKEND, "lr", placed, np.float32) is placed
    with pytest.raises(TypeError, match="step must be uint64, got float32"):
        arguments.place_number(BACKEND, "step", placed, np.uint64)
    with pytest.raises(ValueError, match=r"lr must have shape \(\), got \(1,\)"):
        arguments.place_number(BACKEND, "lr", np.ones(1, np.float32), np.float32)


def test_an_output_may_be_an_input_but_no_other_part_of_its_memory():
    memory = np.zeros(8, np.float32)
    x = memory[:4]
    assert arguments.check_output(BACKEND, x, (4,), (x, None), may_alias=True) is x
    for out, may_alias in ((x, False), (memory[2:6], True)):
        with pytest.raises(ValueError, match="out must not share memory"):
            arguments.check_output(BACKEND, out, (4,), (x,), may_alias=may_alias)
