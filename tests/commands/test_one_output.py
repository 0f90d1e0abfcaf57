"""Nets of one output, a yes or no or a regression: no report says that they tell classes apart."""

import html

import numpy as np
import pytest
from PIL import Image

from zfcuda.data import Preprocess
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, ConvSpec, FlattenSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from .conftest import numbers_of, run

LAYERS = (
    ConvSpec("conv1", 4, 3),
    ReLUSpec("relu1"),
    MaxPoolSpec("pool1", 2),
    FlattenSpec("flatten1"),
    FullyConnectedSpec("fc2", 1),
)
HEADS = {"sigmoid": "probability", "none": "output"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("one"), np.random.default_rng(0)
    for name in ("aardvark", "bee", "crow"):
        for i in range(2):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def save(directory, head, classes=None, size=12):
    net = Network(Architecture((size, size, 3), LAYERS, initial="he"), seed=1)
    net.preprocess, net.head, net.classes = Preprocess.by_channel((size, size)), head, classes
    net.save(directory / "one.safetensors")
    return directory / "one.safetensors"


def page_of(directory, *words):
    assert run(*words, "--quiet", "--out", directory) == 0
    return html.unescape((directory / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("head", HEADS)
def test_sanity(head, folder, tmp_path):
    page = page_of(tmp_path, "sanity", save(tmp_path, head), "--data", folder, "--images", 2, "--size", 6)
    assert "Projected is the net's one output;" in page
    assert ".png: on the left" in page
    assert "net calls" not in page
    assert "the net names" not in page
    found = numbers_of(tmp_path)["How far to trust such pictures"]
    assert (found["head"], found["one_output"]) == (head, True)


@pytest.mark.parametrize(("head", "followed"), HEADS.items())
def test_occlude(head, followed, folder, tmp_path):
    words = ("--data", folder, "--images", 2, "--size", 6)
    page = page_of(tmp_path, "occlude", save(tmp_path, head), *words)
    assert f"(d) {followed}: " in page
    for absent in ("most probable class", "predicted", "another class", f"{followed} of", ".png: "):
        assert absent not in page
    assert "The network has one output and no classes: that is followed" in page
    assert ("no probability" in page) == (head == "none")
    page = page_of(tmp_path / "named", "occlude", save(tmp_path, head, ("cat",)), *words)
    assert f"(d) {followed} of cat: " in page
    assert "most probable class" not in page


@pytest.mark.parametrize(("head", "followed"), HEADS.items())
def test_invariance(head, followed, folder, tmp_path):
    page = page_of(tmp_path, "invariance", save(tmp_path, head), "--data", folder, "--images", 2, "--steps", 3)
    assert f"right, the {followed}. The network has one output" in page
    assert "true class" not in page
    assert ".png: output" not in page


@pytest.mark.parametrize(("head", "followed"), HEADS.items())
def test_faithfulness(head, followed, folder, tmp_path):
    words = ("--images", 2, "--methods", "gradient", "--patch", 6)
    page = page_of(tmp_path, "faithfulness", save(tmp_path, head), "--data", folder, *words)
    assert f"the area under the curve of the {followed}, the better" in page
    assert "of the class" not in page


@pytest.mark.parametrize(("size", "word"), [("4x6", "rectangle"), ("6", "square")])
def test_a_square_is_as_high_as_wide(size, word, folder, tmp_path):
    page = page_of(tmp_path, "occlude", save(tmp_path, "none"), "--data", folder, "--images", 1, "--size", size)
    assert f"A {word} of {size[0]} x 6 pixels at steps of 1, painted" in page
    assert f"to see the {word} there" in page
    assert f"{word} there, at row" in page


def test_pointing(folder, tmp_path):
    words = ("--data", folder, "--clutter", 20, "--images", 1, "--pointing", 2, "--size", 6, "--stride", 3)
    page = page_of(tmp_path, "occlude", save(tmp_path, "sigmoid", size=20), *words)
    assert "Whether the square that lowers the probability most has" in page
    for absent in ("gets right", "2 right", "where it is right"):
        assert absent not in page


def test_image_files_have_no_class(folder, tmp_path):
    net, image = save(tmp_path, "sigmoid"), folder / "bee" / "0.png"
    page = page_of(tmp_path, "visualize", net, "--image", image, "--maps", 1, "--top", 1)
    assert "class 0" not in page
    assert "bee/0.png: on the left" in page
    page = page_of(tmp_path, "occlude", net, "--image", image, "--size", 6)
    assert "class 0" not in page
    assert "(d) probability: " in page
