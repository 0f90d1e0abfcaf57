"""The drawn network: a box for each operation, in its place, and what leads to a gallery."""

import re

from tests.report.fakes import HOSTILE
from zfcuda.nn import AddSpec, Architecture, ConvSpec, Network, ReLUSpec
from zfcuda.report import Drawing, Report, Section


def residual_net(name="add"):
    layers = (
        ConvSpec("conv1", 4, 3, padding=1),
        ReLUSpec("relu1"),
        ConvSpec("conv2", 4, 3, padding=1),
        ConvSpec("side", 4, 1, inputs=("relu1",)),
        AddSpec(name, inputs=("conv2", "side")),
        ConvSpec("conv3", 2, 6),
    )
    return Network(Architecture((6, 6, 3), layers))


def test_boxes_and_lines():
    shown = Drawing(residual_net(), ["relu1"]).shown()
    boxes = {box["title"]: box for box in shown["boxes"]}
    assert list(boxes) == ["image", "relu1", "conv2", "side", "add", "conv3"]
    assert [boxes[name]["layer"] for name in boxes] == ["", "relu1", "", "", "", ""]
    assert boxes["relu1"]["detail"] == "conv + relu · 6 x 6 x 4"
    assert boxes["conv2"]["y"] == boxes["side"]["y"]
    assert boxes["side"]["x"] > boxes["conv2"]["x"] == boxes["relu1"]["x"]
    assert boxes["add"]["y"] > boxes["side"]["y"]
    assert len(shown["lines"]) == 6  # one for each input of a box
    assert len({(box["x"], box["y"]) for box in boxes.values()}) == len(boxes)


def test_layers_without_letters_are_called_layers():
    for name, words in (("8", "layer 8"), ("0.1", "layer 0.1"), ("layer1.0", "layer1.0")):
        boxes = Drawing(residual_net(name), [name]).shown()["boxes"]
        (box,) = (box for box in boxes if box["layer"] == name)
        assert (box["title"], box["name"]) == (words, words)


def test_long_names_are_cut_in_their_middle():
    name = "encoder.stages.0." + "block." * 9 + "conv2"
    shown = Drawing(residual_net(name), []).shown()
    (box,) = (box for box in shown["boxes"] if box["title"] == name)
    assert box["name"].startswith("encoder.stages.0.b")
    assert box["name"].endswith(".conv2")
    assert len(box["name"]) * 7 <= shown["box"][0] - 16 < 340
    narrow = Drawing(residual_net(), []).shown()
    assert narrow["box"][0] < shown["box"][0]
    assert all(box["x"] + narrow["box"][0] < narrow["size"][0] for box in narrow["boxes"])


def test_on_the_page():
    hostile = HOSTILE.replace("/", "").replace(".", "")
    page = Report("a net")
    page.add(Section("The network", [Drawing(residual_net(hostile), ["relu1", hostile], "how it is built")]))
    text = page.html()
    assert len(re.findall(r'<a href="#" data-layer="', text)) == 2
    assert "how it is built" in text
    assert HOSTILE not in text
