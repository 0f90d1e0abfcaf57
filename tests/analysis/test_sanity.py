import io
import itertools
import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from zfcuda.analysis import occlusion, randomised, sanity
from zfcuda.analysis.geometry import field_of
from zfcuda.analysis.sanity import METHODS, Likeness, Sanity
from zfcuda.data import sample
from zfcuda.nn import Network
from zfcuda.nn.architecture import AddSpec, Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import RULES
from zfcuda.training import evaluate

from .nets import clothes_net, deep_net, noise


@pytest.fixture(scope="module")
def found():
    """The check of a trained net."""
    net, images = clothes_net()
    return sanity(net, sample(images, 30), stride=3, keep=2)


def bits(net):
    return {name: array.tobytes() for name, array in net.parameters().items()}


class TestATrainedNet:
    def test_a_net_with_a_random_upper_half_is_told_from_it(self, found):
        """Where the weights matter nothing is left of the map, and the net itself knows nothing any more."""
        net, images = clothes_net()
        upper = found.randomised[: found.half]
        assert upper == ("fc5", "fc4", "conv3")
        assert evaluate(net, images).top1 > 0.6
        assert evaluate(randomised(net, upper), images).top1 < 0.3
        for method in ("gradient", "occlusion"):
            rank = found.likeness[method].mean("rank")
            assert rank[0] == pytest.approx(1)
            assert abs(rank[found.half]) < 0.2
            assert found.likeness[method].mean("structure")[found.half] < 0.25

    def test_guided_projections_hardly_notice(self, found):
        assert found.likeness["guided"].mean("rank")[found.half] > 0.6
        assert found.verdict("guided") == "hardly"
        assert 'by the rule "guided" hardly depend' in found.sentence("guided")
        assert found.kept("guided") > found.kept("deconvnet")

    def test_the_net_stays_as_it_is(self, found):
        net, images = clothes_net()
        before = bits(net)
        sanity(net, images.batch(range(1))[0] / np.float32(255), methods=RULES)
        assert bits(net) == before

    def test_the_same_seed_gives_the_same(self, found):
        net, images = clothes_net()
        again, other = (sanity(net, sample(images, 30), methods=["gradient"], seed=seed) for seed in (0, 1))
        np.testing.assert_array_equal(again.likeness["gradient"].rank, found.likeness["gradient"].rank)
        assert (other.likeness["gradient"].rank[:, 1:] != found.likeness["gradient"].rank[:, 1:]).any()

    def test_chart(self, found):
        figure = found.plot()
        assert [axis.get_title() for axis in figure.axes] == [
            "rank correlation", "rank correlation without signs", "structural similarity",
        ]  # fmt: skip
        labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
        assert labels == ["nothing", "fc5", "fc4", "conv3", "conv2", "conv1"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(METHODS)

    def test_results_are_saved(self, found, tmp_path):
        found.save(tmp_path / "s.json")
        saved = json.loads((tmp_path / "s.json").read_text())
        assert saved["randomised"] == ["fc5", "fc4", "conv3", "conv2", "conv1"]
        assert saved["verdicts"]["guided"] == "hardly"
        assert saved["sentences"]["gradient"] == found.sentence("gradient")
        assert np.shape(saved["likeness"]["deconvnet"]["rank"]) == (30, 6)
        assert saved["means"]["occlusion"]["rank"][3] == found.likeness["occlusion"].mean("rank")[3]
        assert "maps" not in saved


class TestByHand:
    """Everything once more, with the public functions of the package."""

    net = deep_net()
    images = noise((2, *net.input_shape))

    def test_classes(self):
        result = sanity(self.net, self.images, size=9, stride=7, seed=5)
        assert result.layer == "fc5"
        assert result.randomised == ("fc5", "fc4", "conv3", "conv2", "conv1")
        assert [len(result.maps[m]) for m in METHODS] == [2] * 4
        trace = self.net.forward(self.images)
        assert result.labels.tolist() == result.units[:, 0].tolist() == trace.output.argmax(axis=1).tolist()
        for count in range(6):
            net = randomised(self.net, result.randomised[:count], seed=5)
            other = net.forward(self.images)
            one_hot = np.eye(4, dtype=np.float32)[result.labels]
            for rule in RULES:
                maps = [n.project(t, "fc5", one_hot, rule=rule) for n, t in ((self.net, trace), (net, other))]
                self.agrees(result, rule, count, *maps)
            for index, (image, label) in enumerate(zip(self.images, result.labels, strict=True)):
                covered = occlusion(net, image, int(label), size=9, stride=7)
                fall = result.maps["occlusion"][index][count]
                np.testing.assert_array_equal(fall, covered.baseline - covered.probability)

    def test_a_layer_below_is_compared_within_the_window_of_its_strongest_unit(self):
        result = sanity(self.net, self.images, layer="relu3", methods=RULES, seed=5)
        assert result.randomised == ("conv3", "conv2", "conv1")
        trace = self.net.forward(self.images)
        activations = np.zeros_like(trace["relu3"])
        for index, (feature_map, row, column) in enumerate(result.units):
            assert trace["relu3"][index, row, column, feature_map] == trace["relu3"][index].max()
            assert tuple(result.windows[index]) == field_of(self.net, "relu3").window(row, column)
            activations[index, row, column, feature_map] = 1
        for count in range(4):
            net = randomised(self.net, result.randomised[:count], seed=5)
            for rule in RULES:
                nets = ((self.net, trace), (net, net.forward(self.images)))
                maps = [n.project(t, "relu3", activations, rule=rule) for n, t in nets]
                cut = [[m[top : top + h, left : left + w] for m, (top, left, h, w) in zip(both, result.windows)]  # noqa: B905
                       for both in maps]  # fmt: skip
                self.agrees(result, rule, count, *cut)

    def agrees(self, result, rule, count, intact, other):
        likeness = result.likeness[rule]
        for index, (a, b) in enumerate(zip(intact, other, strict=True)):
            np.testing.assert_allclose(result.maps[rule][index][count], b, rtol=1e-4, atol=1e-6 * np.abs(b).max())
            if not b.any():
                assert np.isnan(likeness.rank[index, count])
                continue
            assert likeness.rank[index, count] == pytest.approx(spearmanr(a.ravel(), b.ravel())[0], abs=1e-3)
            places = [np.abs(m).sum(axis=-1).ravel() for m in (a, b)]
            assert likeness.places[index, count] == pytest.approx(spearmanr(*places)[0], abs=1e-3)

    def test_of_few_images_the_maps_are_kept(self):
        result = sanity(self.net, self.images, methods=["guided"], keep=1)
        assert [one.shape for one in result.maps["guided"]] == [(6, *self.net.input_shape)]
        assert sanity(self.net, self.images, methods=["guided"], keep=0).maps == {"guided": []}

    def test_where_projections_are_captured(self, gpu):
        options = {"methods": RULES, "layer": "pool3"}
        result, again = (sanity(net, self.images, **options) for net in (deep_net().to("cuda"), deep_net()))
        for rule in RULES:
            for maps, expected in zip(result.maps[rule], again.maps[rule], strict=True):
                np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())

    def test_on_every_backend(self, device):
        net = device.place(deep_net((12, 11, 3)))
        image = noise((1, *net.input_shape))
        result = sanity(net, device.array(image), layer="pool3", size=6, stride=6)
        assert result.randomised == ("conv3", "conv2", "conv1")
        for method in METHODS:
            assert result.likeness[method].rank[0, 0] == pytest.approx(1)
        again = sanity(deep_net((12, 11, 3)), image, layer="pool3", size=6, stride=6)
        np.testing.assert_allclose(result.maps["deconvnet"][0], again.maps["deconvnet"][0], rtol=1e-3, atol=1e-5)


