import json

import numpy as np
import pytest

from zfcuda.analysis.invariance import (
    TRANSFORMS,
    amounts_for,
    first_and_last_hidden,
    invariance,
    paper_amounts,
    transformed,
)
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from .nets import PATTERNS, deep_net, noise, pattern_net, signal_net, with_pattern


def invariant_net(size=16):
    """A pattern matcher whose hidden layer is the largest response anywhere: blind to where the pattern is."""
    net = Network(
        Architecture(
            (size, size, 1),
            (
                ConvSpec("conv1", 3, 3, padding=1),
                ReLUSpec("relu1"),
                MaxPoolSpec("pool1", size, size),
                FullyConnectedSpec("fc2", 3),
                ReLUSpec("relu2"),
                FullyConnectedSpec("fc3", 3),
            ),
        )
    )
    net.layers["conv1"].weight = np.ascontiguousarray(np.where(PATTERNS > 0, 1.0, -1.0)[..., None], np.float32)
    for name in ("fc2", "fc3"):
        net.layers[name].weight = np.eye(3, dtype=np.float32) * 3
    return net


def test_a_translation_invariant_net_measures_so():
    """P6's meaning: the hidden layer does not move, layer 1 does; neither does the probability."""
    net = invariant_net()
    images = np.stack([with_pattern(0, 6, 6), with_pattern(2, 7, 5)])
    result = invariance(net, images, [0, 2], amounts={"translation": [-4, -1, 0, 2, 5]}, layers=["relu1", "relu2"])
    curves = result.curves["translation"]
    np.testing.assert_allclose(curves.distances["relu2"], 0, atol=1e-6)
    assert (curves.distances["relu1"][:, [0, 1, 3, 4]] > 1).all()
    np.testing.assert_allclose(curves.distances["relu1"][:, 2], 0, atol=1e-6)
    assert np.ptp(curves.probability, axis=1).max() < 1e-6
    assert curves.steadiness("relu2") < 1e-6 < curves.steadiness("relu1")


def test_a_net_that_needs_the_place_is_not_invariant():
    net = pattern_net()
    net.layers["fc2"].weight = np.zeros_like(net.layers["fc2"].weight)
    looked_at = net.layers["fc2"].weight.reshape(3, 8, 8, 3)
    looked_at[0, 3, 3, 0] = 20.0
    result = invariance(net, with_pattern(0, 6, 6)[None], [0], amounts={"translation": [-5, 0, 5]}, layers=["pool1"])
    assert result.curves["translation"].probability[0].argmax() == 1
    assert result.curves["translation"].probability[0, [0, 2]].max() < 0.5


def test_distances_are_euclidean_between_flattened_features():
    net = deep_net()
    image = noise((1, *net.input_shape))
    result = invariance(net, image, [1], amounts={"scale": [1.3]}, layers=["relu2"])
    moved = transformed(image[0], "scale", 1.3)[None]
    difference = (net.forward(image)["relu2"] - net.forward(moved)["relu2"]).astype(np.float64)
    assert result.curves["scale"].distances["relu2"][0, 0] == pytest.approx(np.linalg.norm(difference), rel=1e-6)
    assert result.curves["scale"].probability[0, 0] == pytest.approx(net.predict(moved)[0, 1], rel=1e-5)


class TestTransformed:
    image = noise((9, 7, 3))

    @pytest.mark.parametrize(("transform", "amount"), [("translation", 0), ("shift", 0), ("scale", 1), ("rotation", 0)])
    def test_nothing(self, transform, amount):
        np.testing.assert_allclose(transformed(self.image, transform, amount), self.image, atol=1e-6)

    def test_full_turn(self):
        turned = transformed(self.image, "rotation", 360)
        np.testing.assert_allclose(turned[1:-1, 1:-1], self.image[1:-1, 1:-1], atol=1e-4)

    def test_down(self):
        moved = transformed(self.image, "translation", 2)
        np.testing.assert_allclose(moved[2:], self.image[:-2], atol=1e-6)
        assert not moved[:2].any()

    def test_up(self):
        moved = transformed(self.image, "translation", -3)
        np.testing.assert_allclose(moved[:-3], self.image[3:], atol=1e-6)
        assert not moved[-3:].any()

    @pytest.mark.parametrize("height", [9, 1])
    def test_right_and_left(self, height):
        image = self.image[:height]
        right, left = (transformed(image, "shift", amount) for amount in (2, -3))
        np.testing.assert_allclose(right[:, 2:], image[:, :-2], atol=1e-6)
        np.testing.assert_allclose(left[:, :-3], image[:, 3:], atol=1e-6)
        assert not right[:, :2].any()
        assert not left[:, -3:].any()

    def test_a_signal_is_stretched_about_its_centre(self):
        signal = np.zeros((1, 12, 2), np.float32)
        signal[0, 5:7] = 1, 2
        stretched = transformed(signal, "scale", 2.0)[0]
        np.testing.assert_allclose(stretched.sum(axis=0), [4, 8], rtol=0.01)
        assert stretched[4:8].min() > 0.5

    def test_quarter_turn_is_counter_clockwise(self):
        square = noise((8, 8, 1))
        np.testing.assert_allclose(transformed(square, "rotation", 90), np.rot90(square), atol=1e-5)

    def test_scale_enlarges_about_the_centre(self):
        image = np.zeros((12, 12, 1), np.float32)
        image[5:7, 5:7] = 1
        bright = transformed(image, "scale", 2.0)[..., 0]
        assert bright[4:8, 4:8].min() > 0.5
        assert bright.sum() == pytest.approx(16, rel=0.01)

    @pytest.mark.parametrize(
        ("transform", "amount", "message"), [("shear", 1, "transform must be"), ("scale", 0, "scale must be positive")]
    )
    def test_errors(self, transform, amount, message):
        with pytest.raises(ValueError, match=message):
            transformed(self.image, transform, amount)


