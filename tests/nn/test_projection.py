"""Projections of every layer by the three rules (P3) against float64, and what they mean."""

import numpy as np
import pytest

from tests.accuracy import assert_close
from tests.nn.networks import TINY, Reference, randomise
from zfcuda import backends
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import RULES, stage

LAYERS = [spec.name for spec in TINY.layers]


@pytest.fixture
def network():
    return randomise(Network(TINY, seed=2), np.random.default_rng(1))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(0, 2, (3, 21, 18, 3)).astype(np.float32)


def seed_signal(rng, shape):
    """Half of the values looked at, of both signs."""
    return (rng.normal(size=shape) * rng.integers(0, 2, shape)).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_equals_the_float64_reference(device, network, images, layer, rule):
    reference = Reference(network)
    reference.forward(images)
    trace = device.place(network).forward(device.array(images))
    signal = seed_signal(np.random.default_rng(3), trace[layer].shape)
    pixels = network.project(trace, layer, device.array(signal), rule)
    assert pixels.shape == images.shape
    assert_close(pixels, reference.project(layer, signal, rule))


@pytest.mark.parametrize("layer", LAYERS)
def test_gradient_is_the_derivative_of_the_weighted_sum(network, images, layer):
    reference = Reference(network)
    trace = network.forward(images)
    signal = seed_signal(np.random.default_rng(4), trace[layer].shape)
    pixels = network.project(trace, layer, signal, "gradient")
    direction = np.random.default_rng(5).normal(size=images.shape)
    step = 1e-7

    def weighted_sum(x):
        reference.forward(x)
        return float(np.sum(signal * reference.activations[layer]))

    derivative = (weighted_sum(images + step * direction) - weighted_sum(images - step * direction)) / (2 * step)
    assert float(np.sum(pixels * direction)) == pytest.approx(derivative, rel=1e-4, abs=1e-4)


def test_gradient_is_linear_and_the_deconvnet_positively_homogeneous(network, images):
    trace = network.forward(images)
    rng = np.random.default_rng(6)
    a, b = (seed_signal(rng, trace["relu4"].shape) for _ in range(2))
    apart = network.project(trace, "relu4", a, "gradient") + network.project(trace, "relu4", b, "gradient")
    assert_close(network.project(trace, "relu4", a + b, "gradient"), apart)
    doubled = network.project(trace, "relu4", 2 * a)
    np.testing.assert_array_equal(doubled, 2 * network.project(trace, "relu4", a))


def test_a_filter_s_pattern_shows_at_its_place():
    """A net that fires for an L shape: the projection of its strongest activation is that shape, where it was."""
    layers = (ConvSpec("conv1", 2, kernel=5), ReLUSpec("relu1"), MaxPoolSpec("pool1", 3, 2))
    network = Network(Architecture((24, 24, 1), layers))
    shape = np.zeros((5, 5, 1), np.float32)
    shape[:, 0] = 1
    shape[4] = 1
    network.layers["conv1"].weight[0] = shape
    network.layers["conv1"].weight[1] = -shape
    image = np.zeros((1, 24, 24, 1), np.float32)
    image[0, 9:14, 6:11] = shape
    trace = network.forward(image)
    pooled = trace["pool1"][0, :, :, 0]
    row, column = np.unravel_index(pooled.argmax(), pooled.shape)
    signal = np.zeros_like(trace["pool1"])
    signal[0, row, column, 0] = pooled[row, column]
    np.testing.assert_array_equal(network.project(trace, "pool1", signal), pooled.max() * image)


def test_selected_images_project_like_their_own(network, images):
    trace = network.forward(images)
    selected = trace.select([2, 0, 0, 2]).select([0, 1, 3])
    assert len(selected) == 3
    np.testing.assert_array_equal(selected["relu2"], trace["relu2"][[2, 0, 2]])
    np.testing.assert_array_equal(selected.input, images[[2, 0, 2]])
    signal = seed_signal(np.random.default_rng(7), selected["pool4"].shape)
    for rule in RULES:
        pixels = network.project(selected, "pool4", signal, rule)
        for item, image in enumerate((2, 0, 2)):
            alone = network.project(network.forward(images[[image]]), "pool4", signal[[item]], rule)
            assert_close(pixels[[item]], alone)


@pytest.mark.parametrize("images_named", [[3], [-1], [], [[0]], [0.5]])
def test_selection_of_images_that_are_not_there(network, images, images_named):
    with pytest.raises(ValueError, match="images must be"):
        network.forward(images).select(images_named)


def test_bad_arguments(network, images):
    trace = network.forward(images)
    signal = trace["pool4"]
    with pytest.raises(ValueError, match="rule must be one of deconvnet, gradient, guided; got 'lrp'"):
        network.project(trace, "pool4", signal, "lrp")
    with pytest.raises(ValueError, match=r"layer must be one of conv1, .*; got 'pool9', which is like 'pool"):
        network.project(trace, "pool9", signal)
    with pytest.raises(ValueError, match="layer must be one of"):
        trace["input"]
    with pytest.raises(ValueError, match=r"activations of pool4 must have shape \(3, .*got \(2"):
        network.project(trace, "pool4", signal[:2])
    with pytest.raises(TypeError, match="activations must be float32, got float64"):
        network.project(trace, "pool4", signal.astype(np.float64))
    with pytest.raises(TypeError, match="activations must be a NumPy or CuPy array"):
        network.project(trace, "pool4", signal.tolist())
    with pytest.raises(ValueError, match="trace must come from this network"):
        Network(TINY).project(trace, "pool4", signal)


