"""--model: a net of one's own in a JSON file."""

import json

import pytest

from zfcuda import load
from zfcuda.nn import AddSpec, Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from .conftest import numbers_of, run

RESIDUAL = Architecture(
    (28, 28, 3),
    (
        ConvSpec("stem", 8, 3, 2, 1),
        ReLUSpec("stem.relu"),
        ConvSpec("a.conv", 8, 3, padding=1),
        AddSpec("a.add", inputs=("a.conv", "stem.relu")),
        ReLUSpec("a.relu"),
        MaxPoolSpec("pool", 2, 2),
        FullyConnectedSpec("fc", 4),
    ),
    initial="he",
)


def test_a_graph_by_hand_is_trained_and_looked_at(fruit, tmp_path, capsys):
    described = {
        "input_shape": [28, 28, 3],
        "layers": [
            {"kind": "conv", "name": "stem", "maps": 8, "kernel": 3, "stride": 2, "padding": 1},
            {"kind": "relu", "name": "stem.relu"},
            {"kind": "conv", "name": "a.conv", "maps": 8, "kernel": 3, "padding": 1},
            {"kind": "add", "name": "a.add", "inputs": ["a.conv", "stem.relu"]},
            {"kind": "relu", "name": "a.relu"},
            {"kind": "pool", "name": "pool", "window": 2, "stride": 2},
            {"kind": "fc", "name": "fc", "units": 4},
        ],
    }
    (tmp_path / "net.json").write_text(json.dumps(described))
    words = ("--epochs", 4, "--batch-size", 8, "--lr", 0.01, "--quiet")
    assert run("train", "--data", fruit, "--model", tmp_path / "net.json", *words, "--out", tmp_path / "run") == 0
    assert load(tmp_path / "run" / "checkpoint.safetensors").architecture == RESIDUAL
    assert numbers_of(tmp_path / "run")["Training"][-1]["validation_top1"] > 0.8
    out = tmp_path / "seen"
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    assert (
        run("visualize", checkpoint, "--data", fruit, "--layers", "stem.relu", "a.relu", "--quiet", "--out", out) == 0
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('<a href="#" data-layer=') == 2
    assert "add + relu · 14 x 14 x 8" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not the description of a network, but of type list"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ('{"input_shape": [4, 4, 1], "layers": [], "layers": []}', "'layers' is named twice"),
        ('{"layers": []}', "not the description of a network: it has no 'input_shape'"),
        ('{"input_shape": [4, 4, 1], "layers": 5}', "not the description of a network: TypeError"),
        ('{"input_shape": [4, 4, 1], "layers": [5]}', "a layer must be described by its kind, name"),
        ('{"input_shape": [4, 4, 1], "layers": [{"name": "a"}]}', "layer 'a' is of unknown kind None"),
        ('{"input_shape": [4, 4, 1], "layers": [{"kind": [], "name": "a"}]}', "layer 'a' is of unknown kind []"),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "fc", "name": "a"}]}',
            "layer 'a' (fc) needs name, units, and may have name, inputs, block, bias, units; got name",
        ),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "fc", "name": "a", "units": 3, "colour": 1}]}',
            "got name, units, colour",
        ),
        ('{"input_shape": [4, 4, 1], "layers": [{"kind": "lstm", "name": "a"}]}', "unknown kind 'lstm'"),
    ],
)
def test_files_that_describe_no_net(text, message, fruit, tmp_path, capsys):
    (tmp_path / "net.json").write_text(text)
    assert run("train", "--data", fruit, "--model", tmp_path / "net.json", "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "--model" in error
    assert message in error
    assert not (tmp_path / "run").exists()


def test_nets_that_do_not_fit_the_data(fruit, tmp_path, capsys):
    for name, shape, classes, message in (
        ("large", (40, 40, 3), 4, "takes images of 40 x 40 x 3 or larger"),
        ("grey", (28, 28, 1), 4, "takes images of 28 x 28 x 1 or larger, but the data set's are 28 x 28 x 3"),
        ("many", (28, 28, 3), 5, "has 5 outputs, but the data set has 4 classes"),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(Architecture(shape, (FullyConnectedSpec("fc", classes),)).to_dict()))
        words = ("--image-size", 28) if name == "large" else ()
        assert run("train", "--data", fruit, "--model", path, *words, "--out", tmp_path / "run") != 0
        assert message in capsys.readouterr().err
    assert run("train", "--data", fruit, "--model", "vgg99", "--out", tmp_path / "run") == 2
    assert "must be one of zfnet_small, zfnet, alexnet, vgg16, resnet18, resnet50" in capsys.readouterr().err
    assert run("train", "--data", fruit, "--model", "resnet18", "--image-size", 28, "--out", tmp_path / "run") != 0
    assert "--model resnet18 takes colour images of 32 x 32 or more" in capsys.readouterr().err
