import dataclasses
import html.parser
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.analysis.nets import box_net
from zfcuda.analysis import faithfulness, invariance, pointing
from zfcuda.analysis.figures import new_figure, plain
from zfcuda.report import Chart, Explorer, Note, Report, Section, Table
from zfcuda.report.parts import Picture, Slider, file_name
from zfcuda.report.plots import to_png, to_svg
from zfcuda.report.sections.faithfulness import faithfulness_section
from zfcuda.report.sections.invariance import invariance_section
from zfcuda.report.sections.occlusion import occlusion_section
from zfcuda.report.sections.pointing import pointing_section

from .fakes import CLASSES, HOSTILE, make_occlusion, make_report, make_shown


class Structure(html.parser.HTMLParser):
    """Collects what a browser would execute or fetch."""

    def __init__(self):
        super().__init__()
        self.scripts, self.addresses, self.handlers = [], [], []
        self._script = None

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            self._script = [dict(attributes).get("type"), ""]
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        if self._script:
            self._script[1] += data

    def handle_endtag(self, tag):
        if tag == "script":
            self.scripts.append(self._script)
            self._script = None


@pytest.fixture(scope="module")
def page():
    text = make_report().html()
    structure = Structure()
    structure.feed(text)
    return text, structure


def test_the_page_carries_everything_itself(page):
    _, structure = page
    assert structure.addresses
    assert all(address.startswith(("data:image/", "#")) for address in structure.addresses)


def test_outputs_that_are_no_probabilities_have_no_percents():
    """Of a net without a softmax: the page's script is told, the captions and the table's head say "output"."""
    for head, captions in (("softmax", ("(d) probability of", " %")), ("none", ("(d) output of", " (dark)"))):
        result = dataclasses.replace(make_occlusion(), head=head)
        shown = Explorer("one", "One", result, make_shown(1)[0].picture, CLASSES).shown()
        (caption,) = (panel["caption"] for panel in shown["panels"] if panel["caption"].startswith("(d)"))
        assert all(words in caption for words in captions)
        assert ("%" in caption) == (head == "softmax")
        assert shown["data"]["followed"] == result.followed
        assert f"Without it the {result.followed} of class 1 is" in occlusion_section(result).blurb


@pytest.mark.parametrize(
    ("head", "values", "words", "contrast"),
    [
        ("softmax", (0.2, 0.7), "20 % (dark) to 70 %", True),
        ("none", (-3.0, 5.0), "-3 (dark) to 5", True),
        ("softmax", (0.5, 0.51), "50 % (dark) to 51 %", True),
        (
            "softmax",
            (0.500001, 0.500002),
            "hardly changes, 50.0001 % to 50.0002 %; colours 49.75 % (dark) to 50.25 %",
            False,
        ),
        ("softmax", (1e-7, 2e-7), "hardly changes, 1e-05 % to 2e-05 %; colours 0 % (dark) to 0.05 %", False),
        ("none", (1e-7, 2e-7), "1e-07 (dark) to 2e-07", True),
        ("none", (-12.0001, -12.0), "hardly changes, -12.0001 to -12; colours -12.06 (dark) to -11.94", False),
        ("softmax", (0.25, 0.25), "hardly changes, 25 % everywhere; colours 24.875 % (dark) to 25.125 %", False),
        ("none", (0.0, 0.0), "the same everywhere, 0", False),
    ],
)
def test_colours_of_a_map_say_what_they_stand_for(head, values, words, contrast):
    """A net that hardly reacts has maps without contrast, in words, on the page and in the figure."""
    grid = np.linspace(*values, 16, dtype=np.float64).reshape(4, 4)
    result = dataclasses.replace(make_occlusion(), head=head, probability=grid, activation=3 * grid)
    explorer = Explorer("one", "One", result, make_shown(1)[0].picture, CLASSES)
    captions = [panel["caption"] for panel in explorer.shown()["panels"]]
    assert captions[2] == f"(d) {result.followed} of {CLASSES[1]}: {words}"
    seen = np.ptp(explorer._pictures[2][0].astype(int).sum(axis=2))
    assert seen >= 350 if contrast else seen <= 2
    assert captions[0].startswith("(b) sum of pool1 map 2, by the square's place: ")
    swing = np.quantile(np.abs(result.projection), 0.995, method="higher")
    assert captions[1] == f"(c) what map 2 sees in this image, ±{swing:.2g}"
    image = result.plot().axes[0].get_images()[0]
    assert image.get_clim()[1] - image.get_clim()[0] >= 0.0099 * abs(grid).max()


