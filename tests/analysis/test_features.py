import json
import sys

import numpy as np
import pytest
from PIL import Image

from zfcuda.analysis import classifier
from zfcuda.analysis.ablation import Budget
from zfcuda.analysis.features import SCRATCH, Fitted, draw_images, extract, feature_analysis
from zfcuda.data import ArrayDataset, Augmentation, Preprocess

from .nets import PATTERNS, deep_net, noise, with_pattern
from .test_invariance import invariant_net


def patterns(count, seed):
    """Images of three patterns anywhere: hopeless on pixels, plain in the features of a net that knows the patterns."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3).astype(np.int32)
    images = np.stack([with_pattern(label, *rng.integers(0, 14, 2)) for label in labels])
    return ArrayDataset((200 * images).astype(np.uint8), labels, ("plus", "down", "across"))


@pytest.fixture
def net():
    net = invariant_net()
    net.preprocess = Preprocess(np.zeros((16, 16, 1), np.float32), (16, 16), 1 / 200)
    return net


@pytest.mark.parametrize("kind", classifier.KINDS)
def test_features_that_know_the_classes_classify_with_few_images(net, kind):
    """P11 and P12's meaning: a deeper layer that has abstracted the place away needs fewer images."""
    result = feature_analysis(
        net, patterns(90, 0), patterns(60, 1), layers=["conv1", "relu2"], per_class=(1, 6), draws=2, kind=kind
    )
    assert result.score("relu2", 1).accuracy == 100
    assert result.score("relu2", 6).accuracy == 100
    assert result.score("conv1", 6).accuracy < 90
    assert result.score("conv1", 1).deviation >= 0
    assert (result.layers, result.counts) == (["conv1", "relu2"], [1, 6])


def test_a_net_from_scratch_is_the_baseline(net):
    budget = Budget(1, batch_size=8, lr=0.01, augmentation=Augmentation(0, flip=False), scale=1 / 200)
    result = feature_analysis(
        net, patterns(30, 0), patterns(30, 1), layers=["relu2"], per_class=(4,), draws=1, scratch=budget
    )
    assert result.layers == ["relu2", SCRATCH]
    assert 0 <= result.score(SCRATCH, 4).accuracy <= 100
    assert result.score("relu2", 4).accuracy > result.score(SCRATCH, 4).accuracy


