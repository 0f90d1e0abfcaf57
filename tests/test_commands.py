"""Parts of the commands that the commands' own tests do not pin down."""

from argparse import Namespace

import numpy as np
import pytest

from zfcuda import analysis
from zfcuda.analysis.results import to_plain
from zfcuda.commands.common import output
from zfcuda.commands.correspond import _mapped
from zfcuda.data import ArrayDataset, Preprocess
from zfcuda.data.images import decode
from zfcuda.report import Report
from zfcuda.report.sections.visualization import add_visualization
from zfcuda.report.shown import seen

from .analysis.nets import deep_net


def test_a_directory_for_a_report(tmp_path):
    assert output(Namespace(out=tmp_path / "new" / "deep")).is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="not a directory"):
            output(Namespace(out=path))


def test_boxes_follow_the_images_pixels(tmp_path):
    """A white rectangle in a file is where its mapped box says, in what the network sees."""
    from PIL import Image

    preprocess = Preprocess(np.zeros((60, 60, 3), np.float32), crop=(48, 48))
    for height, width in ((120, 200), (200, 120), (60, 60), (31, 45)):
        box = [height // 3, width // 3, height // 4, width // 5]
        picture = np.zeros((height, width, 3), np.uint8)
        picture[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 255
        path = tmp_path / "x.png"
        Image.fromarray(picture).save(path)
        image = seen(decode(path.read_bytes(), "x", preprocess.image_shape)[None], preprocess)[0]
        window = _mapped("x", box, (height, width), preprocess)
        bright = np.argwhere(image[..., 0] > 127)
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        edges = (window.top, window.left, window.top + window.height, window.left + window.width)
        assert edges == pytest.approx((top, left, bottom, right), abs=1)


REPEATED = {
    "correspondence": lambda net, images, layers: analysis.correspondence(
        net, images, {"part": [(3, 3, 4, 4)] * len(images)}, layers=layers, random_draws=2
    ).numbers(),
    "invariance": lambda net, images, layers: analysis.invariance(
        net, images, [0, 1, 2], amounts={"translation": [2]}, layers=layers
    ).numbers(),
    "features": lambda net, images, layers: analysis.feature_analysis(
        net, *[described(images)] * 2, layers=layers, per_class=[1], draws=1
    ).numbers(),
}


def described(images):
    """A data set of images as the net takes them."""
    return ArrayDataset(images, np.arange(len(images), dtype=np.int32), ("a", "b", "c"))


@pytest.mark.parametrize("name", REPEATED)
def test_a_layer_that_is_named_twice_counts_once(name):
    net, raw = deep_net(), np.random.default_rng(0).integers(0, 256, (3, 29, 26, 3), np.uint8)
    net.preprocess = Preprocess(np.full((29, 26, 3), 128, np.float32), (29, 26), 1 / 64)
    images = raw if name == "features" else net.preprocess(raw)
    once, twice = (to_plain(REPEATED[name](net, images, layers)) for layers in (["fc4"], ["fc4", "fc4"]))
    assert once == twice


def test_visualize_shows_a_layer_once():
    report = Report("Maps")
    net, raw = deep_net(), np.random.default_rng(0).integers(0, 256, (3, 29, 26, 3), np.uint8)
    net.preprocess = Preprocess(np.full((29, 26, 3), 128, np.float32), (29, 26), 1 / 64)
    add_visualization(report, net, described(raw), layers=["conv1", "conv3", "conv1"], maps=2, k=1, progress=False)
    assert [section.title for section in report.sections] == ["The network", "conv1", "conv3"]