@pytest.mark.parametrize(("head", "followed"), [("sigmoid", "probability"), ("none", "output")])
def test_one_output_is_of_no_class(head, followed):
    result = dataclasses.replace(make_occlusion(), head=head, one_output=True, label=0)
    shown = Explorer("one", "One", result, make_shown(1)[0].picture, ("output",)).shown()
    assert (shown["data"]["what"], shown["data"]["classes"]) == (followed, None)
    assert [panel["legend"] for panel in shown["panels"]] == [[], [], []]
    assert f"Without it the {followed} is 0.900" in occlusion_section(result).blurb
    titles = [axis.get_title() for axis in result.plot().axes[:2]]
    assert titles == [followed, "sum of pool1 map 2"]
    named = Explorer("one", "One", result, make_shown(1)[0].picture, ("cat",)).shown()["data"]
    assert named["what"] == f"{followed} of cat"


def charts_of_a_class(head):
    """Sections that follow class 1 of one image, and their charts: its output is -12, and -4 without the bright box."""
    net, images = box_net((4, 4, 8, 8)), np.ones((1, 16, 16, 1), np.float32)
    net.layers["fc2"].weight *= -1
    net.head = head
    maps = np.zeros((1, 16, 16))
    sections = (
        faithfulness_section({"map": faithfulness(net, images, [1], maps, patch=4)}),
        invariance_section(invariance(net, images, [1], amounts={"translation": [0.0, 15.0]})),
        pointing_section(pointing(net, images, [1], [(4, 4, 8, 8)], size=8, stride=4)),
    )
    return sections, [next(part.figure for part in one.parts if isinstance(part, Chart)) for one in sections]


@pytest.mark.parametrize(
    ("head", "followed"), [("softmax", "probability"), ("sigmoid", "probability"), ("none", "output")]
)
def test_what_is_followed_is_called_what_it_is(head, followed):
    sections, (faithful, moved, pointed) = charts_of_a_class(head)
    for section, words in zip(
        sections, ("{} of the class", "{} of the true class", "{} of the true class"), strict=True
    ):
        assert words.format(followed) in section.blurb
        assert ("no probability" in section.blurb) == (followed == "output")
        assert section.numbers.get("map", section.numbers)["head"] == head
    assert {axis.get_ylabel() for axis in faithful.axes} == {f"{followed} of the class"}
    assert moved.axes[-1].get_ylabel() == f"{followed} of the true class"
    assert pointed.axes[1].get_xlabel() == f"mean fall of the {followed}"


def test_outputs_below_zero_are_in_the_charts():
    (_, _, section), (faithful, moved, _) = charts_of_a_class("none")
    for axis in (*faithful.axes, moved.axes[-1]):
        low, high = axis.get_ylim()
        assert -13 < low < -12 < -5 < high < 0
    facts = dict(section.parts[0].facts)
    assert facts["mean fall, object covered"] == f"{section.numbers['inside'].mean():.3f}"
    assert -8 < section.numbers["inside"].mean() < -2


def test_hostile_names_add_no_script_and_no_handler(page):
    text, structure = page
    assert structure.handlers == []
    kinds = [kind for kind, _ in structure.scripts]
    assert kinds.count(None) == 1  # the page's own
    assert all(kind in (None, "application/json") for kind in kinds)
    assert "window.hacked" not in structure.scripts[kinds.index(None)][1]
    assert HOSTILE not in text


def test_data_in_the_page_are_json_and_keep_names_as_they_are(page):
    data = [json.loads(script) for kind, script in page[1].scripts if kind == "application/json"]
    assert any(HOSTILE in json.dumps(one) for one in data)
    gallery = data[0]
    assert gallery["layer"] == "pool1"
    assert len(gallery["maps"][0]["winners"]) == 9
    assert set(gallery["images"]) >= {w["image"] for m in gallery["maps"] for w in m["winners"]}