def test_branches_that_do_not_lead_to_the_unit_stay_as_they_are():
    """Beside the shortcut are two convolutions; random or not, they change nothing of what it projects."""
    layers = (
        ConvSpec("stem", 4, 3, padding=1),
        ConvSpec("one", 4, 3, padding=1),
        ConvSpec("two", 4, 3, padding=1),
        ConvSpec("shortcut", 4, 1, inputs=("stem",)),
        AddSpec("add", inputs=("two", "shortcut")),
        FullyConnectedSpec("fc", 3),
    )
    net = Network(Architecture((8, 8, 3), layers, initial="lecun"), seed=1)
    images = noise((2, 8, 8, 3))
    found = sanity(net, images, layer="shortcut", methods=["gradient"])
    assert found.randomised == ("shortcut", "stem")
    assert found.half == 1
    assert (found.likeness["gradient"].mean("rank")[1:] < 0.99).all()
    assert sanity(net, images, methods=["gradient"]).randomised == ("fc", "shortcut", "two", "one", "stem")


class TestRandomised:
    def test_only_the_layers_that_are_named(self):
        net = deep_net()
        other = randomised(net, ["conv2", "fc5"])
        for name, array in net.parameters().items():
            same = other.parameters()[name] is array
            assert same == (name.partition(".")[0] not in ("conv2", "fc5"))

    def test_the_size_of_the_weights_stays(self):
        net = deep_net()
        net.layers["fc4"].weight += 0.3  # a mean that is not zero counts as size
        own, random = (n.layers["fc4"] for n in (net, randomised(net, ["fc4"])))
        rms = [np.sqrt((layer.weight.astype(np.float64) ** 2).mean()) for layer in (own, random)]
        assert rms[1] == pytest.approx(rms[0], rel=0.05)
        assert abs(random.weight.mean()) < 0.1 * rms[1]
        assert (random.bias != own.bias).all()
        assert not randomised(net, ["fc5"]).layers["fc5"].bias.any()  # as it was

    def test_a_seed_does_not_give_a_net_its_first_weights_back(self):
        net = Network(deep_net().architecture, seed=0)
        other = randomised(net, ["fc4"], seed=0)
        both = (n.layers["fc4"].weight.ravel() for n in (net, other))
        assert abs(np.corrcoef(*both)[0, 1]) < 0.1

    def test_a_layer_is_random_alike_whatever_else_is(self):
        net = deep_net()
        one, two = randomised(net, ["fc4"], seed=3), randomised(net, ["conv1", "fc4"], seed=3)
        np.testing.assert_array_equal(one.layers["fc4"].weight, two.layers["fc4"].weight)
        other = randomised(net, ["fc4"], seed=4)
        assert (one.layers["fc4"].weight != other.layers["fc4"].weight).any()

    def test_everything_else_is_the_nets(self):
        net = deep_net()
        net.precision = "bf16"
        net.classes = ("a", "b", "c", "d")
        other = randomised(net, ["fc4"])
        assert (other.precision, other.classes, other.preprocess) == ("bf16", net.classes, None)

    @pytest.mark.parametrize(
        ("arguments", "message"), [((["fc4"], -1), "seed must be at least 0"), ((["fc9"],), "layer must be one of")]
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            randomised(deep_net(), *arguments)


class TestConstantMaps:
    def dead(self):
        """No unit of conv3 ever fires, so that nothing but the deconvnet's signal reaches the pixels."""
        net = deep_net()
        net.layers["conv3"].bias = np.full_like(net.layers["conv3"].bias, -1e3)
        return net

    @pytest.mark.filterwarnings("error")
    def test_cannot_be_judged(self, tmp_path):
        net = self.dead()
        result = sanity(net, noise((3, *net.input_shape)), size=9, stride=9)
        assert result.likeness["gradient"].constant.tolist() == [3] * 6
        assert result.verdict("gradient") == result.verdict("occlusion") == ""
        assert np.isnan(result.kept("guided"))
        assert result.sentence("gradient") == (
            'Projections by the rule "gradient" cannot be judged: as they are or with random weights in fc5, fc4, '
            "conv3, they are constant."
        )
        assert result.verdict("deconvnet") != ""
        result.plot().savefig(tmp_path / "s.png")
        result.save(tmp_path / "s.json")
        saved = json.loads((tmp_path / "s.json").read_text())
        assert saved["kept"]["gradient"] is None
        assert saved["constant"]["gradient"] == [3] * 6

    def test_are_left_out_of_means(self):
        rank = np.array([[1.0, 0.4], [1.0, np.nan], [1.0, 0.2]])
        likeness = Likeness(rank, rank, rank)
        assert likeness.mean("rank").tolist() == pytest.approx([1, 0.3])
        assert likeness.deviation("rank").tolist() == pytest.approx([0, 0.1])
        assert likeness.constant.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rank", "places", "verdict", "words"),
    [
        (0.9, 0.1, "hardly", "hardly depend on what the net has learned: with random weights in fc2, they stay"),
        (-0.001, 0.7, "hardly", "(rank correlation 0.00, without signs 0.70; 1 is the same, 0 unrelated)."),
        (0.0, 0.4, "in part", "depend in part on what the net has learned"),
        (-0.9, 0.1, "depend", "depend on what the net has learned: with random weights in fc2, little of them is left"),
    ],
)
def test_sentences(rank, places, verdict, words):
    likeness = Likeness(*(np.array([[1.0, value, 0.0]]) for value in (rank, places, 0.0)))
    empty = np.zeros((1, 0), np.int32)
    result = Sanity("fc2", empty, empty, empty, ("fc2", "conv1"), 0, {"occlusion": likeness}, {})
    assert result.verdict("occlusion") == verdict
    assert result.sentence("occlusion").startswith("Occlusion maps ")
    assert words in result.sentence("occlusion")


