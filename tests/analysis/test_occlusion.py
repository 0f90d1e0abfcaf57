import json

import numpy as np
import pytest

from zfcuda import backends
from zfcuda.analysis import Occlusion, Occlusions, faithfulness
from zfcuda.analysis.occlusion import occlusion, square_of
from zfcuda.data import ArrayDataset, Preprocess
from zfcuda.errors import Interrupted
from zfcuda.nn import (
    AddSpec,
    Architecture,
    AvgPoolSpec,
    ConcatSpec,
    ConvSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    Network,
    ReLUSpec,
)

from .nets import box_net, deep_net, noise, pattern_net, signal_net, with_pattern
from .test_fills import FILLED


def branches_net(shape=(19, 17, 3)):
    """A sum and a concatenation of branches, one of them of the image."""
    layers = (
        ConvSpec("conv1", 6, 3, 2, 1),
        ReLUSpec("relu1"),
        ConvSpec("conv2", 6, 3, padding=1),
        AddSpec("add", inputs=("conv2", "relu1")),
        ReLUSpec("relu2"),
        MaxPoolSpec("pool", 3, 2, 1, inputs=("input",)),
        AvgPoolSpec("avg", 3, 1, 1, inputs=("relu2",)),
        ConvSpec("one", 4, 1, inputs=("relu2",)),
        ConcatSpec("concat", inputs=("pool", "avg", "one")),
        ConvSpec("classes", 4, 3),
        AvgPoolSpec("gap"),
    )
    return Network(Architecture(shape, layers, initial="he"), seed=1)


