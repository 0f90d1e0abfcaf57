"""Projections of every layer by the three rules (P3) against float64, and what they mean."""

import numpy as np
import pytest

from tests.nn.networks import TINY, Reference, randomise
from tests.oracles import relative_error
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import RULES

LAYERS = [spec.name for spec in TINY.layers]


@pytest.fixture(scope="module")
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
    trace = network.forward(images)
    signal = seed_signal(np.random.default_rng(3), trace[layer].shape)
    pixels = network.project(trace, layer, signal, rule)
    assert pixels.shape == images.shape
    assert relative_error(pixels, reference.project(layer, signal, rule)) < 1e-5


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
    assert relative_error(network.project(trace, "relu4", a + b, "gradient"), apart) < 1e-5
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
            assert relative_error(pixels[[item]], alone) < 1e-5


@pytest.mark.parametrize("images_named", [[3], [-1], [], [[0]], [0.5]])
def test_selection_of_images_that_are_not_there(network, images, images_named):
    with pytest.raises(ValueError, match="images must be"):
        network.forward(images).select(images_named)


def test_bad_arguments(network, images):
    trace = network.forward(images)
    signal = trace["pool4"]
    with pytest.raises(ValueError, match="rule must be one of deconvnet, gradient, guided; got 'lrp'"):
        network.project(trace, "pool4", signal, "lrp")
    with pytest.raises(ValueError, match=r"layer must be one of conv1, .*; got 'pool9'"):
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