def test_features_are_the_layers_activations():
    net = deep_net()
    images = noise((10, *net.input_shape))
    found = extract(net, images, ["pool3", "fc5"], batch_size=4)
    trace = net.forward(images)
    np.testing.assert_allclose(found["pool3"], trace["pool3"].reshape(10, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["fc5"], trace.output, rtol=1e-5, atol=1e-6)


def test_images_are_drawn_evenly_and_again_with_the_seed():
    labels = np.array([0] * 10 + [1] * 3, np.int32)
    chosen = draw_images(labels, 5, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [5, 3]
    assert (chosen == draw_images(labels, 5, seed=1)).all()
    assert chosen.tolist() != draw_images(labels, 5, seed=2).tolist()


def test_results_repeat_are_saved_and_plotted(net, tmp_path):
    one, two = (
        feature_analysis(net, patterns(30, 0), patterns(30, 1), layers=["conv1"], per_class=(2,), draws=2)
        for _ in range(2)
    )
    assert one == two
    one.save(tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text())["scores"][0]["layer"] == "conv1"
    assert len(one.plot().axes) == 2
    with pytest.raises(KeyError, match="fc9"):
        one.score("fc9", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_class": ()}, "per_class must be"),
        ({"per_class": (0,)}, "per_class must be"),
        ({"draws": 0}, "draws must be"),
        ({"kind": "forest"}, "kind must be one of softmax, svm"),
        ({"layers": ["pool9"]}, "layer must be one of"),
        ({"layers": []}, "layers must be one or more of conv1"),
        ({"train": ArrayDataset(np.zeros((2, 16, 16, 1), np.uint8), np.ones(2, np.int32), ("x", "y"))}, "two classes"),
        ({"test": ArrayDataset(np.zeros((1, 16, 16, 1), np.uint8), np.zeros(1, np.int32), ("x",))}, "does not know: x"),
    ],
)
def test_arguments(net, change, message):
    arguments = {"train": patterns(9, 0), "test": patterns(9, 1), **change}
    with pytest.raises(ValueError, match=message):
        feature_analysis(net, **arguments)


class TestClassifier:
    def blobs(self, n=120, seed=0, spread=0.5):
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 3
        centres = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]], np.float32)
        return (centres[labels] + spread * rng.standard_normal((n, 3))).astype(np.float32) * 50 + 1000, labels

    @pytest.mark.parametrize("kind", classifier.KINDS)
    def test_it_separates_what_can_be_separated_at_any_scale(self, kind):
        features, labels = self.blobs()
        assert classifier.fit(features, labels, kind).accuracy(*self.blobs(seed=1)) > 0.98

    def test_softmax_finds_the_minimum_of_its_loss(self):
        features, labels = self.blobs(spread=2.0)
        fitted = classifier._fit(features, labels, "softmax", strength=0.01)
        x = (features - fitted.mean) / fitted.scale
        scores = x @ fitted.model.coef_.T + fitted.model.intercept_
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        excess = (probabilities - np.eye(3)[labels]) / len(x)
        slope = np.concatenate([excess.T @ x + 0.01 * fitted.model.coef_, excess.sum(axis=0)[:, None]], axis=1)
        assert np.abs(slope).max() < 1e-3

    def test_svm_finds_the_minimum_of_its_loss(self):
        features, labels = self.blobs(spread=2.0)
        fitted = classifier._fit(features, labels, "svm", strength=0.01)
        x, signs = (features - fitted.mean) / fitted.scale, 2 * np.eye(3)[labels] - 1
        scores = x @ fitted.model.coef_.T + fitted.model.intercept_
        hinge = -2 * signs * np.maximum(0, 1 - signs * scores) / len(x)
        slope = np.concatenate([hinge.T @ x + 0.01 * fitted.model.coef_, hinge.sum(axis=0)[:, None]], axis=1)
        assert np.abs(slope).max() < 1e-3

    def test_one_image_per_class_is_enough_to_begin(self):
        features, labels = self.blobs()
        assert classifier.fit(features[:3], labels[:3]).accuracy(features, labels) > 0.9

    def test_constant_features_are_no_trouble(self):
        fitted = classifier.fit(np.ones((6, 4), np.float32), np.arange(6) % 2)
        assert np.isfinite(fitted.model.coef_).all()

    def test_errors(self):
        with pytest.raises(ValueError, match="kind must be one of"):
            classifier.fit(np.ones((2, 2), np.float32), np.array([0, 1]), "forest")
        with pytest.raises(ValueError, match="as many"):
            classifier.fit(np.ones((2, 2), np.float32), np.array([0]))

    def test_without_scikit_learn_it_says_what_to_install(self, net, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ImportError, match=r"need scikit-learn .*: pip install 'zfcuda\[sklearn\]'"):
            feature_analysis(net, patterns(9, 0), patterns(9, 1))


def test_patterns_are_where_the_labels_say():
    data = patterns(3, 0)
    for image, label in zip(data.images, data.labels, strict=True):
        assert (image > 0).sum() == PATTERNS[label].sum()


def test_fitted_images_have_the_shape_that_the_net_needs():
    data = patterns(4, 0)
    fitted = Fitted(data, (24, 20, 3))
    images, labels = fitted.batch([1, 3])
    assert images.shape == (2, 24, 20, 3)
    assert images.dtype == np.uint8
    assert (images[..., 0] == images[..., 2]).all()
    assert labels.tolist() == data.labels[[1, 3]].tolist()
    assert fitted.identifier(2) == data.identifier(2)
    assert (Fitted(data, data.image_shape).batch([0])[0] == data.images[:1]).all()


def test_fitted_colours_are_those_of_pillow():
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 20, 3), np.uint8)
    data = ArrayDataset(images, np.zeros(1, np.int32), ("a",))
    picture = Image.fromarray(images[0])
    for channels, mode in ((3, "RGB"), (1, "L")):
        wanted = picture.convert(mode).resize((11, 9), Image.Resampling.BICUBIC)
        found = Fitted(data, (9, 11, channels)).batch([0])[0][0]
        assert (found == np.asarray(wanted).reshape(9, 11, channels)).all()


def test_channels_that_are_no_colours_are_fitted_one_by_one_and_never_dropped():
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 4), np.uint8)
    data = ArrayDataset(images, np.zeros(1, np.int32), ("a",))
    found = Fitted(data, (9, 9, 4)).batch([0])[0][0]
    for channel in range(4):
        alone = Image.fromarray(images[0, ..., channel]).resize((9, 9), Image.Resampling.BICUBIC)
        assert (found[..., channel] == np.asarray(alone)).all()
    for channels in (1, 3, 5):
        with pytest.raises(ValueError, match=f"images of 4 channels cannot be made ones of {channels}"):
            Fitted(data, (16, 16, channels))