class Graphs:
    """Projections on a model of CuPy, whose kernels the emulator runs, compared with those of the emulator itself."""

    def __init__(self, gpu):
        self.gpu = gpu
        self.host = randomise(Network(TINY, seed=2), np.random.default_rng(1))
        self.network = randomise(Network(TINY, seed=2), np.random.default_rng(1)).to("cuda")

    def both(self, change):
        for network in (self.host, self.network):
            change(network)

    def project(self, images, signal, layer, rule, select=None):
        """-> the pixels, after they have been found to have the same bits."""

        def run(network, images, signal):
            trace = network.forward(images)
            return network.project(trace if select is None else trace.select(select), layer, signal, rule)

        pixels = run(self.network, self.gpu.asarray(images), self.gpu.asarray(signal))
        with backends.use("emulated"):
            expected = run(self.host, images, signal)
        np.testing.assert_array_equal(pixels.get(), expected)
        return pixels


def one_each(rng, shape):
    """One value an image, as a top-9 visualisation looks at it."""
    signal = np.zeros(shape, np.float32)
    for image in signal:
        image[tuple(rng.integers(image.shape))] = 1 + rng.random()
    return signal


# One value an image goes down in windows of a cell, some of them in larger ones, many in whole maps.
WAYS = [("pool4", one_each), ("relu4", one_each), ("pool4", seed_signal), ("relu2", seed_signal), ("fc6", seed_signal)]


@pytest.fixture
def graphs(gpu, monkeypatch):
    monkeypatch.setattr(stage, "_LARGEST_SHARE", 100)  # windows all the way down
    return Graphs(gpu)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("layer", "make"), WAYS)
def test_captured_projections_have_the_bits_of_plain_ones(graphs, layer, make, rule, precision):
    """Each of images of its own, so that everything that a graph reads has changed."""
    graphs.both(lambda network: setattr(network, "precision", precision))
    rng = np.random.default_rng(8)
    shape = (3, *graphs.network.layers[layer].output_shape)
    pixels = []
    for launches in (0, 1, 2):
        images = rng.normal(0, 2, (3, 21, 18, 3)).astype(np.float32)
        pixels.append(graphs.project(images, make(rng, shape), layer, rule))
        assert (graphs.gpu.captures, graphs.gpu.launches) == (min(launches, 1), launches)
    assert len({array.data.ptr for array in pixels}) == 3  # nobody's pixels are overwritten


def test_one_graph_serves_selections_of_traces_of_any_size(graphs):
    rng = np.random.default_rng(9)
    for count in (1, 2, 3, 4):
        images = rng.normal(0, 2, (count, 21, 18, 3)).astype(np.float32)
        signal = one_each(rng, (4, *graphs.network.layers["pool4"].output_shape))
        graphs.project(images, signal, "pool4", "guided", select=np.sort(rng.integers(0, count, 4)))
    assert (graphs.gpu.captures, graphs.gpu.launches) == (1, 3)


def test_several_values_in_one_cell_are_another_kind_than_one(graphs, images):
    signal = np.zeros((3, *graphs.network.layers["pool4"].output_shape), np.float32)
    signal[:, 0, 0, 0] = 1
    for values in (1, 1, 2, 2):
        signal[:, 0, 0, 1] = values - 1
        graphs.project(images, signal, "pool4", "deconvnet")
    assert graphs.gpu.captures == 2


def test_a_projection_of_another_kind_is_captured_anew(graphs, images):
    rng = np.random.default_rng(10)

    def project(layer="pool4", rule="deconvnet"):
        for _ in range(2):
            signal = one_each(rng, (3, *graphs.network.layers[layer].output_shape))
            graphs.project(images, signal, layer, rule)
        return graphs.gpu.captures

    assert project() == 1
    assert project(rule="gradient") == 2
    assert project(rule="guided") == 3
    assert project(layer="conv4") == 4
    assert project(layer="relu4") == 5
    assert project(layer="conv2") == 6
    assert project(layer="norm2") == 7
    graphs.both(lambda network: setattr(network, "precision", "tf32"))
    assert project(layer="norm2") == 8
    graphs.both(lambda network: setattr(network.layers["conv2"], "weight", 2 * network.layers["conv2"].weight))
    assert project(layer="norm2") == 9
    launches = graphs.gpu.launches

    def edit(network):
        network.layers["conv2"].weight *= 2

    graphs.both(edit)  # in place: the graph reads the new values
    assert project(layer="norm2") == 9
    assert graphs.gpu.launches == launches + 2


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("layer", "make"), WAYS)
def test_on_a_gpu(layer, make, rule, precision):
    network = randomise(Network(TINY, seed=2), np.random.default_rng(1)).to("cuda")
    network.precision = precision
    cupy, rng, captured = backends.get("cuda").xp, np.random.default_rng(8), network._projection
    for _ in range(4):
        trace = network.forward(cupy.asarray(rng.normal(0, 2, (3, 21, 18, 3)).astype(np.float32)))
        signal = cupy.asarray(make(rng, trace[layer].shape))
        pixels = network.project(trace, layer, signal, rule)
        network._projection = lambda function, *, key, **arrays: function(**arrays)
        np.testing.assert_array_equal(pixels.get(), network.project(trace, layer, signal, rule).get())
        network._projection = captured
    assert captured._graph is not None
