"""Pictures of signals, of one row, can be read: lines and strips instead of a pixel's height."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from tests.analysis.nets import noise, signal_net
from zfcuda import analysis
from zfcuda.analysis.deconvnet import cut
from zfcuda.analysis.geometry import Window
from zfcuda.data import ArrayDataset, Preprocess
from zfcuda.report import Explorer, Gallery, Picture, Report, Section, pictures, weight_tiles
from zfcuda.report.sections.correspondence import correspondence_section
from zfcuda.report.sections.faithfulness import add_faithfulness
from zfcuda.report.sections.filters import filters
from zfcuda.report.sections.invariance import invariance_section
from zfcuda.report.sections.occlusion import add_occlusion
from zfcuda.report.sections.sanity import _grid, add_sanity
from zfcuda.report.sections.visualization import add_visualization
from zfcuda.report.shown import Shown, channel_words, show

from .fakes import CLASSES, make_occlusion

SHAPE = (112, 224, 3)
LEAST = 20  # rows in which a picture can be read


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB"))


def line(picture):
    """Of each column the mean row of what is not white or grey; NaN at the white frame."""
    colored = np.ptp(picture.astype(int), axis=2) > 40
    assert colored[:, 3:-3].any(axis=0).all()
    assert (picture[:, [0, 1, 2, -3, -2, -1]] == 255).all()
    with np.errstate(invalid="ignore"):
        return (colored * np.arange(len(picture))[:, None]).sum(axis=0) / colored.sum(axis=0)


def dataset(count=6, length=64, channels=2, seed=0):
    signals = np.random.default_rng(seed).integers(0, 256, (count, 1, length, channels), np.uint8)
    return ArrayDataset(signals, (np.arange(count) % 3).astype(np.int32), ("a", "b", "c"))


def known_net(length=64, channels=2):
    """A net that takes the signals of `dataset`."""
    net = signal_net(length, channels)
    net.preprocess = Preprocess.by_channel((1, length), channels=channels)
    return net


def signal_report():
    """A gallery and an explorer of signals."""
    net, data = known_net(), dataset()
    report = Report("Signals")
    view = analysis.visualize(net, data, analysis.top_activations(net, data, "pool1", k=4), maps=[1, 3])
    report.add(Section("Maps", [Gallery(view, show(data, range(6), net.preprocess))]))
    add_occlusion(report, net, dataset(1), None, square=((1, 8), (1, 8)), progress=False)
    return report


@pytest.mark.parametrize("count", [7, 33, 224])
def test_a_line_goes_through_the_values(count):
    values = np.sin(np.arange(count) * 6 / count)
    for picture in (pictures.from_range(values[None, :, None]), pictures.from_projection(values[None, :, None])):
        assert picture.shape == SHAPE
        rows = line(picture)
        places = (np.arange(224) + 0.5) * count / 224 - 0.5
        inside = (places >= 0) & (places <= count - 1) & np.isfinite(rows)  # of the first and the last sample's middles
        between = np.interp(places, np.arange(count), values)
        top, bottom = np.nanmin(rows), np.nanmax(rows)
        unit = (bottom - rows) / (bottom - top)
        expected = (between - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(unit[inside], expected[inside], atol=0.06)


def test_uint8_signals_are_drawn_from_0_to_255():
    low, high = (line(pictures.from_range(np.full((1, 9, 1), value, np.uint8)))[3:-3] for value in (0, 255))
    np.testing.assert_allclose(low, 107, atol=1)
    np.testing.assert_allclose(high, 5, atol=1)


def test_projections_are_drawn_about_a_line_at_zero():
    picture = pictures.from_projection(np.array([1, 1, 1, 0, -1, -1, -1], np.float32)[None, :, None])
    assert (picture[56, 4:10] < picture[40, 4:10]).all()
    rows = line(picture)
    assert rows[80] < 20
    assert rows[144] > 92
    nothing = pictures.from_projection(np.zeros((1, 9, 2), np.float32))
    assert np.ptp(line(nothing)[3:-3]) < 1


def test_each_channel_has_a_line_of_its_own_colour():
    levels = np.linspace(0, 255, 6).astype(np.uint8)
    picture = pictures.from_range(np.broadcast_to(levels, (1, 20, 6)))
    middle = picture[:, 112].astype(int)
    colored = np.flatnonzero(np.ptp(middle, axis=1) > 40)
    assert len(np.split(colored, np.flatnonzero(np.diff(colored) > 1) + 1)) >= 5  # one of them is grey
    assert len({tuple(color) for color in middle[colored].tolist()}) >= 5


def test_many_channels_are_bands():
    values = np.zeros((1, 50, 7), np.uint8)
    values[0, 25:, 3] = 255
    picture = pictures.from_range(values)
    assert picture.shape == SHAPE
    assert (picture[52:60, 120:] > 250).all()
    assert (picture[:44] < 5).all()
    assert (picture[52:60, :104] < 5).all()


@pytest.mark.parametrize("count", [2, 5_000, 200_000])
def test_signals_of_any_length(count):
    values = np.zeros((1, count, 1), np.float32)
    values[0, count // 2] = 1
    picture = pictures.from_range(values)
    assert picture.shape == SHAPE
    assert np.flatnonzero(np.ptp(picture.astype(int), axis=2).max(axis=1) > 40)[0] < 8  # the one sample is seen


def test_what_is_one_pixel_is_a_pixel():
    assert pictures.from_projection(np.ones((1, 1, 3))).shape == (1, 1, 3)
    assert pictures.from_range(np.ones((1, 1, 1), np.uint8)).shape == (1, 1, 3)


@pytest.mark.parametrize("channels", [1, 2, 12])
def test_filters(channels):
    weight = noise((5, 1, 7, channels))
    assert [one.shape for one in pictures.from_filters(weight)] == [SHAPE] * 5
    assert weight_tiles(weight, columns=5).shape == (48, 5 * 97 - 1, 3)
    (part,) = filters(signal_net(channels=channels))
    assert isinstance(part, Picture)
    assert "filters of conv1, 7 samples, strongest first" in part.caption


class TestGallery:
    net, data = known_net(), dataset()
    view = analysis.visualize(net, data, analysis.top_activations(net, data, "pool1", k=4), maps=[1, 3])
    gallery = Gallery(view, show(data, range(6), net.preprocess))

    def test_tiles_are_drawn(self):
        shown = self.gallery.shown()
        assert shown["data"]["tile"] == [112, 224]
        assert shown["data"]["maps"][0]["size"] == [225, 449]
        for one in shown["maps"]:
            for side in ("projections", "patches"):
                assert decoded(one[side]).shape == (113, 225, 3)  # reduced to tiles of 112 pixels' length

    def test_patches_are_what_the_frames_cut_out(self):
        wanted = [
            pictures.from_range(cut(self.data.images[index], frame, fill=128))
            for index, frame in zip(self.view.indices[1], self.view.frames[1], strict=True)
        ]
        whole = pictures.tile(wanted, 2)
        np.testing.assert_array_equal(self.gallery._tiles[1][1], pictures.at_most(whole, 225))

    def test_windows_count_in_samples_of_images_that_are_drawn(self):
        for image in self.gallery.shown()["data"]["images"].values():
            assert image["size"] == [1, 64]
            assert image["drawn"] == [112, 224]
            assert decoded(image["uri"]).shape == (64, 128, 3)

    def test_saved(self, tmp_path):
        self.gallery.save(tmp_path)
        assert Image.open(tmp_path / "top-pool1.png").height > 100


class TestExplorer:
    net, data = known_net(), dataset(2)

    def test_the_square_counts_in_samples(self, tmp_path):
        report = Report("Signals")
        add_occlusion(report, self.net, self.data, None, square=((1, 8), (1, 4)), progress=False)
        _, *explorers = report.sections[0].parts
        assert len(explorers) == 2
        assert "A rectangle of 8 samples at steps of 4, " in report.sections[0].blurb
        for explorer in explorers:
            assert isinstance(explorer, Explorer)
            shown = explorer.shown()
            assert shown["data"]["image_size"] == [1, 64]
            assert shown["data"]["size"] == [1, 8]
            for uri in (shown["image"], *(panel["picture"] for panel in shown["panels"])):
                height, width, _ = decoded(uri).shape
                assert height >= width // 2
            (name,) = explorer.save(tmp_path)
            assert Image.open(tmp_path / name).height == 112 + 30  # an axis, and a line for the legend

    def test_axes_count_samples(self):
        report = Report("Signals")
        add_occlusion(report, self.net, self.data, self.data, square=((1, 8), (1, 5)), progress=False)
        table, explorer = report.sections[0].parts[:2]
        assert "rectangle there, at sample" in table.columns
        result = explorer.occlusion
        assert table.rows[0][table.columns.index("rectangle there, at sample")] == result.lowest()[1] * 5
        shown = explorer.shown()
        assert shown["axis"] == ["0", "32", "63"]
        assert [entry["label"] for entry in shown["legend"]] == ["channel 0", "channel 1"]
        assert shown["legend"][1]["color"] == [0xD9, 0x82, 0x2B]
        last = (result.probability.shape[1] - 1) * 5
        assert 0 <= 64 - 8 - last < 5 or last + 8 >= 64
        axes = [panel["axis"] for panel in shown["panels"]]
        middle = str(result.probability.shape[1] // 2 * 5)
        of_map = ["0", middle, str(last)]
        assert axes == [of_map, ["0", "32", "63"], [], of_map, of_map]  # the third are tops, of patches
        assert all("image" not in panel["caption"] for panel in shown["panels"])
        axis = result.plot().axes[0]
        assert axis.get_xlabel() == "first sample that is covered"
        assert axis.get_xlim() == (-2.5, last + 2.5)

    def test_images_have_no_axis(self):
        shown = Explorer("one", "One", make_occlusion(), np.zeros((16, 16, 3), np.uint8), CLASSES).shown()
        assert (shown["axis"], shown["legend"], shown["seen"]) == ([], [], "(a) the image and the square")
        assert [panel["axis"] for panel in shown["panels"]] == [[]] * 4


def test_an_axis_has_marks_and_a_legend():
    picture = np.zeros((*SHAPE[:2], 3), np.uint8)
    drawn = pictures.with_axis(picture, ["0", "93", "186"], ["channel 0", "channel 1"])
    assert drawn.shape == (112 + 30, 224, 3)
    assert (drawn[:112] == 0).all()
    marks = np.flatnonzero((drawn[112] < 128).all(axis=1))
    assert marks.tolist() == [0, 112, 223]
    assert (drawn[112 + 15 + 6, 2] == (0x3B, 0x7D, 0xD8)).all()
    assert pictures.with_axis(picture, []).shape == (112 + 15, 224, 3)


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (1, "one channel"),
        (3, "lines: channel 0 blue, 1 orange, 2 green"),
        (7, "bands: channel 0 at the top, 6 at the bottom, dark is low"),
    ],
)
def test_words_for_lines(channels, words):
    assert channel_words(channels) == words
    (part,) = filters(signal_net(channels=channels))
    assert part.caption.endswith(words)


def test_the_grid_of_the_randomisation_check():
    net, data = known_net(), dataset(2)
    result = analysis.sanity(net, data, size=16, stride=8, keep=1)
    figure = _grid(result, 0, Shown(data.images[0], "one", "a"))
    (axis,) = figure.axes
    height, width, _ = axis.get_images()[0].get_array().shape
    assert (height, width) == (4 * 58 - 2, 6 * 114 - 2)


def results():
    net = known_net()
    images, labels = noise((3, *net.input_shape)), np.array([0, 1, 2])
    boxes = {"start": [(0, 3, 1, 9)] * 3}
    yield analysis.correspondence(net, images, boxes, random_draws=2)
    yield analysis.diagnosis(net, images)
    yield analysis.faithfulness(net, images, labels, noise((3, 1, 64)), patch=4)
    yield analysis.invariance(net, images, labels)
    yield analysis.occlusion(net, images[0], 1, size=16, stride=4)
    yield analysis.occlusion(net, images, labels, size=(1, 9), stride=5)
    yield analysis.pointing(net, images, labels, [(0, 9, 1, 30)] * 3, size=8, stride=4)
    yield analysis.sanity(net, images, keep=2)
    tops = analysis.top_activations(net, images, "pool1", k=2)
    yield tops
    yield analysis.visualize(net, images, tops, maps=[0, 3])


@pytest.mark.parametrize("result", list(results()), ids=lambda result: type(result).__name__)
def test_every_result_shows_itself(result, tmp_path):
    """On a page, as PNG and as a figure."""
    page = result._repr_html_()
    for uri in re.findall(r"src=&quot;(data:image/[^&]+)&quot;", page):
        assert len(decoded(uri)) >= 4
    result.plot().savefig(io.BytesIO())
    result.save(tmp_path / "result.json")


def test_pages_without_pictures_of_a_pixels_height(tmp_path):
    net, data = known_net(), dataset(6)
    square = ((1, 16), (1, 8))
    images, _ = data.batch(range(6))
    inputs = np.asarray(net.preprocess(images))
    boxes = {"start": [Window(0, 3, 1, 9)] * 6}
    report = Report("Signals")
    add_visualization(report, net, data, maps=2, k=4, progress=False)
    add_occlusion(report, net, data, data, square=square, progress=False)
    add_faithfulness(report, net, data, methods=["occlusion", "gradient"], square=square, progress=False)
    add_sanity(report, net, data, size=16, stride=8, progress=False)
    found = analysis.correspondence(net, inputs, boxes, random_draws=2)
    report.add(correspondence_section(found, images, boxes))
    report.add(invariance_section(analysis.invariance(net, inputs, data.labels), inputs, (), net.preprocess))
    report.save(tmp_path)
    saved = {path.name: Image.open(path).size for path in tmp_path.glob("*.png")}
    assert {"filters.png", "top-pool1.png", "occlusion-01.png", "faithfulness-maps.png", "sanity-01.png"} <= set(saved)
    assert {"correspondence-images.png", "invariance-shift.png", "invariance-scale.png"} <= set(saved)
    assert {name: size for name, size in saved.items() if size[1] < LEAST} == {}
