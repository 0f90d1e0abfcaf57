"""zfcuda/brief.py, and that whatever holds arrays or many items shows itself in a line."""

import dataclasses
import importlib
import pkgutil
import re
from typing import ClassVar

import numpy as np
import pytest

import zfcuda
from zfcuda import analysis, data, models
from zfcuda.brief import Brief, brief
from zfcuda.data.dataset import Described, Subset

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "<float32 (2, 3)>"),
        (np.zeros((0,), bool), "<bool (0,)>"),
        (np.float32(0.5), repr(np.float32(0.5))),
        (np.array(7), "array(7)"),
        ({"a": np.zeros(3, np.uint8), 2: None}, "{'a': <uint8 (3,)>, 2: None}"),
        (dict.fromkeys(range(9)), "<9 items>"),
        ({}, "{}"),
        ((1, 2.5, "x", None), "(1, 2.5, 'x', None)"),
        ((1,), "(1,)"),
        ([True], "[True]"),
        ((), "()"),
        (["path"] * 50_000, "<50,000 str>"),
        ([np.zeros(3), np.zeros(4)], "<2 ndarray>"),
        ([np.zeros(3), 1], "<2 items>"),
        ("x" * 100, "'" + "x" * 80 + "'..."),
        (1e-3, "0.001"),
    ],
)
def test_values(value, text):
    assert brief(value) == text


def test_fields():
    @dataclasses.dataclass(repr=False)
    class Found(Brief):
        numbers: np.ndarray
        name: str
        kind: ClassVar[str] = "none"

    @dataclasses.dataclass(repr=False)
    class More(Found):
        within: Found
        hidden: int = dataclasses.field(default=0, repr=False)

    found = Found(np.zeros(4), "a")
    assert repr(found) == "Found(numbers=<float64 (4,)>, name='a')"
    assert repr(More(np.zeros(2), "b", found)) == f"More(numbers=<float64 (2,)>, name='b', within={found!r})"


def modules():
    for found in pkgutil.walk_packages(zfcuda.__path__, "zfcuda."):
        if not found.name.split(".")[1].startswith("_"):
            try:
                yield importlib.import_module(found.name)
            except ImportError:  # an extra that is not installed
                continue


def test_no_dataclass_prints_its_arrays():
    held, wrong = 0, []
    for module in modules():
        for name, kind in vars(module).items():
            if not (dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind.__module__ == module.__name__):
                continue
            if any(re.search(r"\b(ndarray|Array)\b", str(field.type)) for field in dataclasses.fields(kind)):
                held += 1
                if kind.__repr__ not in (Brief.__repr__, Described.__repr__):
                    wrong.append(f"{module.__name__}.{name}")
    assert held > 15
    assert wrong == []


def a_dataset(count=3000):
    labels = np.arange(count, dtype=np.int32) % 3
    names = [f"a/path/to/{number}.png" for number in range(count)]
    return data.ArrayDataset(RNG.integers(0, 255, (count, 28, 26, 1), np.uint8), labels, ("a", "b", "c"), names)


def test_data_sets():
    dataset = a_dataset()
    text = "<ArrayDataset: 3,000 images of 28 x 26 x 1, 3 classes: a, b, c>"
    assert repr(dataset) == str(dataset) == text
    part = Subset(dataset, range(1000))
    assert repr(part) == "<Subset: 1,000 images of 28 x 26 x 1, 3 classes: a, b, c>"
    assert repr(data.Split(dataset, part)) == f"Split(train={text}, test={part!r})"
    items = [(image, int(label)) for image, label in zip(*dataset.batch(range(6)), strict=True)]
    assert repr(data.SequenceDataset(items)) == "<SequenceDataset: 6 images of 28 x 26 x 1, 3 classes: 0, 1, 2>"


def test_data_sets_of_many_classes():
    names = tuple(f"class {number}" for number in range(1000))
    dataset = data.ArrayDataset(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int32), names)
    text = repr(dataset)
    assert text.startswith("<ArrayDataset: 1 images of 2 x 2 x 3, 1000 classes: class 0, class 1, ")
    assert len(text) < 250


def test_data_sets_of_files(tmp_path):
    dataset = a_dataset(30)
    packed = tmp_path / "packed"
    data.pack(data.Split(dataset, dataset), packed)
    assert repr(data.open_packed(packed).test) == "<PackedDataset: 30 images of 28 x 26 x 1, 3 classes: a, b, c>"
    assert repr(data.relabelled(dataset, ("c", "a", "b"), 3)).endswith("30 images of 28 x 26 x 1, 3 classes: c, a, b>")


def test_networks_traces_and_results():
    net = models.zfnet_small(10, (28, 28, 1))
    assert re.fullmatch(
        r"<Network: images of 28 x 28 x 1, 22 layers, [\d,]+ parameters, 10 outputs, softmax>", repr(net)
    )
    parameters = sum(array.size for array in net.parameters().values())
    assert f" {parameters:,} parameters" in repr(net)
    images = RNG.standard_normal((4, 28, 28, 1)).astype(np.float32)
    assert repr(net.forward(images)) == "<Trace of 4 images through 22 layers, fp32>"
    net.preprocess = data.Preprocess(np.zeros((28, 28, 1), np.float32), (28, 28))
    assert repr(net.preprocess) == "Preprocess(mean=<float32 (28, 28, 1)>, crop=(28, 28), scale=1.0)"
    results = [
        analysis.occlusion(net, images[0], 1, size=9, stride=9),
        analysis.occlusion(net, images, [1, 2, 3, 0], size=9, stride=9),
        analysis.top_activations(net, images, "pool2", k=2),
        net.architecture,
        models.resnet50(1000).architecture,
    ]
    for result in results:
        assert len(repr(result)) < 600
        assert repr(result).startswith(f"{type(result).__name__}(")
    assert "probability=<float32 (4, 4)>" in repr(results[0])
