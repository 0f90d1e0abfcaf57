"""Every result shows itself in a notebook, and reports open where their user sits."""

import html
import html.parser
import subprocess
import sys
import types
import webbrowser

import numpy as np
import pytest
from matplotlib.figure import Figure

import zfcuda
from tests.analysis.nets import deep_net, noise
from zfcuda import analysis
from zfcuda.analysis.ablation import Run
from zfcuda.analysis.evolution import LayerEvolution
from zfcuda.analysis.features import FeatureScore
from zfcuda.analysis.results import Result
from zfcuda.report.notebook import SECTIONS

from .fakes import make_occlusion, make_report, make_visualization

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Markup(html.parser.HTMLParser):
    """Checks that elements close in their order, and collects what a page shows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.pictures, self.tags = [], [], 0, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.pictures += tag == "img" and dict(attributes)["src"].startswith("data:image/")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def inner(text):
    """The page in a cell's frame."""
    frame = Markup(text)
    assert frame.tags == ["iframe"]
    return dict(frame.attributes)["srcdoc"]


def make_evolution(layers=2, maps=3, epochs=4, size=6):
    rng = np.random.default_rng(0)
    looks = {
        f"pool{number}": LayerEvolution(
            layer=f"pool{number}",
            epochs=np.arange(1, epochs + 1),
            maps=np.arange(maps),
            values=rng.random((maps, epochs), np.float32),
            indices=rng.integers(0, 2, (maps, epochs)),
            frames=np.zeros((maps, epochs, 4), np.int32),
            projections=rng.standard_normal((maps, epochs, size, size, 3)).astype(np.float32),
        )
        for number in range(1, layers + 1)
    }
    return analysis.Evolution(looks)


def results():
    """One of each kind, and how many pictures (but for charts) and charts its section has at least."""
    net = deep_net()
    images, labels = noise((3, *net.input_shape)), np.array([0, 1, 2])
    runs = tuple(
        Run(variant, seed, 10, 20 + seed, 5, 1000, 9) for variant in ("as it is", "a <b> $x$") for seed in (0, 1)
    )
    scores = tuple(FeatureScore(layer, count, 50.0, 1.0) for layer in ("pool1", "fc4") for count in (5, 15))
    boxes = {"eye": [(2, 3, 4, 4)] * 3, "<nose>": [(9, 9, 4, 4)] * 3}
    falls = np.array([0.3, 0.2])
    yield analysis.Ablation(runs, epochs=3), 0, 1
    yield analysis.correspondence(net, images, boxes, random_draws=2), 0, 1
    yield analysis.diagnosis(net, images), 0, 1
    yield make_evolution(), 2 * (4 + 1), 1
    yield analysis.faithfulness(net, images, labels, noise((3, 29, 26)), patch=9), 0, 1
    yield analysis.FeatureAnalysis(scores, "svm", 4, 100), 0, 1
    yield analysis.invariance(net, images, labels), 0, 3
    yield analysis.occlusion(net, images[0], 1, size=9, stride=5), 5, 0
    yield analysis.occlusion(net, images, labels, size=9, stride=5), 15, 0
    yield analysis.Pointing(np.array([True, False]), np.array([True, True]), falls, falls / 2, 0.4), 0, 1
    yield analysis.sanity(net, images, size=9, stride=9, keep=2), 0, 3
    tops = analysis.top_activations(net, images, "pool1", k=2)
    yield tops, 0, 1
    yield analysis.visualize(net, images, tops, maps=[0, 3]), 1, 0


RESULTS = {type(result).__name__: (result, pictures, charts) for result, pictures, charts in results()}


def test_there_is_one_of_each_kind():
    public = [getattr(analysis, name) for name in analysis.__all__]
    kinds = {one for one in public if isinstance(one, type) and issubclass(one, Result)}
    assert kinds == set(SECTIONS) == {type(result) for result, _, _ in RESULTS.values()}


