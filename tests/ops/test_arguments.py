"""What arguments are checked for: zfcuda/ops/arguments.py."""

import re

import numpy as np
import pytest

from zfcuda import backends, ops
from zfcuda.ops import arguments
from zfcuda.pairs import check_padding, check_size

BACKEND = backends.get("cpu")
X = np.ones((5, 4), np.float32)


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


@pytest.mark.parametrize("value", [0, -1, (1, 0), (-(2**30), 1)])
def test_a_size_that_no_map_has(value):
    assert check_size("output_size", (1, 2)) == (1, 2)
    for call in (
        lambda size: check_size("output_size", size),
        lambda size: ops.conv_transpose2d(X[None, None], X[:, None, None], output_size=size),
        lambda size: ops.avg_pool2d_grad(X[None, None], window=1, stride=1, output_size=size),
    ):
        with pytest.raises(ValueError, match=f"output_size must be at least 1, got {re.escape(str(value))}"):
            call(value)


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


NUMBERS = {
    "clip": lambda value: ops.clip(X, 0.0, value),
    "clip_grad": lambda value: ops.clip_grad(X, X, value, 1.0),
    "dropout": lambda value: ops.dropout(X, probability=value, seed=0),
    "leaky_relu": lambda value: ops.leaky_relu(X, value),
    "leaky_relu_grad": lambda value: ops.leaky_relu_grad(X, X, value),
    "local_response_norm": lambda value: ops.local_response_norm(X, beta=value),
    "local_response_norm_grad": lambda value: ops.local_response_norm_grad(X, X, alpha=value),
    "batch_norm": lambda value: ops.batch_norm(X, *X[[0, 0, 0, 0]], eps=value),
    "sgd_step": lambda value: ops.sgd_step(X.copy(), X, X.copy(), lr=0.1, momentum=value),
    "renormalize_filters": lambda value: ops.renormalize_filters(X.copy(), max_rms=value),
}
WHOLE = {
    "dropout": lambda value: ops.dropout(X, probability=0.5, seed=0, offset=value),
    "local_response_norm": lambda value: ops.local_response_norm(X, size=value),
    "copy_channels": lambda value: ops.copy_channels(X, X.copy(), source=value),
    "permute_channels": lambda value: ops.permute_channels(X, [0, 1, 2, value]),
    "prelu_weight_grad": lambda value: ops.prelu_weight_grad(X, X, channels=value),
}


@pytest.mark.parametrize("call", NUMBERS.values(), ids=NUMBERS)
def test_operations_name_what_is_no_number(call):
    call(0.25)
    with pytest.raises(TypeError, match=r"^[a-z_]+ must be a (number, got '0\.25'$|NumPy or CuPy array)"):
        call("0.25")
    with pytest.raises(ValueError, match=r"^[a-z_]+ is too large for a float$"):
        call(10**400)


@pytest.mark.parametrize("call", WHOLE.values(), ids=WHOLE)
def test_operations_name_what_is_no_whole_number(call):
    with pytest.raises(TypeError, match=r"^[a-z_]+ must be an int, got 3\.0$"):
        call(3.0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", lambda: ops.relu(None)),
        ("x", lambda: ops.conv2d(None, X)),
        ("w", lambda: ops.conv2d(X[None, None], None)),
        ("g", lambda: ops.sgd_step(X.copy(), None, X.copy(), lr=1)),
        ("labels", lambda: ops.softmax_cross_entropy(X, None)),
    ],
)
def test_none_is_no_array(name, call):
    with pytest.raises(TypeError, match=rf"{name} must be a NumPy or CuPy array .*, got None"):
        call()


def test_what_is_no_order():
    with pytest.raises(TypeError, match="order must be a sequence of ints or an int32 array, got 3"):
        ops.permute_channels(X, 3)


@pytest.mark.parametrize("name", [*backends.HOST_BACKENDS])
def test_arrays_of_no_dimension_stay_so(name):
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    x = np.array(-2, np.float32)
    with backends.use(name):
        for call, expected in (
            (ops.relu, 0),
            (lambda x: ops.relu_grad(x, x), 0),
            (lambda x: ops.add(x, x), -4),
            (lambda x: ops.clip(x, -1, 1), -1),
            (lambda x: ops.leaky_relu(x, 0.5), -1),
            (lambda x: ops.cast(x, backends.BFLOAT16), -2),
        ):
            assert (call(x).shape, float(call(x))) == ((), expected)


def unaligned(array):
    """The same array, one byte beyond where its elements may lie."""
    moved = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


@pytest.mark.parametrize("name", [*backends.HOST_BACKENDS])
def test_arrays_that_lie_between_two_places(name):
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    x, w = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
    labels = np.array([0, 5, 2], np.int32)
    with backends.use(name):
        for call, arrays in (
            (ops.conv2d, (x, w)),
            (ops.add, (x, w)),
            (ops.softmax_cross_entropy, (x[:, 0, 0].copy(), labels)),
            (lambda x: ops.cast(x, backends.BFLOAT16), (x,)),
        ):
            np.testing.assert_equal(call(*map(unaligned, arrays)), call(*arrays))
        with pytest.raises(ValueError, match="out must lie at a multiple of its elements' size"):
            ops.relu(x, out=unaligned(x))
        with pytest.raises(ValueError, match="v must lie at a multiple of its elements' size"):
            ops.sgd_step(x.copy(), w, unaligned(x), lr=1)


def test_a_step_takes_arrays_that_share_no_memory():
    w, g, v = np.ones((3, 4), np.float32)
    wide = np.ones(8, np.float32)
    for arrays in ((w, g, w), (w, w, v), (w, v, v), (wide[:4], wide[1::2], v), (w, wide[::2], wide[2:6])):
        with pytest.raises(ValueError, match=r"^[wv] and [vg] must not share memory$"):
            ops.sgd_step(*arrays, lr=0.1)
    np.testing.assert_array_equal(w, 1)


def test_an_output_may_be_an_input_but_no_other_part_of_its_memory():
    memory = np.zeros(8, np.float32)
    x = memory[:4]
    arguments.check_apart(BACKEND, x, x, None, may_alias=True)
    arguments.check_apart(BACKEND, None, x)
    cases = ((x, False), (memory[2:6], True), (memory.reshape(2, 4), True), (x.view(np.int32), True))
    for out, may_alias in cases:
        with pytest.raises(ValueError, match="out must not share memory"):
            arguments.check_apart(BACKEND, out, x, may_alias=may_alias)


@pytest.mark.parametrize(
    ("read", "written", "apart"),
    [
        (slice(0, 3), slice(3, 8), True),
        (slice(5, 8), slice(0, 5), True),
        (slice(0, 3), slice(2, 6), False),
        (slice(0, 8), slice(7, 8), False),
        (slice(2, 3), slice(1, 4), False),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 2, 8), (5, 8)])
def test_channels_of_one_array_are_apart(shape, read, written, apart):
    """Though one lies between the other's rows."""
    wide = np.zeros(shape, np.float32)
    assert np.shares_memory(wide[..., written], wide[..., read]) is not apart
    if apart:
        arguments.check_apart(BACKEND, wide[..., written], wide[..., read])
    else:
        with pytest.raises(ValueError, match="out must not share memory"):
            arguments.check_apart(BACKEND, wide[..., written], wide[..., read])
