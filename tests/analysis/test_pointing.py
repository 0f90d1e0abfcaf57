import json

import numpy as np
import pytest

from zfcuda.analysis.occlusion import occlusion
from zfcuda.analysis.pointing import Cluttered, pointing, too_small
from zfcuda.data import ArrayDataset
from zfcuda.report.sections.pointing import pointing_section

from .nets import box_net


def dataset(count=12, side=6):
    images = np.random.default_rng(0).integers(1, 256, (count, side, side, 1), np.uint8)
    return ArrayDataset(images, (np.arange(count) % 3).astype(np.int32), ("a", "b", "c"))


def test_a_net_that_looks_at_the_box_points_there_and_one_that_looks_elsewhere_does_not():
    images = np.ones((2, 16, 16, 1), np.float32)
    net = box_net((5, 9, 4, 3))
    result = pointing(net, images, [1, 1], [(5, 9, 4, 3), (0, 0, 4, 3)], size=2, stride=1)
    assert result.hits.tolist() == [True, False]
    assert result.rate == 0.5
    assert result.right.tolist() == [bool(net.predict(images[:1])[0].argmax() == 1)] * 2
    assert result.inside[0] > 10 * abs(result.outside[0])
    assert result.inside[1] == pytest.approx(0, abs=1e-6)
    assert result.chance == pytest.approx(12 / 15**2, rel=0.5)


def test_the_fill_is_that_of_occlusion():
    net, image = box_net((5, 9, 4, 3)), np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    boxes, square = [(5, 9, 4, 3)], {"size": 4, "stride": 3}
    for options in ({"fill": "mean"}, {"fill": "blur"}, {"fill": "noise", "seed": 0}, {"fill": "noise", "seed": 1}):
        alone = occlusion(net, image[0], 1, **square, **options)
        rows, columns = np.indices(alone.probability.shape) * 3 + 2
        within = (rows >= 5) & (rows < 9) & (columns >= 9) & (columns < 12)
        found = pointing(net, image, [1], boxes, **square, **options)
        assert found.inside[0] == pytest.approx((alone.baseline - alone.probability[within]).mean(), rel=1e-5)


def test_objects_stand_whole_in_their_boxes():
    data = dataset()
    canvases = Cluttered(data, 15, seed=3)
    images, labels = canvases.batch([7, 2])
    assert images.shape == (2, 15, 15, 1)
    assert labels.tolist() == data.labels[[7, 2]].tolist()
    for image, index in zip(images, (7, 2), strict=True):
        top, left, height, width = canvases.boxes[index]
        assert (image[top : top + height, left : left + width] == data.images[index]).all()
        outside = image.copy()
        outside[top : top + height, left : left + width] = 0
        assert (outside > 0).sum() > 10  # clutter


def test_canvases_do_not_depend_on_the_order_of_reading():
    canvases = Cluttered(dataset(), 15)
    together, alone = canvases.batch(range(12))[0], canvases.batch([5])[0]
    assert (together[5] == alone[0]).all()
    assert (Cluttered(dataset(), 15).batch([5])[0] == alone).all()
    assert (Cluttered(dataset(), 15, seed=1).batch([5])[0] != alone).any()


def test_results_are_saved(tmp_path):
    result = pointing(box_net((5, 9, 4, 3)), np.ones((1, 16, 16, 1), np.float32), [1], [(5, 9, 4, 3)], size=4, stride=4)
    result.save(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["rate"] == result.rate


def test_signals_have_no_canvas():
    signals = ArrayDataset(np.zeros((2, 1, 40, 3), np.uint8), np.zeros(2, np.int32), ("a", "b"))
    with pytest.raises(ValueError, match="cluttered canvas is for images, not for signals of 1 x 40 x 3"):
        Cluttered(signals, 64)


def test_arguments():
    with pytest.raises(ValueError, match="canvas must be larger"):
        Cluttered(dataset(), 6)
    with pytest.raises(ValueError, match="as many"):
        pointing(box_net((5, 9, 4, 3)), np.ones((1, 16, 16, 1), np.float32), [1, 1], [(0, 0, 1, 1)], size=4, stride=4)
    for labels, error in (([0.9], TypeError), (["1"], TypeError), ([True], TypeError), ([2], ValueError)):
        with pytest.raises(error, match="labels must be"):
            pointing(
                box_net((5, 9, 4, 3)), np.ones((1, 16, 16, 1), np.float32), labels, [(5, 9, 4, 3)], size=4, stride=4
            )


def test_a_box_in_which_no_square_has_its_centre_is_no_miss():
    net, images = box_net((5, 9, 4, 3)), np.ones((2, 16, 16, 1), np.float32)
    with pytest.raises(ValueError, match=r"box 1 is so small that no rectangle of 4 x 4 pixels .*\(3, 3, 2, 9\)"):
        pointing(net, images, [1, 1], [(5, 9, 4, 3), (3, 3, 2, 9)], size=4, stride=4)
    boxes = np.array([(5, 9, 4, 3), (3, 3, 2, 9), (2, 2, 1, 1), (2, 2, 0, 0)])
    assert too_small(boxes, (16, 16, 1), ((4, 4), (4, 4))).tolist() == [False, True, False, True]
    assert too_small(boxes, (16, 16, 1), ((2, 4), (1, 4))).tolist() == [False, False, False, True]


def test_squares_with_two_sides():
    net, image = box_net((5, 9, 4, 3)), np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    alone = occlusion(net, image[0], 1, size=(2, 6), stride=(1, 3))
    rows, columns = np.indices(alone.probability.shape)
    down, across = rows + 1, 3 * columns + 3
    within = (down >= 5) & (down < 9) & (across >= 9) & (across < 12)
    found = pointing(net, image, [1], [(5, 9, 4, 3)], size=(2, 6), stride=(1, 3))
    assert found.inside[0] == pytest.approx((alone.baseline - alone.probability[within]).mean(), rel=1e-5)
    assert found.chance == within.mean()
    with pytest.raises(ValueError, match="size must be at most the image's 16 x 16, got 17"):
        pointing(net, image, [1], [(5, 9, 4, 3)], size=17, stride=1)


def test_a_box_that_is_the_image_leaves_nothing_outside():
    net, images = box_net((5, 9, 4, 3)), np.ones((2, 16, 16, 1), np.float32)
    result = pointing(net, images, [1, 1], [(0, 0, 16, 16), (5, 9, 4, 3)], size=4, stride=4)
    assert np.isnan(result.outside).tolist() == [True, False]
    assert np.isfinite(result.inside).all()
    shown = dict(pointing_section(result).parts[0].facts)
    assert shown["mean fall, rest covered"] == f"{100 * result.outside[1]:.1f} points"
    alone = pointing(net, images[:1], [1], [(0, 0, 16, 16)], size=4, stride=4)
    assert dict(pointing_section(alone).parts[0].facts)["mean fall, rest covered"] == "-"


@pytest.mark.parametrize("box", [(0.9, 0, 4, 4), (13, 0, 4, 4), (-1, 0, 4, 4), (4, 4, -4, 4), (0, 0, 0, 1), (0, 0, 4)])
def test_boxes_that_are_none(box):
    images = np.ones((2, 16, 16, 1), np.float32)
    with pytest.raises(ValueError, match=r"box 1 must (be|lie in the image of 16 x 16)"):
        pointing(box_net((5, 9, 4, 3)), images, [1, 1], [(0, 0, 1, 1), box], size=4, stride=4)
