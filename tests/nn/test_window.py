"""Projection on windows equals projection of whole maps, for every rule, layer and place (P3)."""

import numpy as np
import pytest

from tests.accuracy import assert_close
from tests.nn.networks import TINY, Reference, randomise
from zfcuda.nn import Network, models, window
from zfcuda.nn.layers import RULES, Stage, stage

MAPS = [spec.name for spec, shape in zip(TINY.layers, TINY.shapes(), strict=True) if len(shape) == 3]


@pytest.fixture
def network():
    return randomise(Network(TINY, seed=2), np.random.default_rng(1))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(0, 2, (6, 21, 18, 3)).astype(np.float32)


@pytest.fixture
def dense(monkeypatch):
    """Projects whole maps."""

    def project(network, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(window, "find", lambda activations: None)
            return network.project(*arguments)

    return project


@pytest.fixture
def undone(monkeypatch):
    """The names of the stages that are undone on windows."""
    stages = []
    pays = Stage.pays_on

    def noted(self, windows):
        on_windows = pays(self, windows)
        if on_windows:
            stages.append(self.name)
        return on_windows

    monkeypatch.setattr(Stage, "pays_on", noted)
    return stages


@pytest.fixture
def always(monkeypatch):
    """Never finds that whole maps are cheaper."""
    monkeypatch.setattr(stage, "_LARGEST_SHARE", 100)


def one_per_image(rng, activations):
    """One activation an image: at the four corners, in the middle, and nowhere."""
    height, width, channels = activations.shape[1:]
    signal = np.zeros(activations.shape, np.float32)
    places = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (height // 2, width // 2)]
    for image, (row, column) in enumerate(places):
        signal[image, row, column, rng.integers(channels)] = rng.normal() + 2
    return signal


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", MAPS)
def test_one_activation_an_image(device, network, images, dense, undone, always, layer, rule):
    reference = Reference(network)
    reference.forward(images)
    trace = device.place(network).forward(device.array(images))
    signal = one_per_image(np.random.default_rng(3), reference.activations[layer])
    pixels = network.project(trace, layer, device.array(signal), rule)
    assert undone[-1] == "pool1" if layer not in ("conv1", "relu1") else undone
    assert_close(pixels, reference.project(layer, signal, rule))
    assert_close(pixels, device.numpy(dense(network, trace, layer, device.array(signal), rule)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", MAPS)
def test_some_activations_close_together(network, images, dense, undone, always, layer, rule):
    trace = network.forward(images)
    rng = np.random.default_rng(4)
    signal = np.zeros_like(trace[layer])
    for image in range(len(signal)):
        row, column = (rng.integers(max(1, size - 1)) for size in signal.shape[1:3])
        block = signal[image, row : row + 2, column : column + 2]
        block[:] = rng.normal(size=block.shape) * (rng.random(block.shape) < 0.4)
    pixels = network.project(trace, layer, signal, rule)
    assert undone
    assert_close(pixels, dense(network, trace, layer, signal, rule))


@pytest.mark.parametrize("rule", RULES)
def test_selected_images(network, images, dense, undone, always, rule):
    trace = network.forward(images[:2]).select([1, 0, 1, 1, 0, 1])
    signal = one_per_image(np.random.default_rng(5), trace["pool4"])
    pixels = network.project(trace, "pool4", signal, rule)
    assert undone
    assert_close(pixels, dense(network, trace, "pool4", signal, rule))


def test_many_activations_are_projected_in_whole_maps(network, images, undone):
    trace = network.forward(images)
    network.project(trace, "conv1", trace["conv1"])
    assert not undone


def test_windows_that_cover_most_of_their_map_become_whole_maps(undone):
    network = models.zfnet_small(3, (32, 32, 3))
    trace = network.forward(np.ones((1, 32, 32, 3), np.float32))
    signal = np.zeros_like(trace["pool5"])
    signal[0, 1, 1, 0] = 1
    network.project(trace, "pool5", signal)
    assert undone == ["pool5", "relu4", "relu3", "norm2"]  # then 15 x 15 cells of 16 x 16


def test_nothing_looked_at(network, images):
    trace = network.forward(images)
    assert not network.project(trace, "pool4", np.zeros_like(trace["pool4"])).any()
