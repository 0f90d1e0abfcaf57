import json

import numpy as np
import pytest

from zfcuda.analysis.occlusion import occlusion

from .nets import box_net, deep_net, noise, pattern_net, with_pattern


def full_evaluation(net, image, label, size, stride, fill, layer, feature_map):
    """Oracle: every occluded image goes through the whole net."""
    height, width = image.shape[:2]
    rows = -(-(height - size[0]) // stride[0]) + 1
    columns = -(-(width - size[1]) // stride[1]) + 1
    batch = np.repeat(image[None], rows * columns, axis=0)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride[0], column * stride[1]
            batch[row * columns + column, top : top + size[0], left : left + size[1]] = fill
    trace = net.forward(batch)
    sums = trace[layer][..., feature_map].sum(axis=(1, 2), dtype=np.float64)
    probabilities = net.predict(batch)
    shape = (rows, columns)
    return probabilities[:, label].reshape(shape), probabilities.argmax(axis=1).reshape(shape), sums.reshape(shape)


@pytest.mark.parametrize("shape", [(29, 26, 3), (33, 41, 1), (24, 24, 2)])
@pytest.mark.parametrize(("size", "stride"), [(5, 3), (1, 7), ((9, 4), (2, 5)), (24, 1), (7, 30)])
@pytest.mark.parametrize("layer", ["pool3", "relu1", "conv2", "norm1"])
def test_incremental_evaluation_is_the_full_one(shape, size, stride, layer):
    net = deep_net(shape)
    image = noise(shape, seed=3)
    result = occlusion(net, image, 2, size=size, stride=stride, fill=0.5, layer=layer, batch_size=11)
    expected = full_evaluation(net, image, 2, result.size, result.stride, 0.5, layer, result.feature_map)
    for got, want in zip((result.probability, result.prediction, result.activation), expected, strict=True):
        assert got.shape == want.shape
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


def test_the_map_drops_exactly_where_the_net_looks():
    """P8's meaning."""
    top, left, height, width = box = (5, 9, 4, 3)
    net = box_net(box)
    image = np.ones((16, 16, 1), np.float32)
    result = occlusion(net, image, 1, size=2, stride=1)
    covered = np.array(
        [
            [
                max(0, min(r + 2, top + height) - max(r, top)) * max(0, min(c + 2, left + width) - max(c, left))
                for c in range(15)
            ]
            for r in range(15)
        ]
    )
    assert ((result.probability < result.baseline - 1e-6) == (covered > 0)).all()
    np.testing.assert_allclose(result.probability, 1 / (1 + np.exp(-(4 - 8 * covered / 12))), rtol=1e-5)
    assert result.baseline == pytest.approx(1 / (1 + np.exp(-4)))
    assert covered[result.lowest()] == covered.max()


def test_covering_the_pattern_kills_its_map_and_changes_the_prediction():
    net = pattern_net()
    image = np.maximum(with_pattern(0, 2, 2), with_pattern(2, 11, 10, strength=0.99))
    result = occlusion(net, image, 0, size=4, stride=1)
    assert result.feature_map == 0
    assert result.baseline_prediction == 0
    assert result.activation[2, 2] == pytest.approx(0, abs=1e-6)
    assert result.prediction[2, 2] == 2
    assert result.prediction[11, 10] == 0
    assert result.activation[11, 10] == pytest.approx(result.baseline_activation)
    bright = np.argwhere(result.projection[..., 0] > 0)
    assert bright.min(axis=0).tolist() == [2, 2]
    assert bright.max(axis=0).tolist() == [4, 4]


def test_corners_stand_at_multiples_of_the_stride_and_the_last_is_clipped():
    net = pattern_net()
    result = occlusion(net, with_pattern(0, 4, 4), 0, size=5, stride=4)
    assert result.probability.shape == (4, 4)  # ceil((16 - 5) / 4) + 1
    assert result.window(3, 1) == (12, 4, 4, 5)


def test_a_chosen_map_and_layer():
    net = deep_net()
    image = noise(net.input_shape)
    result = occlusion(net, image, 0, size=9, stride=9, layer="relu2", feature_map=3)
    assert (result.layer, result.feature_map) == ("relu2", 3)
    assert result.baseline_activation == pytest.approx(net.forward(image[None])["relu2"][0, ..., 3].sum(), rel=1e-5)


def test_the_default_layer_is_the_last_with_maps_and_the_map_the_one_that_responds_most():
    net = deep_net()
    image = noise(net.input_shape)
    result = occlusion(net, image, 0, size=9, stride=9)
    assert result.layer == "pool3"
    assert result.feature_map == net.forward(image[None])["pool3"][0].sum(axis=(0, 1)).argmax()


def test_the_batch_does_not_matter_and_runs_repeat():
    net = deep_net()
    image = noise(net.input_shape)
    one, two, three = (occlusion(net, image, 1, size=6, stride=5, batch_size=b) for b in (64, 64, 3))
    assert (one.probability == two.probability).all()
    np.testing.assert_allclose(one.probability, three.probability, rtol=1e-5)


def test_the_image_is_left_as_it_was():
    net = deep_net()
    image = noise(net.input_shape)
    before = image.copy()
    occlusion(net, image, 0, size=6, stride=5)
    assert (image == before).all()


def test_results_are_saved_and_plotted(tmp_path):
    net = pattern_net()
    result = occlusion(net, with_pattern(0, 4, 4), 0, size=4, stride=4)
    result.save(tmp_path / "o.json")
    saved = json.loads((tmp_path / "o.json").read_text())
    assert np.allclose(saved["probability"], result.probability)
    assert saved["label"] == 0
    assert len(result.plot().axes) == 6  # three panels and their scales


class TestErrors:
    net = pattern_net()
    image = with_pattern(0, 4, 4)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"size": 0}, ValueError, "size must be at least 1"),
            ({"size": 17}, ValueError, "size must be at most the image's 16 x 16"),
            ({"size": 2.5}, TypeError, "size must be an int"),
            ({"size": (1, 2, 3)}, TypeError, "size must be an int"),
            ({"stride": 0}, ValueError, "stride must be at least 1"),
            ({"stride": True}, TypeError, "stride must be an int"),
            ({"label": 3}, ValueError, r"label must be in \[0, 3\), got 3"),
            ({"label": "cat"}, TypeError, "label must be a class number"),
            ({"layer": "fc2"}, ValueError, "layer must be one with feature maps: conv1, relu1, pool1; got 'fc2'"),
            ({"layer": "pool9"}, ValueError, "layer must be one with feature maps"),
            ({"feature_map": 3}, ValueError, r"feature_map must be in \[0, 3\)"),
            ({"image": image.astype(np.float64)}, TypeError, "float32"),
            ({"image": image[None]}, ValueError, "input shape"),
            ({"image": image * np.nan}, ValueError, "not finite"),
            ({"image": [1]}, TypeError, "float32 array"),
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
            ({"fill": np.nan}, ValueError, "fill must be finite"),
        ],
    )
    def test_arguments(self, change, error, message):
        arguments = {"image": self.image, "label": 0, "size": 4, "stride": 4, **change}
        with pytest.raises(error, match=message):
            occlusion(self.net, **arguments)