@pytest.mark.parametrize("kind", RESULTS)
class TestResults:
    def test_html(self, kind):
        result, pictures, charts = RESULTS[kind]
        page = Markup(inner(result._repr_html_()))
        assert page.pictures >= pictures
        assert page.tags.count("svg") >= (charts > 0)
        assert page.tags.count("section") == 1
        addresses = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
        assert all(address.startswith(("data:image/", "#")) for address in addresses)

    def test_plot(self, kind):
        figure = RESULTS[kind][0].plot()
        assert isinstance(figure, Figure)
        axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
        assert axes
        assert any(axis.get_xlabel() for axis in axes)
        assert any(axis.get_ylabel() for axis in axes)
        # Of a grid of pictures, those at the left and at the bottom speak for their rows and columns.
        assert all(axis.get_xlabel() or axis.get_ylabel() or axis.images for axis in axes)
        figure.canvas.draw()


def test_hostile_names_stay_text():
    text = inner(RESULTS["Correspondence"][0]._repr_html_())
    assert "<nose>" not in text
    assert "&lt;nose&gt;" in text


@pytest.mark.parametrize(
    "result",
    [
        make_visualization(maps=256, k=9, size=139),
        make_evolution(layers=5, maps=16, epochs=8, size=64),
        make_occlusion(),
    ],
    ids=lambda result: type(result).__name__,
)
def test_large_results_stay_of_a_size_for_a_notebook(result):
    assert len(result._repr_html_()) < 15e6


def test_a_result_that_no_report_knows_is_shown_as_text():
    assert Result()._repr_html_() is None


def test_results_need_no_report_before_they_are_shown():
    code = (
        "import sys, numpy as np\n"
        "from zfcuda.analysis import Pointing\n"
        "values = np.ones(2)\n"
        "result = Pointing(values > 0, values > 0, values, values, 0.5)\n"
        "assert 'zfcuda.report' not in sys.modules\n"
        "assert '<iframe' in result._repr_html_()\n"
        "assert 'IPython' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestOpening:
    @pytest.fixture
    def opened(self, monkeypatch):
        addresses = []
        monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or True)
        monkeypatch.setitem(sys.modules, "IPython", None)
        monkeypatch.delitem(sys.modules, "IPython")
        return addresses

    def test_a_directory_or_its_page(self, opened, tmp_path):
        page = make_report().save(tmp_path)
        assert zfcuda.open_report(tmp_path) is None
        assert zfcuda.open_report(str(page)) is None
        assert opened == [page.resolve().as_uri()] * 2

    def test_a_result_and_a_report_not_saved(self, opened, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert zfcuda.open_report(make_occlusion()) is None
        assert zfcuda.open_report(make_report()) is None
        pages = [
            path.read_text(encoding="utf-8")
            for path in sorted(tmp_path.glob("*/report.html"), key=lambda p: p.stat().st_mtime_ns)
        ]
        assert len(pages) == 2
        assert 'class="explorer"' in pages[0]
        assert pages[1] == make_report().html()

    def test_no_browser(self, opened, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(webbrowser, "open", lambda address: False)
        page = make_report().save(tmp_path)
        zfcuda.open_report(page)
        assert page.resolve().as_uri() in capsys.readouterr().err

    def test_in_a_notebook(self, opened, tmp_path, monkeypatch):
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
        display.HTML = lambda text: ("shown", text)
        ipython.display = display
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        shown, text = zfcuda.open_report(make_occlusion())
        assert shown == "shown"
        assert 'class="explorer"' in inner(text)
        page = make_report().save(tmp_path)
        assert inner(zfcuda.open_report(page)[1]) == page.read_text(encoding="utf-8")
        assert opened == []
        ipython.get_ipython = lambda: types.SimpleNamespace()  # IPython in a terminal
        assert zfcuda.open_report(page) is None
        assert opened == [page.resolve().as_uri()]

    def test_errors(self, opened, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no report at .*report\.html"):
            zfcuda.open_report(tmp_path)
        with pytest.raises(TypeError, match="a path, a Report or the result of an analysis, got int"):
            zfcuda.open_report(3)
