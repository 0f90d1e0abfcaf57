import itertools
import json

import numpy as np
import pytest

from zfcuda.analysis.correspondence import RANDOM, correspondence
from zfcuda.nn import Architecture, AvgPoolSpec, ConvSpec, Network

from .nets import deep_net, noise, pattern_net, with_pattern
from .test_invariance import invariant_net

PLACES = [(2, 3), (9, 8), (5, 11), (11, 1)]
OTHERS = [[(8, 2), (4, 10)], [(2, 2), (2, 9)], [(11, 2), (11, 8)], [(2, 3), (5, 10)]]


def faces():
    """Images of one part, and two other patterns, all at different places."""
    return np.stack(
        [
            np.maximum.reduce([with_pattern(which, *place) for which, place in enumerate([part, *others])])
            for part, others in zip(PLACES, OTHERS, strict=True)
        ]
    )


def test_a_net_that_knows_the_part_is_consistent_about_it():
    """P9's meaning: masking the pattern changes the same features in every image; random masks do not."""
    net = invariant_net()
    boxes = [(*place, 3, 3) for place in PLACES]
    result = correspondence(net, faces(), {"plus": boxes}, layers=["pool1"], random_draws=20)
    part, control = result.cell("plus", "pool1"), result.cell(RANDOM, "pool1")
    assert part.mean == 0
    assert control.mean > 0.05


def test_what_a_net_does_not_see_changes_nothing():
    net = pattern_net()
    images = np.stack([with_pattern(0, 8, 8)] * 3)
    result = correspondence(net, images, {"corner": [(0, 0, 3, 3)] * 3}, layers=["pool1"], random_draws=0)
    assert result.cell("corner", "pool1").mean == 0
    assert result.parts == ["corner"]


def test_the_measure_is_the_mean_hamming_distance_of_signs_over_pairs():
    net = deep_net()
    images = noise((4, *net.input_shape))
    boxes = [(3, 4, 6, 5), (0, 0, 8, 8), (10, 10, 5, 9), (20, 15, 9, 11)]
    result = correspondence(net, images, {"part": boxes}, layers=["relu3", "relu4"], fill=0.25, random_draws=0)
    masked = images.copy()
    for image, (top, left, height, width) in zip(masked, boxes, strict=True):
        image[top : top + height, left : left + width] = 0.25
    for layer in ("relu3", "relu4"):
        signs = np.sign(net.forward(images)[layer] - net.forward(masked)[layer]).reshape(4, -1)
        distances = [(signs[i] != signs[j]).mean() for i, j in itertools.combinations(range(4), 2)]
        cell = result.cell("part", layer)
        assert cell.mean == pytest.approx(np.mean(distances))
        assert cell.deviation == pytest.approx(np.std(distances, ddof=1))


def test_a_mask_is_painted_with_what_the_image_gives():
    net, boxes = deep_net(), [(3, 4, 6, 5), (0, 0, 8, 8)]
    images = noise((2, *net.input_shape))
    found = correspondence(net, images, {"part": boxes}, layers=["relu3"], fill="mean", random_draws=0)
    masked = images.copy()
    for image, (top, left, height, width) in zip(masked, boxes, strict=True):
        image[top : top + height, left : left + width] = image.mean(axis=(0, 1), dtype=np.float64)
    one, other = np.sign(net.forward(images)["relu3"] - net.forward(masked)["relu3"])
    assert found.cell("part", "relu3").mean == pytest.approx((one != other).mean())


def test_the_control_repeats_with_its_seed():
    net, images = deep_net(), noise((3, *deep_net().input_shape))
    part = {"part": [(0, 0, 8, 8)] * 3}
    one, two, three = (correspondence(net, images, part, seed=seed).cells for seed in (0, 0, 1))
    assert one == two
    assert one != three
    assert [cell.part for cell in one] == ["part", "part", RANDOM, RANDOM]
    assert {cell.layer for cell in one} == {"pool3", "relu4"}


def test_a_net_without_a_hidden_block_has_its_maps():
    net = Network(Architecture((8, 8, 1), (ConvSpec("conv1", 2, 1), AvgPoolSpec("mean"))))
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 1), np.float32)
    result = correspondence(net, images, {"eye": [(0, 0, 3, 3)] * 2})
    assert result.layers == ("mean",)


def test_results_are_saved_and_plotted(tmp_path):
    net = deep_net()
    result = correspondence(net, noise((2, *net.input_shape)), {"a $b$": [(0, 0, 8, 8)] * 2})
    result.save(tmp_path / "c.json")
    assert len(json.loads((tmp_path / "c.json").read_text())["cells"]) == 4
    assert len(result.plot().axes) == 2
    with pytest.raises(KeyError, match="nose"):
        result.cell("nose", "pool3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 16, 16, 1), np.float32)}, "two or more"),
        ({"parts": {}}, "parts is empty"),
        ({"parts": {RANDOM: [(0, 0, 1, 1)] * 2}}, "must not be called 'random'"),
        ({"parts": {"eye": [(0, 0, 1, 1)]}}, "one box for each of the 2 images, got 1"),
        ({"parts": {"eye": [(0, 0, 1)] * 2}}, r"must be \(top, left, height, width\)"),
        ({"parts": {"eye": [(0, 0, 1, 17)] * 2}}, "must lie in the image of 16 x 16"),
        ({"parts": {"eye": [(-1, 0, 1, 1)] * 2}}, "must lie in the image"),
        ({"parts": {"eye": [(0, 0, 0, 1)] * 2}}, "must lie in the image"),
        ({"layers": ["pool9"]}, "layer must be one of"),
        ({"random_draws": -1}, "random_draws must be at least 0"),
        ({"fill": np.nan}, "fill must be finite"),
        ({"fill": "grey"}, "fill must be a number or one of mean, blur, noise"),
        ({"layers": []}, "layers is empty"),
    ],
)
def test_arguments(change, message):
    arguments = {"images": np.zeros((2, 16, 16, 1), np.float32), "parts": {"eye": [(0, 0, 3, 3)] * 2}, **change}
    with pytest.raises(ValueError, match=message):
        correspondence(pattern_net(), **arguments)
