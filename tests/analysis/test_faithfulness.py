import json

import numpy as np
import pytest

from zfcuda.analysis import Faithfulness, faithfulness, occlusion
from zfcuda.analysis.faithfulness import MODES
from zfcuda.errors import Interrupted

from .nets import box_net, clothes_net, deep_net, noise, signal_net
from .test_fills import FILLED

BOX = (4, 8, 4, 4)  # patches of 4: number 6 of 4 x 4


def full_evaluation(net, image, label, order, patch, target):
    """Oracle: every step goes through the whole net."""
    across = -(-image.shape[1] // patch[1])
    steps = [image]
    for number in order:
        top, left = number // across * patch[0], number % across * patch[1]
        steps.append(steps[-1].copy())
        steps[-1][top : top + patch[0], left : left + patch[1]] = target[top : top + patch[0], left : left + patch[1]]
    return net.predict(np.stack(steps))[:, label]


class TestCurves:
    @pytest.mark.parametrize("patch", [5, (9, 4), (29, 26), 2])
    @pytest.mark.parametrize("fill", FILLED)
    @pytest.mark.parametrize("batch_size", [1024, 7])
    def test_every_step_is_that_of_the_whole_image(self, patch, fill, batch_size):
        net = deep_net()
        images, labels = noise((2, *net.input_shape), 1), [2, 0]
        maps = noise((2, 29, 26), 5)
        options = {"patch": patch, "fill": fill, "orders": 2, "seed": 7, "batch_size": batch_size}
        found = faithfulness(net, images, labels, maps, **options)
        patches = found.grid[0] * found.grid[1]
        for index in range(2):
            order, image = found.orders[index], images[index]
            assert sorted(order) == list(range(patches))
            filled = FILLED[fill](image)
            steps = {
                "deletion": full_evaluation(net, image, labels[index], order, found.patch, filled),
                "insertion": full_evaluation(net, filled.astype(np.float32), labels[index], order, found.patch, image),
            }
            for mode in MODES:
                assert found.curves[mode].shape == (2, patches + 1)
                np.testing.assert_allclose(found.curves[mode][index], steps[mode], rtol=1e-5)

    def test_random_orders_are_the_same_for_every_map_and_serve_both_modes(self):
        net = deep_net()
        images = noise((2, *net.input_shape))
        arguments = {"patch": 5, "orders": 3}
        one, two, other = (
            faithfulness(net, images, [1, 1], noise((2, 29, 26), seed), **arguments, seed=s)
            for seed, s in ((1, 0), (2, 0), (2, 1))
        )
        np.testing.assert_array_equal(one.random["deletion"], two.random["deletion"])
        np.testing.assert_array_equal(one.random["insertion"], one.random["deletion"][..., ::-1])
        assert (one.random["deletion"] != other.random["deletion"]).any()
        assert (one.random["deletion"][0, 0] != one.random["deletion"][0, 1]).any()
        assert len({tuple(curve) for curve in one.random["deletion"].reshape(6, -1)}) == 6

    def test_patches_are_ranked_by_their_mean_and_ties_by_the_seed(self):
        net = box_net(BOX)
        image = np.ones((1, 16, 16, 1), np.float32)
        relevance = np.zeros((1, 16, 16))
        relevance[0, 15, 15] = 3  # of a patch of one pixel
        relevance[0, :5, 5:10] = 2
        relevance[0, 5:10, :5] = 1
        found = faithfulness(net, image, [1], relevance, patch=5)
        assert found.grid == (4, 4)
        assert found.orders[0, :3].tolist() == [15, 1, 4]
        assert found.ranks()[0, 3, 3] == 15
        assert found.ranks()[0, 0, 1] == 14
        orders = {tuple(faithfulness(net, image, [1], relevance, patch=5, seed=seed).orders[0]) for seed in range(4)}
        assert len(orders) == 4
        assert faithfulness(net, image, [1], relevance, patch=5).orders.tolist() == found.orders.tolist()


class TestANetThatLooksAtABox:
    """Class 1 is as probable as the box is bright: from 0.982 to 0.018."""

    net = box_net(BOX)
    images = np.ones((2, 16, 16, 1), np.float32)

    @pytest.mark.parametrize("kind", ["occlusion", "gradient", "own"])
    def test_the_box_comes_first_and_beats_random(self, kind):
        if kind == "occlusion":
            maps = [occlusion(self.net, image, 1, size=4, stride=2) for image in self.images]
        elif kind == "gradient":
            trace = self.net.forward(self.images)
            maps = self.net.project(trace, "fc2", np.array([[0, 1]] * 2, np.float32), rule="gradient")
        else:
            maps = np.zeros((2, 16, 16))
            maps[:, BOX[0] : BOX[0] + BOX[2], BOX[1] : BOX[1] + BOX[3]] = 1
        found = faithfulness(self.net, self.images, [1, 1], maps, patch=4, orders=5)
        assert found.orders[:, 0].tolist() == [6, 6]
        bright, dark = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))
        np.testing.assert_allclose(found.curves["deletion"], [[bright] + [dark] * 16] * 2, rtol=1e-5)
        np.testing.assert_allclose(found.curves["insertion"], [[dark] + [bright] * 16] * 2, rtol=1e-5)
        np.testing.assert_allclose(found.areas("deletion"), dark + (bright - dark) / 32, rtol=1e-5)
        for mode, sign in (("deletion", 1), ("insertion", -1)):
            better = sign * (found.random_areas(mode) - found.areas(mode)[:, None])
            assert (better >= -1e-6).all()  # one may begin with the box, too
            np.testing.assert_allclose(found.gain(mode), better.mean(axis=1))
            assert (found.gain(mode) > 0.2).all()

    def test_the_wrong_order_is_worse_than_random(self):
        maps = np.ones((2, 16, 16))
        maps[:, BOX[0] : BOX[0] + BOX[2], BOX[1] : BOX[1] + BOX[3]] = 0
        found = faithfulness(self.net, self.images, [1, 1], maps, patch=4)
        assert found.orders[:, -1].tolist() == [6, 6]
        for mode in MODES:
            assert (found.gain(mode) < 0).all()


