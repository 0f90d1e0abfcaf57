"""A kind of layer is declared once: one that the package does not know works everywhere."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tests.accuracy import relative_error
from zfcuda import Network, analysis, load, training
from zfcuda.analysis.geometry import field_of
from zfcuda.nn import Architecture, window
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import KINDS, RULES, Layer, LayerSpec, stage


@dataclass(frozen=True)
class MirrorSpec(LayerSpec):
    """Turns maps round: a layer of which no window can be computed by itself."""

    kind: ClassVar[str] = "mirror"
    factor: float = 1.0

    def spans(self, shape):
        return tuple(type(span)(span.size, whole=True) for span in super().spans(shape))


class Mirror(Layer):
    spec_type = MirrorSpec

    def forward(self, x):
        return np.ascontiguousarray(x[:, ::-1, ::-1]) * np.float32(self.factor)

    def undo(self, signal, rule, record):
        return self.forward(signal)


@dataclass(frozen=True)
class LeakySpec(LayerSpec):
    kind: ClassVar[str] = "leaky"


class Leaky(Layer):
    """A layer that keeps every value at its place says no more than this, and runs on windows."""

    spec_type = LeakySpec
    on_windows = True

    def forward(self, x):
        return np.where(x > 0, x, np.float32(0.1) * x)

    def reads(self, rule):
        return set() if rule == "deconvnet" else {"y"}

    def undo(self, signal, rule, record):
        if rule != "deconvnet":
            signal = np.where(record["y"] > 0, signal, np.float32(0.1) * signal)
        return signal if rule == "gradient" else self.forward(signal)


@pytest.mark.parametrize("rule", RULES)
def test_a_kind_on_windows(monkeypatch, images, rule):
    monkeypatch.setitem(KINDS, "leaky", Leaky)
    monkeypatch.setattr(stage, "_LARGEST_SHARE", 100)
    layers = (ConvSpec("conv1", 4, 3, padding=1), LeakySpec("leaky1"), MaxPoolSpec("pool1", 2, 2), LeakySpec("leaky2"))
    net = Network(Architecture(images.shape[1:], (*layers, FullyConnectedSpec("fc2", 3)), initial="lecun"), seed=5)
    trace = net.forward(images)
    signal = np.zeros_like(trace["leaky2"])
    signal[:, 2, 3, 1] = [1, -2, 3]
    pixels = net.project(trace, "leaky2", signal, rule)
    assert np.count_nonzero(pixels) <= 3 * 3 * 3 * 2
    with monkeypatch.context() as patch:
        patch.setattr(window, "find", lambda activations: None)
        assert relative_error(pixels, net.project(trace, "leaky2", signal, rule)) < 1e-6
    found = analysis.occlusion(net, images[0], 1, size=4, stride=4, layer="pool1")
    covered = images[:1].copy()
    covered[:, 4:8, :4] = 0
    assert found.probability[1, 0] == pytest.approx(net.predict(covered)[0, 1], rel=1e-5)


@pytest.fixture
def nets(monkeypatch):
    """A net that mirrors its maps twice, and the same without."""
    monkeypatch.setitem(KINDS, "mirror", Mirror)
    first = (ConvSpec("conv1", 4, 3, padding=1), ReLUSpec("relu1"), MaxPoolSpec("pool1", 2, 2))
    last = (ConvSpec("conv2", 5, 3), ReLUSpec("relu2"), FullyConnectedSpec("fc3", 3))
    mirrors = (MirrorSpec("turn", factor=2.0), MirrorSpec("again", factor=0.5))
    mirrored, plain = (
        Network(Architecture((12, 10, 2), (*first, *between, *last), initial="lecun"), seed=4)
        for between in (mirrors, ())
    )
    return mirrored, plain


@pytest.fixture
def images():
    return np.random.default_rng(1).standard_normal((3, 12, 10, 2), dtype=np.float32)


def test_forward_and_training(nets, images):
    losses = []
    for net in nets:
        trainer = training.Trainer(net, lr=0.1)
        losses.append([trainer.step(images, np.array([0, 1, 2], np.int32)) for _ in range(3)])
    np.testing.assert_array_equal(*losses)
    np.testing.assert_array_equal(*(net.predict(images) for net in nets))


@pytest.mark.parametrize("rule", RULES)
def test_projection_goes_on_in_whole_maps(nets, images, rule):
    pixels = []
    for net in nets:
        trace = net.forward(images)
        signal = np.zeros_like(trace["relu2"])
        signal[:, 1, 1, 2] = 1
        pixels.append(net.project(trace, "relu2", signal, rule))
    assert relative_error(*pixels) < 1e-6


def test_analyses(nets, images):
    found = [analysis.occlusion(net, images[0], 1, size=4, stride=3, layer="pool1") for net in nets]
    np.testing.assert_allclose(found[0].probability, found[1].probability, rtol=1e-6)
    np.testing.assert_allclose(found[0].activation, found[1].activation, rtol=1e-6)
    assert field_of(nets[0], "again").window(0, 0) == (0, 0, 12, 10)
    assert nets[0].blocks == {1: "again", 2: "relu2", 3: "fc3"}


def test_files(nets, tmp_path):
    nets[0].save(tmp_path / "net")
    assert load(tmp_path / "net").layers["turn"].factor == 2.0