def full_evaluation(net, image, label, size, stride, filled, layer, feature_map):
    """Oracle: every occluded image goes through the whole net."""
    height, width = image.shape[:2]
    rows = min(-(-(height - size[0]) // stride[0]) + 1, -(-height // stride[0]))
    columns = min(-(-(width - size[1]) // stride[1]) + 1, -(-width // stride[1]))
    batch = np.repeat(image[None], rows * columns, axis=0)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride[0], column * stride[1]
            place = slice(top, top + size[0]), slice(left, left + size[1])
            batch[row * columns + column][place] = filled[place]
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
    agrees_with_full_evaluation(net, image, result)


def agrees_with_full_evaluation(net, image, result):
    filled, square = FILLED[result.fill](image), (result.size, result.stride)
    expected = full_evaluation(net, image, result.label, *square, filled, result.layer, result.feature_map)
    for got, want in zip((result.probability, result.prediction, result.activation), expected, strict=True):
        assert got.shape == want.shape
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
@pytest.mark.parametrize("fill", FILLED)
@pytest.mark.parametrize(("make", "layer"), [(deep_net, "pool3"), (branches_net, "concat"), (branches_net, "conv1")])
def test_every_fill_on_chains_and_branches(make, layer, fill, backend):
    if reason := backends.status()[backend]:
        pytest.skip(f"{backend}: {reason}")
    net = make()
    image = 0.3 + noise(net.input_shape, seed=3)
    with backends.use(backend):
        result = occlusion(net, image, 2, size=(5, 6), stride=(3, 4), fill=fill, seed=7, layer=layer, batch_size=11)
        assert result.fill == fill
        assert len(np.unique(result.probability)) > 10  # what is painted counts
        agrees_with_full_evaluation(net, image, result)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("fill", FILLED)
def test_fills_in_other_precisions(fill, precision):
    net = deep_net()
    net.precision = precision
    image = noise(net.input_shape, seed=3)
    result = occlusion(net, image, 2, size=9, stride=5, fill=fill, seed=7)
    square = (result.size, result.stride, FILLED[fill](image))
    expected, _, _ = full_evaluation(net, image, 2, *square, result.layer, result.feature_map)
    np.testing.assert_allclose(result.probability, expected, rtol=1e-5 if precision == "tf32" else 3e-2)


@pytest.mark.parametrize("make", [deep_net, branches_net])
def test_a_network_on_a_gpu(gpu, make):
    net, image = make(), noise(make().input_shape, seed=3)
    with backends.use("emulated"):
        expected = occlusion(net, image, 1, size=9, stride=5)
    found = occlusion(net.to("cuda"), image, 1, size=9, stride=5)
    np.testing.assert_array_equal(found.probability, expected.probability)
    np.testing.assert_array_equal(found.activation, expected.activation)


def test_noise_is_as_the_seed_says():
    net = deep_net()
    image = noise(net.input_shape)
    one, again, other = (
        occlusion(net, image, 1, size=6, stride=5, fill="noise", seed=seed).probability for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()


class TestSeveralImages:
    net = deep_net()
    images, labels = noise((3, *net.input_shape)), [1, 3, 0]

    @pytest.mark.parametrize("fill", FILLED)
    def test_each_is_what_it_gives_alone(self, fill):
        options = {"size": 9, "stride": (5, 6), "fill": fill, "seed": 7, "layer": "relu2", "batch_size": 4}
        found = occlusion(self.net, self.images, np.array(self.labels, np.int32), **options)
        assert isinstance(found, Occlusions)
        assert len(found) == 3
        for one, image, label in zip(found, self.images, self.labels, strict=True):
            alone = occlusion(self.net, image, label, **options)
            for name, value in vars(alone).items():
                np.testing.assert_array_equal(getattr(one, name), value)

    def test_a_data_set(self):
        net = deep_net()
        net.preprocess = Preprocess(np.full(net.input_shape, 100, np.float32), net.input_shape[:2], 1 / 64)
        images = np.random.default_rng(0).integers(0, 256, (2, *net.input_shape), np.uint8)
        dataset = ArrayDataset(images, np.array([2, 1], np.int32), tuple("abcd"))
        found = occlusion(net, dataset, dataset.labels, size=9, stride=9)
        assert [one.label for one in found] == [2, 1]
        for one, image in zip(found, net.preprocess(images), strict=True):
            np.testing.assert_array_equal(one.image, image)

    def test_a_sequence(self):
        found = occlusion(self.net, self.images, self.labels, size=9, stride=9)
        assert [one.label for one in found[1:]] == [3, 0]
        assert isinstance(found[:2], Occlusions)
        assert isinstance(found[-1], Occlusion)
        assert found[-1].label == 0
        with pytest.raises(IndexError):
            found[3]

    def test_their_relevance_is_measured(self):
        found = occlusion(self.net, self.images, self.labels, size=9, stride=5)
        curves, expected = (
            faithfulness(self.net, self.images, self.labels, maps, patch=9, fill="noise").curves["deletion"]
            for maps in (found, [one.relevance() for one in found])
        )
        np.testing.assert_array_equal(curves, expected)

    def test_saved_and_plotted(self, tmp_path):
        found = occlusion(self.net, noise((10, *self.net.input_shape)), [0] * 10, size=9, stride=17, fill="blur")
        found.save(tmp_path / "o.json")
        saved = json.loads((tmp_path / "o.json").read_text())["of_images"]
        assert [one["fill"] for one in saved] == ["blur"] * 10
        np.testing.assert_allclose(saved[9]["probability"], found[9].probability)
        assert len(found[:2].plot().axes) == 12
        assert len(found.plot().axes) == 8 * 6  # of the first eight

    def test_interrupted(self):
        images = self.images

        class Source:
            image_shape = images.shape[1:]

            def __len__(self):
                return 3

            def read(self, indices):
                if indices[0] == 2:
                    raise KeyboardInterrupt
                return images[indices]

        with pytest.raises(Interrupted, match="2 of 3 images occluded") as stop:
            occlusion(self.net, Source(), self.labels, size=9, stride=9)
        assert isinstance(stop.value.result, Occlusions)
        assert [one.label for one in stop.value.result] == [1, 3]

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"label": [1, 3]}, ValueError, "images and labels must be as many: 3, 2"),
            ({"label": []}, ValueError, "images and labels must be as many: 3, 0"),
            ({"label": [1, 3, 4]}, ValueError, r"labels must be in \[0, 4\), got 1 to 4"),
            ({"label": [1.0, 3.0, 0.0]}, TypeError, r"labels must be class numbers \(N,\), got float64"),
            ({"label": [[1, 3], [1, 3], [1, 3]]}, TypeError, "labels must be class numbers"),
            ({"label": 1}, ValueError, r"image must have the net's input shape \(29, 26, 3\), got \(3, 29, 26, 3\)"),
            ({"image": images[0]}, ValueError, r"images must have shape \(N,H,W,C\), got \(29, 26, 3\)"),
            ({"image": images.astype(np.float64)}, TypeError, "images must be float32"),
            ({"image": images[:, 1:]}, ValueError, "images must have the net's input shape"),
            ({"image": images[:0], "label": []}, ValueError, "images is empty"),
            ({"size": 30}, ValueError, "size must be at most the image's 29 x 26, got 30"),
            ({"size": (3, 27)}, ValueError, "size must be at most the image's 29 x 26, got 3 x 27"),
            ({"fill": "grey"}, ValueError, "fill must be a number or one of mean, blur, noise; got 'grey'"),
        ],
    )
    def test_arguments(self, change, error, message):
        arguments = {"image": self.images, "label": self.labels, "size": 4, "stride": 9, **change}
        with pytest.raises(error, match=message):
            occlusion(self.net, **arguments)


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


@pytest.mark.parametrize(
    ("size", "stride", "grid"),
    [
        (4, 99, (1, 1)),
        (4, (24, 32), (1, 1)),
        (4, (12, 31), (2, 2)),
        ((4, 5), (6, 9), (4, 4)),
        (4, 5, (5, 7)),
        ((20, 30), 4, (2, 2)),
        ((24, 32), 9, (1, 1)),
    ],
)
def test_every_square_covers_a_pixel(size, stride, grid):
    net = flat_net((24, 32, 1))
    result = occlusion(net, noise(net.input_shape), 0, size=size, stride=stride)
    assert result.probability.shape == grid
    windows = [result.window(row, column) for row in range(grid[0]) for column in range(grid[1])]
    for top, left, height, width in windows:
        assert height >= 1
        assert width >= 1
        assert top + height <= 24
        assert left + width <= 32
    for position in ((grid[0], 0), (0, grid[1]), (-1, 0)):
        with pytest.raises(IndexError, match=f"{grid[0]} x {grid[1]} positions"):
            result.window(*position)


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


def test_outputs_of_a_net_without_a_softmax_are_not_called_probabilities():
    net = box_net((5, 9, 4, 3))
    image = np.ones((16, 16, 1), np.float32)
    with_softmax = occlusion(net, image, 1, size=2, stride=3)
    net.head = "none"
    result = occlusion(net, image, 1, size=2, stride=3)
    assert (with_softmax.followed, result.followed) == ("probability", "output")
    assert result.baseline == net.forward(image[None]).output[0, 1] > 1
    assert result.lowest() == with_softmax.lowest()
    assert result.plot().axes[0].get_title() == "output of class 1"


def test_results_are_saved_and_plotted(tmp_path):
    net = pattern_net()
    result = occlusion(net, with_pattern(0, 4, 4), 0, size=4, stride=4)
    result.save(tmp_path / "o.json")
    saved = json.loads((tmp_path / "o.json").read_text())
    assert np.allclose(saved["probability"], result.probability)
    assert saved["label"] == 0
    assert len(result.plot().axes) == 6  # three panels and their scales


def test_maps_of_one_row_fill_their_panels():
    net = signal_net()
    result = occlusion(net, noise(net.input_shape), 1, size=9, stride=4)
    assert result.probability.shape == (1, 15)
    assert [axis.get_aspect() for axis in result.plot().axes[::2]] == ["auto"] * 3


def flat_net(shape):
    """What takes images of any shape."""
    return Network(Architecture(shape, (ConvSpec("conv1", 2, 1), FullyConnectedSpec("fc2", 2))))


@pytest.mark.parametrize(
    ("shape", "square"),
    [
        ((40, 64, 1), ((10, 10), (2, 2))),
        ((3, 2, 1), ((2, 2), (1, 1))),
        ((1, 16, 2), ((1, 4), (1, 1))),
        ((1, 200, 2), ((1, 50), (1, 12))),
        ((16, 1, 2), ((4, 1), (1, 1))),
        ((1, 1, 3), ((1, 1), (1, 1))),
    ],
)
def test_the_square_fits_into_images_of_any_size(shape, square):
    net = flat_net(shape)
    size, stride = square_of(net)
    assert (size, stride) == square
    result = occlusion(net, noise(shape), 0, size=size, stride=stride)
    assert (result.size, result.stride) == square


@pytest.mark.parametrize(
    ("shape", "size", "stride", "square"),
    [
        ((1, 30, 2), 7, 3, ((1, 7), (1, 3))),
        ((1, 30, 2), 30, 40, ((1, 30), (1, 30))),
        ((1, 30, 2), (1, 7), (5, 3), ((1, 7), (5, 3))),
        ((4, 9, 1), 6, 2, ((4, 6), (2, 2))),
        ((4, 9, 1), (2, 9), 3, ((2, 9), (3, 3))),
        ((4, 9, 1), np.int64(3), np.int64(2), ((3, 3), (2, 2))),
    ],
)
def test_one_number_is_cut_to_the_shorter_side(shape, size, stride, square):
    net = flat_net(shape)
    image = noise(shape)
    assert square_of(net, size, stride) == square
    found = occlusion(net, image, 0, size=size, stride=stride)
    assert (found.size, found.stride) == square
    expected = full_evaluation(net, image, 0, *square, np.zeros_like(image), found.layer, found.feature_map)
    np.testing.assert_allclose(found.probability, expected[0], rtol=1e-5)


class TestErrors:
    net = pattern_net()
    image = with_pattern(0, 4, 4)

    @pytest.mark.filterwarnings("ignore:overflow")
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
            ({"fill": 1e38}, ValueError, "fill must leave activations finite, got 1e"),
            ({"fill": "grey"}, ValueError, "fill must be a number or one of mean, blur, noise; got 'grey'"),
            ({"fill": [0.0]}, TypeError, "fill must be a number or one of mean, blur, noise; got list"),
            ({"fill": "noise", "seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ],
    )
    def test_arguments(self, change, error, message):
        arguments = {"image": self.image, "label": 0, "size": 4, "stride": 4, **change}
        with pytest.raises(error, match=message):
            occlusion(self.net, **arguments)