def test_a_trained_net_loses_its_class_sooner_by_its_own_maps():
    net, images = clothes_net()
    few = net.preprocess(images.batch(range(12))[0])
    labels = net.predict(few).argmax(axis=1)
    maps = [occlusion(net, image, int(label), size=6, stride=2) for image, label in zip(few, labels, strict=True)]
    found = faithfulness(net, few, labels, maps, patch=4)
    for mode in MODES:
        assert found.gain(mode).mean() > 0.05


class TestResults:
    def test_relevance_of_an_occlusion(self):
        net = deep_net()
        result = occlusion(net, noise(net.input_shape), 1, size=6, stride=4)
        falls = np.zeros((29, 26, 2))
        for row, column in np.ndindex(result.probability.shape):
            top, left, height, width = result.window(row, column)
            falls[top : top + height, left : left + width] += [result.baseline - result.probability[row, column], 1]
        np.testing.assert_allclose(result.relevance(), falls[..., 0] / falls[..., 1])

    def test_saved_and_plotted(self, tmp_path):
        net = deep_net()
        found = faithfulness(net, noise((2, *net.input_shape)), [0, 1], noise((2, 29, 26)), patch=9)
        found.save(tmp_path / "f.json")
        saved = json.loads((tmp_path / "f.json").read_text())
        np.testing.assert_allclose(saved["areas"]["insertion"], found.areas("insertion"))
        axes = found.plot().axes
        assert [axis.get_title() for axis in axes] == list(MODES)
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in axes)

    def test_one_mode_and_no_random_orders(self):
        net = deep_net()
        images, maps = noise((1, *net.input_shape)), noise((1, 29, 26))
        both = faithfulness(net, images, [0], maps, patch=9)
        found = faithfulness(net, images, [0], maps, patch=9, modes=["insertion"], orders=0)
        assert list(found.curves) == ["insertion"]
        np.testing.assert_array_equal(found.curves["insertion"], both.curves["insertion"])
        assert found.random["insertion"].shape == (1, 0, 13)
        assert np.isnan(found.gain("insertion")).all()
        assert len(found.plot().axes) == 1

    def test_the_default_patch_is_a_sixteenth_of_the_image(self):
        net = deep_net((33, 41, 1))
        assert faithfulness(net, noise((1, 33, 41, 1)), [0], noise((1, 33, 41)), orders=0).patch == (2, 2)

    @pytest.mark.parametrize(("patch", "expected"), [(None, (1, 5)), (7, (1, 7)), ((1, 3), (1, 3)), (80, (1, 80))])
    def test_patches_of_signals(self, patch, expected):
        net = signal_net(80)
        found = faithfulness(net, noise((1, *net.input_shape)), [0], noise((1, 1, 80)), patch=patch, orders=0)
        assert found.patch == expected
        assert found.grid == (1, -(-80 // expected[1]))

    def test_interrupted(self):
        net = deep_net()
        maps = list(noise((3, 29, 26)))

        class Maps(list):
            def __getitem__(self, index):
                if index == 2:
                    raise KeyboardInterrupt
                return super().__getitem__(index)

        with pytest.raises(Interrupted, match="2 of 3 images evaluated") as stop:
            faithfulness(net, noise((3, *net.input_shape)), [0, 1, 2], Maps(maps), patch=9)
        assert isinstance(stop.value.result, Faithfulness)
        assert stop.value.result.labels.tolist() == [0, 1]
        assert stop.value.result.random["deletion"].shape == (2, 3, 13)


def test_a_fill_beyond_what_the_net_can_add():
    net, images = box_net(BOX), np.ones((1, 16, 16, 1), np.float32)
    assert faithfulness(net, images, [1], np.zeros((1, 16, 16)), patch=4, fill=1e37).areas("deletion") > 0.5
    with pytest.raises(ValueError, match=r"fill must leave activations finite, got 3e\+38"):
        faithfulness(net, images, [1], np.zeros((1, 16, 16)), patch=4, fill=3e38)


class TestErrors:
    net = deep_net()
    images = noise((2, *net.input_shape))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"labels": [0]}, ValueError, "images, labels and maps must be as many: 2, 1, 2"),
            ({"labels": [0, 4]}, ValueError, r"labels must be in \[0, 4\), got 0 to 4"),
            ({"labels": [0.0, 1.0]}, TypeError, "labels must be class numbers"),
            ({"labels": ["a", "b"]}, TypeError, "labels must be class numbers"),
            ({"maps": noise((1, 29, 26))}, ValueError, "must be as many"),
            (
                {"maps": noise((2, 28, 26))},
                ValueError,
                r"map 0 must have shape \(29, 26\) or \(29, 26, 3\), got \(28, 26\)",
            ),
            ({"maps": [noise((29, 26)), noise((29, 26)) * np.nan]}, ValueError, "map 1 has values that are not finite"),
            (
                {"maps": occlusion(net, images[::-1], [0, 1], size=9, stride=9)},
                ValueError,
                "map 0 is .* of another image",
            ),
            ({"maps": ["a", "b"]}, TypeError, "map 0 must be an Occlusion or an array of numbers, got str"),
            ({"images": images.astype(np.float64)}, TypeError, "images must be float32"),
            ({"images": images * np.float32(np.nan)}, ValueError, "image 0 has values that are not finite"),
            ({"patch": 0}, ValueError, "patch must be at least 1, got 0"),
            ({"patch": (9, 27)}, ValueError, "patch must be at most the image's 29 x 26, got 9 x 27"),
            ({"patch": 30}, ValueError, "patch must be at most the image's 29 x 26, got 30"),
            ({"patch": 2.5}, TypeError, "patch must be an int"),
            ({"modes": []}, ValueError, "modes must be one or both of deletion, insertion; got none"),
            ({"modes": ["removal"]}, ValueError, "modes must be one or both of deletion, insertion; got removal"),
            ({"fill": "grey"}, ValueError, "fill must be a number or one of mean, blur, noise; got 'grey'"),
            ({"fill": np.inf}, ValueError, "fill must be finite"),
            ({"orders": -1}, ValueError, "orders must be at least 0, got -1"),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ],
    )
    def test_arguments(self, change, error, message):
        arguments = {"images": self.images, "labels": [0, 1], "maps": noise((2, 29, 26)), "patch": 9, **change}
        with pytest.raises(error, match=message):
            faithfulness(self.net, **arguments)