def test_save_leaves_page_numbers_and_pictures(tmp_path):
    path = make_report().save(tmp_path / "out")
    names = {p.name for p in path.parent.iterdir()}
    assert names == {
        "report.html", "report.json", "page.json", "filters.png", "top-pool1.png", "top-pool2.png", "occlusion.png",
        "error.png", "evolution-01.png", "evolution-02.png", "evolution-03.png",
    }  # fmt: skip
    numbers = json.loads((path.parent / "report.json").read_text())
    assert numbers["sections"]["Maps"]["values"][0][0] > 0
    for name in names:
        if name.endswith(".png"):
            Image.open(path.parent / name).verify()


def test_an_unfinished_page_says_so_and_leaves_no_trace(page, tmp_path):
    report = make_report()
    path = report.write_page(tmp_path, unfinished=f"two of three {HOSTILE}")
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]
    structure = Structure()
    structure.feed(unfinished := path.read_text(encoding="utf-8"))
    assert "two of three &lt;/script&gt;" in unfinished
    assert [kind for kind, _ in structure.scripts].count(None) == 2  # the page's own, and what reads it again
    assert report.save(tmp_path / "a").read_text(encoding="utf-8") == page[0]
    make_report().save(tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()


def test_pictures_of_an_earlier_report_go(tmp_path):
    """Those that it lists, and nothing that it only claims to be its own."""
    frames = [np.zeros((4, 4, 3), np.uint8)] * 3
    out = tmp_path / "out"
    Report("r", sections=[Section("s", [Picture("kept", frames[0]), Slider("look", "t", frames, "abc")])]).save(out)
    for place in (tmp_path / "outside.png", out / "own.png", out / "own.txt"):
        place.write_bytes(b"")
    one = Report("r", sections=[Section("s", [Picture("kept", frames[0]), Slider("look", "t", frames[:1], "a")])])
    one.save(out)
    pages = {"report.html", "report.json", "page.json"}
    assert {p.name for p in out.iterdir()} == pages | {"kept.png", "look-01.png", "own.png", "own.txt"}
    hostile = ["../outside.png", "own.txt", "\0.png", "\ud800.png", "no.png"]
    for wrong in ({"pictures": hostile}, {"pictures": 7}, {"pictures": [7, None]}, {}, []):
        (out / "report.json").write_text(json.dumps(wrong))
        one.save(out)
    assert {p.name for p in out.iterdir()} == pages | {"kept.png", "look-01.png", "own.png", "own.txt"}
    assert (tmp_path / "outside.png").exists()


def test_the_same_report_has_the_same_bytes(tmp_path):
    first, second = make_report().save(tmp_path / "a"), make_report().save(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_cells_of_a_table():
    values = [1234567, 0.123, None, float("nan"), True, "word", np.float32(2)]
    (cells,) = Table(["a"], [values]).shown()["rows"]
    assert [cell["text"] for cell in cells] == ["1,234,567", "0.12", "-", "nan", "yes", "word", "2.00"]
    assert [cell["number"] for cell in cells] == [1234567, 0.123, None, None, None, None, 2.0]


def test_numbers_that_json_lacks_become_null(tmp_path):
    report = Report("r", sections=[Section("s", [Note("n")], numbers={"x": np.array([1.0, np.nan, np.inf])})])
    report.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["sections"]["s"]["x"] == [1.0, None, None]


def test_a_chart_takes_the_colour_of_the_page_and_is_left_as_it_was():
    figure, axes = new_figure()
    axes[0, 0].plot([1, 2])
    axes[0, 0].set_title(plain("costs $5 & <b> $6"))
    svg = to_svg(figure, "name")
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "costs $5 &amp; &lt;b&gt; $6" in svg
    assert not re.search(r"<svg[^>]* (width|height)=", svg)
    assert svg == to_svg(figure, "name")
    assert to_png(figure) == to_png(figure)
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "name"),
    [("a b/c", "a-b-c"), ("../../etc/passwd", "etc-passwd"), ("…", "unnamed"), ("x" * 99, "x" * 60)],
)
def test_file_names_are_harmless(text, name):
    assert file_name(text) == name


def test_importing_the_report_imports_neither_matplotlib_nor_jinja():
    code = "import sys, zfcuda.report; print([m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
