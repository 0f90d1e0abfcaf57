"""A kind of layer is declared once: one that the package does not know works everywhere."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tests.oracles import relative_error
from zfcuda import Network, analysis, load, training
from zfcuda.analysis.geometry import field_of
from zfcuda.nn import Architecture
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import KINDS, RULES, Layer, LayerSpec


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
