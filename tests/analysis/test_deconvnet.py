import json

import numpy as np
import pytest

from zfcuda.analysis.deconvnet import Ranking, rank_layers, strongest_maps, top_activations, visualize
from zfcuda.data import ArrayDataset, Preprocess

from .nets import PATTERNS, box_net, deep_net, noise, pattern_net, signal_net, with_pattern


def brute_force(activations, k):
    """Values, images and positions of the k strongest per map, by sorting everything."""
    n, height, width, maps = activations.shape
    flat = activations.reshape(n, height * width, maps)
    best, where = flat.max(axis=1), flat.argmax(axis=1)
    order = np.argsort(-best, axis=0, kind="stable")[:k]
    values = np.take_along_axis(best, order, axis=0).T
    cells = np.take_along_axis(where, order, axis=0).T
    return values, order.T, np.stack([cells // width, cells % width], axis=-1)


@pytest.mark.parametrize("layer", ["relu1", "pool1", "conv2", "pool3"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_ranking_is_that_of_a_full_sort(layer, batch_size):
    net = deep_net()
    images = noise((40, *net.input_shape))
    values, indices, positions = top_activations(net, images, layer, k=9, batch_size=batch_size)
    expected = brute_force(net.forward(images)[layer], 9)
    np.testing.assert_allclose(values, expected[0], rtol=1e-5)
    assert (indices == expected[1]).all()
    assert (positions == expected[2]).all()


def test_fully_connected_layers_rank_too():
    net = deep_net()
    images = noise((20, *net.input_shape))
    top = top_activations(net, images, "fc4", k=3)
    expected = np.argsort(-net.forward(images)["fc4"], axis=0, kind="stable")[:3].T
    assert (top.indices == expected).all()
    assert not top.positions.any()


def test_ties_go_to_the_earlier_image_whatever_the_batch():
    net = pattern_net()
    images = np.stack([with_pattern(0, 4, 4)] * 5)
    for batch_size in (1, 2, 5):
        assert top_activations(net, images, "pool1", k=3, batch_size=batch_size).indices[0].tolist() == [0, 1, 2]


def test_fewer_images_than_k():
    net = pattern_net()
    assert top_activations(net, np.stack([with_pattern(0, 4, 4)] * 2), "pool1", k=9).values.shape == (3, 2)


def test_several_layers_in_one_pass_read_the_data_once():
    net = deep_net()
    images = noise((30, *net.input_shape))
    read = []

    class Data:
        image_shape = net.input_shape

        def __len__(self):
            return len(images)

        def read(self, indices):
            read.extend(np.asarray(indices).tolist())
            return images[indices]

    tops = rank_layers(net, Data(), ["pool1", "relu2", "fc5"], k=4, batch_size=8)
    assert read == list(range(30))
    for layer, top in tops.items():
        assert (top.indices == top_activations(net, images, layer, k=4).indices).all()


def test_memory_does_not_grow_with_the_images():
    ranking = Ranking("conv1", k=5)
    for start in range(0, 2000, 100):
        ranking = ranking.including(noise((100, 2, 2, 7), seed=start), start)
        assert sum(column.size for column in ranking._columns) == 5 * 7 * (1 + 1 + 2)
    assert ranking.result().values.shape == (7, 5)


def test_a_map_shows_its_pattern_at_its_place():
    """P4's meaning: the winner is the image with the pattern, its projection that pattern where it is."""
    net = pattern_net()
    places = [(2, 3), (10, 6), (7, 11)]
    images = np.stack([with_pattern(which, *place) for which, place in enumerate(places)] + [0 * with_pattern(0, 0, 0)])
    top = top_activations(net, images, "pool1", k=1)
    assert top.indices[:, 0].tolist() == [0, 1, 2]
    view = visualize(net, images, top)
    for which, (row, column) in enumerate(places):
        top_, left, _, _ = view.frames[which, 0]
        projection = view.projections[which, 0, ..., 0]
        shown = projection[row - top_ : row - top_ + 3, column - left : column - left + 3]
        assert ((shown > 0) == (PATTERNS[which] > 0)).all()
        # Only that: nothing bright elsewhere.
        assert (projection > 0).sum() == PATTERNS[which].sum()
        patch = view.patches[which, 0, ..., 0]
        assert (patch[row - top_ : row - top_ + 3, column - left : column - left + 3] == PATTERNS[which]).all()
        window_top, window_left, tall, wide = view.windows[which, 0]
        assert window_top <= row
        assert row + 3 <= window_top + tall
        assert window_left <= column
        assert column + 3 <= window_left + wide


@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
def test_projections_are_those_of_one_activation_at_a_time(rule):
    net = deep_net()
    images = noise((12, *net.input_shape))
    top = top_activations(net, images, "pool3", k=3)
    view = visualize(net, images, top, maps=[4, 1], rule=rule, batch_size=5)
    assert view.maps.tolist() == [4, 1]
    for number, feature_map in enumerate(view.maps):
        for rank in range(3):
            index = top.indices[feature_map, rank]
            trace = net.forward(images[index : index + 1])
            alone = np.zeros_like(trace["pool3"])
            row, column = top.positions[feature_map, rank]
            alone[0, row, column, feature_map] = top.values[feature_map, rank]
            pixels = net.project(trace, "pool3", alone, rule=rule)[0]
            y, x, h, w = view.windows[number, rank]
            outside = pixels.copy()
            outside[y : y + h, x : x + w] = 0
            assert not outside.any()  # the receptive field is all that a projection touches
            fy, fx, _, _ = view.frames[number, rank]
            inside = view.projections[number, rank, y - fy : y - fy + h, x - fx : x - fx + w]
            np.testing.assert_allclose(inside, pixels[y : y + h, x : x + w], rtol=1e-4, atol=1e-6)


def test_class_scores_can_be_visualised():
    net = deep_net()
    images = noise((6, *net.input_shape))
    view = visualize(net, images, top_activations(net, images, "fc5", k=2))
    assert view.projections.shape[:2] == (4, 2)
    assert view.projections.any()


def test_a_layer_is_no_ranking():
    net = deep_net()
    with pytest.raises(TypeError, match="top must be what top_activations found, got str"):
        visualize(net, noise((2, *net.input_shape)), "fc5")


def test_strongest_maps_leaves_dead_ones_out():
    net = pattern_net()
    images = np.stack([with_pattern(2, 4, 4), with_pattern(0, 4, 4)])
    assert strongest_maps(top_activations(net, images, "pool1", k=1), 3) == [0, 2]


def test_data_sets_go_through_the_preprocessing_of_the_net():
    net = pattern_net()
    net.preprocess = Preprocess(np.full((18, 18, 1), 50, np.float32), crop=(16, 16), scale=1 / 200)
    raw = np.full((3, 18, 18, 1), 50, np.uint8)
    for which in range(3):
        raw[which, 1:-1, 1:-1] += with_pattern(which, 5, 5, strength=200).astype(np.uint8)
    dataset = ArrayDataset(raw, np.zeros(3, np.int32), ("one",))
    top = top_activations(net, dataset, "pool1", k=1)
    assert top.indices[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(top.values[:, 0], 0.5, rtol=1e-5)


def test_results_are_saved_as_json(tmp_path):
    net = pattern_net()
    images = np.stack([with_pattern(0, 4, 4)])
    top = top_activations(net, images, "pool1")
    top.save(tmp_path / "top.json")
    assert json.loads((tmp_path / "top.json").read_text())["indices"] == [[0], [0], [0]]
    visualize(net, images, top).save(tmp_path / "view.json")
    assert "projections" not in json.loads((tmp_path / "view.json").read_text())


class TestErrors:
    net = pattern_net()
    images = np.stack([with_pattern(0, 4, 4)])

    def test_unknown_layer(self):
        with pytest.raises(ValueError, match=r"layer must be one of conv1.*got 'conv9'"):
            top_activations(self.net, self.images, "conv9")

    @pytest.mark.parametrize(("name", "value"), [("k", 0), ("batch_size", 0)])
    def test_counts(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            top_activations(self.net, self.images, "pool1", **{name: value})

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            ([1, 2], TypeError, "images must be a float32 array"),
            (np.zeros((1, 16, 16, 1), np.uint8), TypeError, "float32"),
            (np.zeros((16, 16, 1), np.float32), ValueError, r"\(N,H,W,C\)"),
            (np.zeros((0, 16, 16, 1), np.float32), ValueError, "images is empty"),
            (np.zeros((1, 9, 9, 1), np.float32), ValueError, "input shape"),
        ],
    )
    def test_images(self, images, error, message):
        with pytest.raises(error, match=message):
            top_activations(self.net, images, "pool1")

    def test_activations_that_are_not_finite(self):
        images = np.stack([with_pattern(0, 4, 4)] * 3)
        images[1] = 3e38
        with pytest.raises(ValueError, match=r"'pool1' has activations that are not finite for image 1"):
            top_activations(self.net, images, "pool1", batch_size=2)

    def test_images_that_are_not_those_ranked(self):
        images = np.stack([with_pattern(which, 4, 4) for which in (0, 1, 2)])
        top = top_activations(self.net, images, "pool1")
        visualize(self.net, images, top)
        with pytest.raises(ValueError, match=r"those that were ranked: image 2 won, of 2 that are given"):
            visualize(self.net, images[:2], top)
        with pytest.raises(ValueError, match=r"images must be those .* same net: map \d won with .* on image \d"):
            visualize(self.net, images[::-1].copy(), top)

    @pytest.mark.parametrize("maps", [[], [3], [-1]])
    def test_maps(self, maps):
        top = top_activations(self.net, self.images, "pool1")
        with pytest.raises(ValueError, match="maps must be"):
            visualize(self.net, self.images, top, maps=maps)

    def test_data_sets_that_do_not_fit(self):
        net = pattern_net()
        dataset = ArrayDataset(np.zeros((1, 16, 16, 1), np.uint8), np.zeros(1, np.int32), ("one",))
        with pytest.raises(ValueError, match="carries no preprocessing"):
            top_activations(net, dataset, "pool1")
        net.preprocess = Preprocess(np.zeros((20, 20, 1), np.float32), crop=(16, 16))
        with pytest.raises(ValueError, match=r"must have shape \(20, 20, 1\), as trained"):
            top_activations(net, dataset, "pool1")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_winners_are_plotted(channels):
    """Images in grey or three colours, signals as a line for each channel, with a gap behind each winner."""
    for net in (deep_net((29, 26, channels)), signal_net(channels=channels)):
        images = noise((5, *net.input_shape))
        view = visualize(net, images, top_activations(net, images, "relu1", k=3), maps=[0, 2])
        axes = view.plot().axes
        assert len(axes) == 4
        if net.input_shape[0] > 1:
            shape = view.projections.shape[2], 3 * view.projections.shape[3]
            shown = [axis.get_images()[0].get_array().shape for axis in axes]
            assert shown == [(*shape, 3) if channels >= 3 else shape] * 4
        else:
            lines = [line.get_ydata() for axis in axes for line in axis.get_lines()]
            assert len(lines) == 4 * channels
            assert {line.shape for line in lines} == {(3 * 8,)}  # of windows of seven
            assert (np.isnan(lines).sum(axis=1) == 3).all()
            assert np.nanmin(lines) >= 0
            assert np.nanmax(lines) <= 1


def test_windows_of_one_pixel_are_plotted():
    net = box_net((5, 9, 4, 3))
    images = noise((4, *net.input_shape))
    view = visualize(net, images, top_activations(net, images, "relu1", k=3))
    assert [axis.get_images()[0].get_array().shape for axis in view.plot().axes] == [(1, 3)] * 2