class TestErrors:
    images = noise((1, *deep_net().input_shape))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layer": "fc9"}, "layer must be one of conv1"),
            ({"methods": ["saliency"]}, "methods must be one or more of deconvnet, .*; got saliency"),
            ({"methods": []}, "methods must be one or more of .*; got none"),
            ({"keep": -1}, "keep must be at least 0, got -1"),
            ({"seed": -1}, "seed must be at least 0, got -1"),
            ({"size": 40}, "size must be at most the image's 29 x 26"),
            ({"size": 0}, "size must be at least 1, got 0"),
            ({"size": 9, "stride": -1}, "stride must be at least 1"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            sanity(deep_net(), self.images, **options)

    def test_images(self):
        net = deep_net()
        with pytest.raises(ValueError, match="images is empty"):
            sanity(net, self.images[:0])
        with pytest.raises(ValueError, match="image 1 has values that are not finite"):
            sanity(net, np.concatenate([self.images, self.images * np.nan]))
        with pytest.raises(TypeError, match="images must be float32"):
            sanity(net, self.images.astype(np.float64))

    def test_no_weights_below(self):
        net = Network(Architecture((8, 8, 1), (MaxPoolSpec("pool1", 2, 2), ConvSpec("conv2", 1, 3), ReLUSpec("relu2"))))
        with pytest.raises(ValueError, match="layer must have weights in it or below it, got 'pool1'"):
            sanity(net, noise((1, 8, 8, 1)), layer="pool1")

    def test_occlusion_needs_maps(self):
        net = Network(Architecture((8, 8, 1), (FullyConnectedSpec("fc1", 4), ReLUSpec("relu1"))))
        assert not np.isnan(sanity(net, noise((1, 8, 8, 1)), methods=["deconvnet"]).kept("deconvnet"))
        with pytest.raises(ValueError, match="no layer with feature maps"):
            sanity(net, noise((1, 8, 8, 1)), methods=["occlusion"])

    def test_weights_that_are_not_finite(self):
        net = deep_net()
        net.layers["conv2"].weight[0, 0, 0, 0] = np.nan
        with pytest.raises(ValueError, match=r"the network's conv2\.weight has values that are not finite"):
            sanity(net, self.images)

    @pytest.mark.filterwarnings("ignore:overflow")
    @pytest.mark.parametrize(("layer", "named"), [("pool3", "output"), ("fc5", "fc5"), ("fc4", "fc4")])
    def test_activations_that_are_not_finite(self, layer, named):
        net = deep_net()
        net.layers["fc4"].weight[...] = 3e38
        with pytest.raises(ValueError, match=f"layer '{named}' has activations that are not finite for image 0"):
            sanity(net, self.images, layer=layer)


@pytest.mark.parametrize("count", [3, 40, 107])
def test_names_of_many_layers_do_not_overlap_in_a_plot(count):
    names = tuple(f"layer{number // 9}.{number}.downsample.0" for number in range(count))
    likeness = {method: Likeness(*np.random.default_rng(0).random((3, 4, count + 1))) for method in METHODS}
    none = np.zeros(4, np.int64)
    figure = Sanity("l", none, np.zeros((4, 4), np.int64), none, names, 0, likeness, {}).plot()
    figure.savefig(io.BytesIO())
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.get_xticklabels()]
        assert len(boxes) in range(min(count, 12), 26)
        assert all(one.x1 <= other.x0 for one, other in itertools.pairwise(boxes))
        assert min(box.y0 for box in boxes) > 0
        assert axis.get_window_extent().height > 0.4 * figure.bbox.height
    text = figure.axes[0].yaxis.label.get_window_extent()
    assert text.y0 >= 0
    assert text.y1 <= figure.bbox.height