def test_the_papers_amounts():
    assert paper_amounts("translation", 224, 121).tolist() == list(range(-60, 61))
    assert paper_amounts("scale", 224)[[0, -1]].tolist() == [1.0, 1.8]
    assert paper_amounts("rotation", 224)[[0, -1]].tolist() == [0.0, 360.0]
    assert paper_amounts("translation", 2).tolist() == [-1, 0, 1]
    assert paper_amounts("shift", 224, 3).tolist() == [-60, 0, 60]
    assert list(amounts_for((28, 40, 1))) == list(TRANSFORMS)
    assert max(amounts_for((28, 40, 1))["translation"]) == 8
    of_signals = amounts_for((1, 40, 2), 3)
    assert list(of_signals) == ["shift", "scale"]
    assert of_signals["shift"] == [-11, 0, 11]


def test_defaults_are_all_transforms_in_the_first_and_the_last_hidden_layer():
    net = deep_net()
    result = invariance(net, noise((2, *net.input_shape)), [0, 1])
    assert tuple(result.curves) == TRANSFORMS
    assert result.layers == first_and_last_hidden(net) == ("pool1", "relu4")
    assert len(result.plot().axes) == 9
    assert [text.get_text() for text in result.plot(["one", "$two"]).legends[0].get_texts()] == ["one", r"\$two"]


def test_of_signals_the_defaults_are_shifts_and_scales():
    net = signal_net()
    images = noise((2, *net.input_shape))
    result = invariance(net, images, [0, 1])
    assert list(result.curves) == ["shift", "scale"]
    assert result.curves["shift"].amounts[[0, -1]].tolist() == [-17, 17]
    moved = np.stack([transformed(image, "shift", 17) for image in images])
    np.testing.assert_allclose(result.curves["shift"].probability[:, -1], net.predict(moved)[[0, 1], [0, 1]], rtol=1e-5)
    assert "shift, pixels or samples to the right" in {axis.get_xlabel() for axis in result.plot().axes}


def test_results_are_saved(tmp_path):
    net = invariant_net()
    result = invariance(net, with_pattern(0, 6, 6)[None], [0], amounts={"rotation": [0, 180]})
    result.save(tmp_path / "i.json")
    saved = json.loads((tmp_path / "i.json").read_text())
    assert saved["curves"]["rotation"]["amounts"] == [0, 180]
    assert set(saved["steadiness"]["rotation"]) == {"pool1", "relu2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "labels must be 2 class numbers"),
        ({"labels": [0, 3]}, r"labels must be in \[0, 3\)"),
        ({"layers": ["pool9"]}, "layer must be one of"),
        ({"amounts": {"shear": [1]}}, "transform must be one of"),
        ({"amounts": {"scale": []}}, "amounts of scale is empty"),
        ({"amounts": {}}, "amounts is empty"),
        ({"layers": []}, "layers is empty"),
        ({"amounts": {"rotation": [0, np.inf]}}, r"amounts of rotation must be finite, got \[0, inf\]"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"images": np.zeros((2, 5, 5, 1), np.float32)}, "input shape"),
    ],
)
def test_arguments(change, message):
    arguments = {"images": np.stack([with_pattern(0, 6, 6)] * 2), "labels": [0, 1], **change}
    with pytest.raises(ValueError, match=message):
        invariance(pattern_net(), **arguments)


@pytest.mark.parametrize("labels", [[0.9, 1.2], ["0", "1"], [True, False]])
def test_labels_that_are_no_whole_numbers(labels):
    with pytest.raises(TypeError, match="labels must be class numbers"):
        invariance(pattern_net(), np.stack([with_pattern(0, 6, 6)] * 2), labels)


def test_unknown_amounts():
    with pytest.raises(ValueError, match="transform must be"):
        paper_amounts("shear", 10)
    with pytest.raises(ValueError, match="steps must be"):
        paper_amounts("scale", 10, 0)


def test_many_images_are_drawn_with_their_mean():
    net = invariant_net()
    images = noise((12, *net.input_shape))
    result = invariance(net, images, [0] * 12, amounts={"scale": [1.0, 1.5, 2.0]}, layers=["conv1"])
    figure = result.plot([str(i) for i in range(12)])
    assert figure.legends == []
    lines = figure.axes[0].get_lines()
    assert len(lines) == 13
    np.testing.assert_allclose(lines[-1].get_ydata(), result.curves["scale"].distances["conv1"].mean(axis=0))
