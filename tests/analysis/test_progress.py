"""Ctrl-C in the middle of each analysis: what it has by then is what the whole would be of the part that is done."""

import json
import re
from importlib import import_module

import numpy as np
import pytest

from tests import mpi
from zfcuda import Interrupted
from zfcuda.analysis import (
    ablation,
    correspondence,
    diagnosis,
    feature_analysis,
    invariance,
    occlusion,
    pointing,
    rank_layers,
    sanity,
    top_activations,
    visualize,
)
from zfcuda.analysis.ablation import Budget
from zfcuda.analysis.progress import Steps
from zfcuda.data import ArrayDataset, Preprocess

from .nets import box_net, deep_net, noise, pattern_net


class Interrupting:
    """A source of images; reading from it after `reads` times is when somebody presses Ctrl-C."""

    def __init__(self, images, reads):
        self._images = images
        self._left = reads
        self.image_shape = images.shape[1:]

    def __len__(self):
        return len(self._images)

    def read(self, indices):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._images[np.asarray(indices)]


def interrupted(analysis, *arguments, **options):
    """(result, message) of an analysis that Ctrl-C stops."""
    with pytest.raises(Interrupted) as stop:
        analysis(*arguments, **options)
    return stop.value.result, str(stop.value)


def stopped_in_the_first(error):
    with Steps(3) as steps:
        for _ in steps:
            raise error


class TestSteps:
    def test_ranges_cover_everything(self):
        with Steps(7, 3) as steps:
            assert [list(step) for step in steps] == [[0, 1, 2], [3, 4, 5], [6]]
        assert steps.finish("found") == "found"

    def test_what_was_found_is_raised_with_how_far_it_is(self):
        found = []
        with Steps(2000, 500, unit="images seen") as steps:
            for step in steps:
                if step[0] == 1000:
                    raise KeyboardInterrupt
                found.append(step[0])
        with pytest.raises(Interrupted, match="1,000 of 2,000 images seen") as stop:
            steps.finish(found)
        assert stop.value.result == [0, 500]

    def test_before_the_first_step_there_is_nothing(self):
        assert interrupted(stopped_in_the_first, Interrupted("what an inner loop found", "1 of 2")) == (
            None,
            "0 of 3 items",
        )

    def test_other_errors_pass(self):
        with pytest.raises(ZeroDivisionError):
            stopped_in_the_first(ZeroDivisionError())

    def test_scripts_that_know_nothing_of_it_end(self):
        assert issubclass(Interrupted, KeyboardInterrupt)

    def test_a_batch_of_none(self):
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            Steps(3, 0)


def over_ranks(n, name, out, *arguments):
    """A scenario of `on_ranks.py` to its end -> the process."""
    return mpi.run(mpi.command(n, "tests.analysis.on_ranks", name, out, *arguments))


class TestStepsOverRanks:
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_all_get_all_in_order_and_each_computes_its_share(self, n, tmp_path):
        done = over_ranks(n, "steps", tmp_path)
        assert done.returncode == 0, done.stderr
        by_rank = json.loads((tmp_path / "found.json").read_text())
        for total, of_ranks in zip((11, 2, 1, 0), zip(*by_rank, strict=True), strict=True):
            wanted = [list(range(total)[start : start + 2]) for start in range(0, total, 2)]
            assert len(of_ranks) == n
            for rank, found in enumerate(of_ranks):
                assert found["pairs"] == [[step, sum(step)] for step in wanted]
                assert found["done"] == total
                assert found["own"] == wanted[rank::n]

    @pytest.mark.parametrize(("who", "said"), [("1", "1"), ("0", "0"), ("all", r"\d")])
    def test_a_rank_that_raises_ends_all_with_one_message(self, who, said, tmp_path):
        done = over_ranks(3, "raises", tmp_path, who)
        assert done.returncode != 0
        (line,) = mpi.spoken(done)
        assert re.fullmatch(rf"zfcuda: rank {said}: \[Errno 5\] Input/output error: '/data/7.png'", line)
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("n", [2, 3])
    def test_of_equal_activations_the_first_image_has_the_strongest(self, n, tmp_path):
        done = over_ranks(n, "ranked", tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "found.json").read_text())
        assert found == [found[0]] * n
        assert all(first + 12 == second for first, second, _ in found[0])

    def test_loops_that_are_not_the_same(self, tmp_path):
        done = over_ranks(2, "other_lengths", tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "found.json").read_text())
        assert found == 2 * ["rank 1 differs from rank 0: items 9 instead of 8"]


def test_ranking():
    net, images = deep_net(), noise((40, *deep_net().input_shape))
    tops, message = interrupted(rank_layers, net, Interrupting(images, 3), ["pool1", "fc4"], k=3, batch_size=8)
    assert message == "24 of 40 images ranked"
    for layer, top in rank_layers(net, images[:24], ["pool1", "fc4"], k=3).items():
        assert (tops[layer].indices == top.indices).all()
    top, _ = interrupted(top_activations, net, Interrupting(images, 3), "pool1", k=3, batch_size=8)
    assert (top.indices == tops["pool1"].indices).all()
    assert interrupted(top_activations, net, Interrupting(images, 0), "pool1") == (None, "0 of 40 images ranked")


