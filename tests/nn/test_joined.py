"""Concatenations in one array with what they are made of, where no map between is asked for."""

import numpy as np
import pytest

from tests.nn.test_residual import conv
from zfcuda import ops
from zfcuda.nn import (
    AddSpec,
    Architecture,
    AvgPoolSpec,
    BatchNormSpec,
    ConcatSpec,
    ConvSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    Network,
    ReLUSpec,
)

SHAPE = (7, 6, 4)


def net_of(*layers):
    """These layers, with running averages that are not those of an untrained net, and a fully connected one."""
    net = Network(Architecture(SHAPE, (*layers, FullyConnectedSpec("fc", 4)), initial="lecun"))
    rng = np.random.default_rng(0)
    for array in net.state().values():
        array += rng.uniform(0.1, 0.5, array.shape).astype(np.float32)
    return net


def concat(name, *inputs):
    return ConcatSpec(name, inputs=inputs)


def unit(name, reads, maps=3):
    """What DenseNet's layers are: batch normalisation, ReLU, convolution."""
    return BatchNormSpec(f"{name}.norm", inputs=(reads,)), ReLUSpec(f"{name}.relu"), conv(name, maps)


END = (AvgPoolSpec("end", 2, 1),)
# The layers, and how many channels are copied: not those of convolutions that only concatenations of one chain read.
NETS = {
    "each from the one before": (
        (
            conv("a", 5),
            *unit("b", "a"),
            concat("ab", "a", "b"),
            *unit("c", "ab"),
            concat("abc", "ab", "c"),
            *unit("d", "abc", 1),
            concat("abcd", "abc", "d"),
            *END,
        ),
        5,
    ),
    "each from all before": (
        (
            conv("a", 5),
            *unit("b", "a"),
            concat("ab", "a", "b"),
            *unit("c", "ab"),
            concat("abc", "a", "b", "c"),
            *unit("d", "abc", 2),
            concat("abcd", "a", "b", "c", "d"),
            *END,
        ),
        5,
    ),
    "an input that is the image": (
        (*unit("b", "input"), concat("ab", "input", "b"), *unit("c", "ab"), concat("abc", "ab", "c", "b"), *END),
        4 + 3 + 3,  # b twice
    ),
    "other readers": (  # a convolution reads ab as well: only abc and what follows share
        (
            conv("a", 5),
            *unit("b", "a"),
            concat("ab", "a", "b"),
            conv("c", 3),
            concat("abc", "ab", "c"),
            *unit("d", "abc"),
            concat("abcd", "abc", "d"),
            *END,
        ),
        5 + 8,
    ),
    "a branch": (  # two begin with ab, which is copied then; both goes on from abc
        (
            conv("a", 5),
            *unit("b", "a"),
            concat("ab", "a", "b"),
            *unit("c", "ab"),
            concat("abc", "ab", "c"),
            *unit("d", "ab"),
            concat("abd", "ab", "d"),
            concat("both", "abc", "abd"),
            *END,
        ),
        5 + 8 + 8 + 11,
    ),
    "no chain": ((conv("a", 5), conv("b", 2), concat("ab", "b", "a"), *END), 5),
    "an Inception module": (
        (
            conv("a", 5),
            ReLUSpec("a.relu"),
            conv("b", 3, 1),
            ReLUSpec("b.relu"),
            conv("c", 6, inputs=("a.relu",)),
            BatchNormSpec("c.norm"),
            ReLUSpec("c.relu"),
            conv("d", 16, 5, inputs=("a.relu",)),
            BatchNormSpec("d.norm"),
            MaxPoolSpec("p", 3, 1, 1, inputs=("a.relu",)),
            conv("e", 7, 1),
            concat("f", "b.relu", "c.relu", "d.norm", "e", "p"),
            *END,
        ),
        5,  # of the pool
    ),
    "convolutions first": (  # of both chains the arrays are made before the first concatenation
        (
            conv("a", 5, inputs=("input",)),
            conv("b", 3, inputs=("input",)),
            conv("c", 2, inputs=("input",)),
            concat("ab", "a", "b"),
            concat("cab", "c", "ab"),
            *END,
        ),
        8,
    ),
    "groups and depthwise": (
        (conv("a", 8), conv("b", 8, groups=2), conv("c", 8, groups=8, inputs=("a",)), concat("d", "b", "c"), *END),
        8,
    ),
    "a block": (
        (
            conv("a", 5),
            ReLUSpec("a.relu"),
            MaxPoolSpec("p", 2, 2),
            conv("b", 4, stride=2, inputs=("input",)),
            MaxPoolSpec("q", (2, 1), 1),
            ConvSpec("c", 6, 2, 2, inputs=("input",)),
            concat("d", "q", "c", "p"),
            *END,
        ),
        9,
    ),
    "two readers": (  # a concatenation and a sum, and two concatenations
        (
            conv("a", 4),
            conv("b", 4),
            AddSpec("ab", inputs=("a", "b")),
            conv("c", 3),
            concat("bc", "b", "c"),
            conv("d", 2),
            concat("cd", "bc", "c", "d"),
            *END,
        ),
        4 + 3 + (7 + 3),
    ),
    "read again by the next": (
        (
            conv("a", 5, stride=9),
            conv("b", 2, stride=9, inputs=("input",)),
            AddSpec("sum", inputs=("a", "a")),
            concat("ab", "sum", "b"),
            concat("all", "sum", "b", "ab"),
        ),
        (5 + 2) + (5 + 2 + 7),
    ),
    "one pixel": (
        (conv("a", 5, 1, stride=9), conv("b", 2, stride=9, inputs=("input",)), concat("ab", "b", "a")),
        0,
    ),
}


@pytest.fixture
def copied(monkeypatch):
    """How many channels each copy of a concatenation had, since this was cleared."""
    counts = []
    plain = ops.copy_channels

    def counted(x, out, **options):
        counts.append(x.shape[-1])
        return plain(x, out, **options)

    monkeypatch.setattr(ops, "copy_channels", counted)
    return counts


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_predictions_are_those_of_a_trace(device, copied, guarded_memory, name, precision):
    layers, channels = NETS[name]
    net = device.place(net_of(*layers))
    net.precision, net.head = precision, "none"
    x = device.array(np.random.default_rng(1).standard_normal((3, *SHAPE), np.float32))
    expected = device.numpy(net.forward(x).output)
    copied.clear()
    actual = device.numpy(net.predict(x))
    assert sum(copied) == channels
    np.testing.assert_array_equal(actual, expected)
    alone = device.numpy(net.predict(x[:1])), device.numpy(net.forward(x[:1]).output)
    np.testing.assert_array_equal(*alone)


def test_a_concatenation_that_ends_the_network_stays():
    """Its precision is another one in bfloat16."""
    layers = (conv("a", 5), *unit("b", "a"), concat("ab", "a", "b"), *unit("c", "ab"), concat("abc", "ab", "c"))
    net = Network(Architecture(SHAPE, layers, initial="lecun"))
    net.precision, net.head = "bf16", "none"
    x = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
    assert np.array_equal(net.predict(x).ravel(), net.forward(x).output.ravel())
