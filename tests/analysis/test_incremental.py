"""The incremental forward pass of an image that is painted over; `test_occlusion.py` has the one of squares."""

import weakref

import numpy as np
import pytest

from zfcuda.analysis import incremental
from zfcuda.analysis.geometry import Window
from zfcuda.analysis.incremental import PatchedForward
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, ConcatSpec, ConvSpec, FullyConnectedSpec, MaxPoolSpec

from .nets import deep_net, noise


def scattered(shape, count, seed):
    """Windows of all sizes and places, overlapping, out to the edges, one of nothing; the last one is all."""
    rng = np.random.default_rng(seed)
    windows = [Window(0, 0, 1, 1), Window(shape[0] - 1, shape[1] - 1, 1, 1), Window(3, 3, 0, 2)]
    for _ in range(count):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(1, 9, 2)
        windows.append(Window(top, left, min(height, shape[0] - top), min(width, shape[1] - left)))
    return [*(windows[i] for i in rng.permutation(len(windows))), Window(0, 0, *shape[:2])]


def painted(image, windows, pixels):
    """Every state of the image, (n,H,W,C)."""
    states, now = [], image.copy()
    for top, left, height, width in windows:
        now[top : top + height, left : left + width] = pixels[top : top + height, left : left + width]
        states.append(now.copy())
    return np.stack(states)


@pytest.mark.parametrize("shape", [(29, 26, 3), (33, 41, 1), (24, 24, 2)])
@pytest.mark.parametrize("at_a_time", [1, 7, 100])
@pytest.mark.parametrize("spared", [0, 60, 10**9])
def test_every_step_is_that_of_the_whole_image(shape, at_a_time, spared, monkeypatch):
    """Whether windows are computed each in its size, or all in the largest that holds them."""
    monkeypatch.setattr(incremental, "_FILTERS_IN_CELLS", spared)
    net, image, pixels = deep_net(shape), noise(shape, 1), noise(shape, 2)
    windows = scattered(shape, 40, seed=3)
    patched = PatchedForward(net, image)
    found = [patched.advance([windows[i : i + at_a_time]], pixels) for i in range(0, len(windows), at_a_time)]
    expected = net.predict(painted(image, windows, pixels))
    assert len(np.unique(expected[:, 0])) > 10  # the steps do change something
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5)


def test_a_net_without_maps():
    shape = (6, 5, 1)
    net = Network(Architecture(shape, (FullyConnectedSpec("fc1", 3),), initial="lecun"))
    image, pixels, windows = noise(shape, 1), noise(shape, 2), [Window(0, 0, 2, 2), Window(4, 3, 2, 2)]
    found = PatchedForward(net, image).advance([windows], pixels)
    np.testing.assert_allclose(found, net.predict(painted(image, windows, pixels)), rtol=1e-5)


def test_a_map_that_readers_pad_each_with_its_own_border():
    """Nothing is positive: a maximum that took a convolution's zeros for cells would be 0."""
    shape = (13, 11, 2)
    layers = (
        ConvSpec("conv1", 5, 3, padding=1),
        MaxPoolSpec("pool", 3, 2, 1, ceil_mode=True),
        ConvSpec("conv2", 4, 3, 2, (1, 1, 1, 1), inputs=("conv1",)),
        ConcatSpec("concat", inputs=("pool", "conv2")),
        FullyConnectedSpec("fc3", 3),
    )
    net = Network(Architecture(shape, layers, initial="he"), seed=1)
    net.layers["conv1"].bias -= 20
    net.head = "none"
    image, pixels, windows = noise(shape, 1), noise(shape, 2), scattered(shape, 20, seed=3)
    assert net.forward(painted(image, windows, pixels))["conv1"].max() < 0
    found = PatchedForward(net, image).advance([windows], pixels)
    np.testing.assert_allclose(found, net.predict(painted(image, windows, pixels)), rtol=1e-5)


def test_maps_are_let_go_when_they_have_been_read():
    """Of a chain of layers, two maps with their changes are there at a time."""
    shape = (24, 24, 8)
    layers = [ConvSpec(f"conv{i}", 8, 3, padding=1) for i in range(12)]
    net = Network(Architecture(shape, (*layers, FullyConnectedSpec("fc", 2)), initial="he"))
    patched = PatchedForward(net, noise(shape, 1))
    windows, alive, most = [[Window(0, 0, 20, 20)]] * 16, weakref.WeakSet(), 0
    for _, cells in patched._changed(windows, noise(shape, 2)):
        alive.add(cells)
        most = max(most, len(alive))
    assert most <= 2


def test_chains_at_once_start_alike_and_the_last_one_stays():
    net = deep_net()
    image, pixels = noise(net.input_shape, 1), noise(net.input_shape, 2)
    before, *chains = (scattered(net.input_shape, count, seed=count)[:-1] for count in (3, 6, 1, 9))
    patched = PatchedForward(net, image)
    patched.advance([before], pixels)
    start = painted(image, before, pixels)[-1]
    expected = net.predict(np.concatenate([painted(start, chain, pixels) for chain in chains]))
    np.testing.assert_allclose(patched.advance(chains, pixels), expected, rtol=1e-5)
    after = net.predict(painted(image, [*before, *chains[-1], chains[0][0]], pixels)[-1:])
    np.testing.assert_allclose(patched.advance([chains[0][:1]], pixels), after, rtol=1e-5)


def test_a_fork_goes_its_own_way():
    net = deep_net()
    image, pixels = noise(net.input_shape, 1), noise(net.input_shape, 2)
    windows = scattered(net.input_shape, 6, seed=4)
    patched = PatchedForward(net, image)
    patched.advance([windows[:3]], pixels)
    first, second = patched.fork(), patched.fork()
    one = first.advance([windows[3:]], pixels)
    np.testing.assert_array_equal(second.advance([windows[3:]], pixels), one)
    assert (patched.advance([[Window(0, 0, 1, 1)]], pixels) != one[-1:]).any()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precisions(precision):
    net = deep_net()
    net.precision = precision
    image, pixels = noise(net.input_shape, 1), noise(net.input_shape, 2)
    windows = scattered(net.input_shape, 6, seed=4)
    found = PatchedForward(net, image).advance([windows], pixels)
    np.testing.assert_allclose(
        found, net.predict(painted(image, windows, pixels)), rtol=1e-5 if precision == "tf32" else 3e-2
    )