def test_projecting():
    net, images = deep_net(), noise((12, *deep_net().input_shape))
    top = top_activations(net, images, "pool3", k=4)
    whole = visualize(net, images, top, batch_size=5)
    view, message = interrupted(visualize, net, Interrupting(images, 2), top, batch_size=5)
    assert message == "10 of 20 winners of pool3 projected"
    first = np.unravel_index(np.argsort(view.indices, axis=None, kind="stable")[:10], view.indices.shape)
    there = view.projections.any(axis=(2, 3, 4))
    assert there[first].all()
    assert there.sum() == 10
    np.testing.assert_array_equal(view.projections[there], whole.projections[there])


def test_diagnosis():
    net, images = deep_net(), noise((20, *deep_net().input_shape))
    found, message = interrupted(diagnosis, net, Interrupting(images, 2), batch_size=4)
    assert message == "8 of 20 images measured"
    expected = diagnosis(net, images[:8])
    assert found.images == 8
    for one, other in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(one.firing, other.firing)
        np.testing.assert_allclose(one.aliased, other.aliased, rtol=0.3)  # of the first batch's images


def test_invariance():
    net, images = deep_net(), noise((4, *deep_net().input_shape))
    amounts = {"translation": [0, 2], "rotation": [0, 30, 60]}
    found, message = interrupted(invariance, net, Interrupting(images, 3), [0, 1, 2, 3], amounts=amounts)
    assert message == "3 of 4 images transformed"
    expected = invariance(net, images[:3], [0, 1, 2], amounts=amounts)
    assert found.labels == (0, 1, 2)
    for name, curves in found.curves.items():
        np.testing.assert_array_equal(curves.probability, expected.curves[name].probability)


def test_correspondence(monkeypatch):
    net, images = deep_net(), noise((3, *deep_net().input_shape))
    parts = {"here": [(2, 2, 5, 5)] * 3, "there": [(9, 9, 5, 5)] * 3}
    module, calls = import_module(correspondence.__module__), []
    between = module._between_pairs

    def stop_at_the_fourth(still, changed):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return between(still, changed)

    monkeypatch.setattr(module, "_between_pairs", stop_at_the_fourth)
    found, message = interrupted(correspondence, net, images, parts, layers=["pool3"])
    assert message == "3 of 12 masks compared"
    monkeypatch.undo()
    assert found.cell("there", "pool3") == correspondence(net, images, parts, layers=["pool3"]).cell("there", "pool3")
    assert found.parts == ["here", "there", "random"]


def test_pointing():
    images = np.random.default_rng(0).random((5, 16, 16, 1), np.float32)
    options = {"boxes": [(4, 4, 4, 4)] * 5, "size": 4, "stride": 4}
    net, labels = box_net((4, 4, 4, 4)), [1] * 5
    found, message = interrupted(pointing, net, Interrupting(images, 3), labels, **options)
    assert message == "3 of 5 images pointed at"
    np.testing.assert_array_equal(found.inside, pointing(net, images, labels, **options).inside[:3])


def test_sanity():
    net, images = deep_net(), noise((4, *deep_net().input_shape))
    found, message = interrupted(sanity, net, Interrupting(images, 3), size=9, stride=9, keep=2)
    assert message == "3 of 4 images compared"
    expected = sanity(net, images[:3], size=9, stride=9)
    assert found.randomised == expected.randomised
    np.testing.assert_array_equal(found.units, expected.units)
    for method, likeness in expected.likeness.items():
        np.testing.assert_array_equal(found.likeness[method].rank, likeness.rank)
    assert interrupted(sanity, net, Interrupting(images, 0)) == (None, "0 of 4 images compared")


def test_features():
    images, labels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), np.uint8), np.arange(12) % 2
    data = ArrayDataset(images, labels.astype(np.int32), ("a", "b"))
    net = pattern_net()
    net.preprocess = Preprocess(np.zeros((16, 16, 1), np.float32), crop=(16, 16))

    class Stopping(ArrayDataset):
        def batch(self, indices):
            if next(left) == 0:
                raise KeyboardInterrupt
            return super().batch(indices)

    left = iter([3, 2, 1, 0])  # the test images are read once a draw
    test = Stopping(images, data.labels, data.classes)
    found, message = interrupted(feature_analysis, net, data, test, per_class=[1, 2], draws=2)
    assert message == "3 of 4 draws of training images measured"
    whole = feature_analysis(net, data, data, per_class=[1, 2], draws=2)
    assert found.score("pool1", 1) == whole.score("pool1", 1)
    assert found.score("pool1", 2).deviation == 0  # of one draw


def test_ablation(monkeypatch):
    data = ArrayDataset(np.zeros((4, 16, 16, 1), np.uint8), np.arange(4, dtype=np.int32) % 3, ("a", "b", "c"))
    module, runs = import_module(ablation.__module__), []
    train = module._train

    def stop_at_the_second(*arguments):
        if runs:
            raise KeyboardInterrupt
        runs.append(train(*arguments))
        return runs[0]

    monkeypatch.setattr(module, "_train", stop_at_the_second)
    variants = dict.fromkeys(("one", "two"), pattern_net().architecture)
    found, message = interrupted(ablation, variants, data, data, budget=Budget(1, batch_size=2), progress=False)
    assert message == "1 of 2 runs finished"
    assert list(found.runs) == runs


def test_one_occlusion_is_whole_or_nothing():
    """Maps with holes are no maps: the image is the step of those who occlude several."""
    net = box_net((4, 4, 4, 4))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        occlusion(net, np.zeros((16, 16, 1), np.float32), 1, size=4, stride=4, batch_size=0)
