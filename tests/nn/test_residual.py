"""Sums that the convolutions before them make, where no map between is asked for."""

import numpy as np
import pytest

from zfcuda import models, ops
from zfcuda.nn import (
    AddSpec,
    Architecture,
    AvgPoolSpec,
    BatchNormSpec,
    ConvSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    Network,
    ReLUSpec,
)


def net_of(*layers, shape=(9, 7, 5)):
    """These layers, with running averages that are not those of an untrained net, and a fully connected one."""
    net = Network(Architecture(shape, (*layers, FullyConnectedSpec("fc", 4)), initial="lecun"))
    rng = np.random.default_rng(0)
    for name, array in (net.parameters() | net.state()).items():
        if "weight" not in name:
            array += rng.uniform(0.1, 0.5, array.shape).astype(np.float32)
    return net


def conv(name, maps=5, kernel=3, **options):
    return ConvSpec(name, maps, kernel=kernel, padding=kernel // 2, **options)


def add(name, *inputs):
    return AddSpec(name, inputs=inputs)


# The layers, and how many sums a convolution makes.
NETS = {
    "identity": ((conv("a"), ReLUSpec("r"), conv("b"), add("s", "b", "r"), ReLUSpec("t")), 1),
    "the image": ((conv("a"), add("s", "input", "a")), 1),
    "no relu": ((conv("a"), conv("b"), add("s", "a", "b")), 1),
    "batch normalisation": (
        (conv("a"), BatchNormSpec("n"), ReLUSpec("r"), conv("b", bias=False), BatchNormSpec("m"), add("s", "m", "r")),
        1,
    ),
    "projection": (
        (
            conv("a", 8, stride=2),
            ReLUSpec("r"),
            conv("b", 8),
            BatchNormSpec("m"),
            conv("d", 8, 1, stride=2, inputs=("input",)),
            BatchNormSpec("n"),
            add("s", "m", "n"),
            ReLUSpec("t"),
        ),
        1,
    ),
    "groups and dilation": (
        (conv("a", 6), conv("b", 6, groups=2), conv("c", 6, 3, inputs=("a",)), add("s", "b", "c"), ReLUSpec("t")),
        1,
    ),
    "depthwise": ((conv("a", 6), conv("b", 6, groups=6), add("s", "b", "a")), 0),
    "another reader": ((conv("a"), conv("b"), add("s", "b", "a"), add("t", "s", "b")), 0),
    "itself": ((conv("a"), add("s", "a", "a")), 0),
    "three": ((conv("a"), conv("b"), add("s", "a", "b", "input")), 0),
    "rectified before": ((conv("a"), ReLUSpec("r"), add("s", "r", "input")), 0),
    "pooled before": ((conv("a"), ReLUSpec("r"), MaxPoolSpec("p", 3, 1, 1), add("s", "p", "input")), 0),
    "one after another": (
        (
            conv("a"),
            conv("b"),
            add("s", "b", "a"),
            ReLUSpec("r"),
            conv("c"),
            add("t", "c", "r"),
            AvgPoolSpec("p", 3, 2),
        ),
        2,
    ),
}


@pytest.fixture
def sums(monkeypatch):
    """How often a convolution adds, and a sum is made by itself, since this was cleared."""
    made = []
    conv2d, plain = ops.conv2d, ops.add

    def counted(*arrays, add=None, **options):
        made.extend(["fused"] if add is not None else [])
        return conv2d(*arrays, add=add, **options)

    def counted_plain(*arrays, **options):
        made.append("plain")
        return plain(*arrays, **options)

    monkeypatch.setattr(ops, "conv2d", counted)
    monkeypatch.setattr(ops, "add", counted_plain)
    return made


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_predictions_are_those_of_a_trace(device, sums, name, precision):
    layers, fused = NETS[name]
    net = device.place(net_of(*layers))
    net.precision, net.head = precision, "none"
    x = device.array(np.random.default_rng(1).standard_normal((2, *net.input_shape), np.float32))
    trace = net.forward(x)
    assert "fused" not in sums
    expected = device.numpy(trace.output)
    plain = len(sums)
    sums.clear()
    actual = device.numpy(net.predict(x))
    assert sums.count("fused") == fused
    assert sums.count("plain") == plain - fused
    # A sum that is not rounded to bfloat16 before it is one differs by a bit of that.
    tolerance = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 2e-2}[precision]
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


def test_residual_networks_make_every_sum_so(sums):
    net = models.resnet18(num_classes=10, input_size=64)
    x = np.random.default_rng(0).standard_normal((2, *net.input_shape), np.float32)
    net.head = "none"
    expected = net.forward(x).output
    assert sums == ["plain"] * 8
    sums.clear()
    actual = net.predict(x)
    assert sums == ["fused"] * 8
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_sum_that_ends_the_network_stays():
    """Its precision is another one in bfloat16."""
    net = Network(Architecture((5, 6, 4), (conv("a", 4), conv("b", 4), add("s", "b", "a")), initial="lecun"))
    net.precision, net.head = "bf16", "none"
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4), np.float32)
    assert np.array_equal(net.predict(x).ravel(), net.forward(x).output.ravel())
