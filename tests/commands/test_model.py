"""--model: a net of one's own in a JSON file."""

import json

import pytest

from zfcuda import load
from zfcuda.nn import AddSpec, Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.nn.layers import KINDS

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
        (
            '{"input_shape": [4, 4, 1], "layer": [], "layers": []}',
            "unknown key 'layer', which is like 'layers' (keys: ",
        ),
        ('{"input_shape": [4, 4, 1], "layers": [5]}', "layer 1 must be described by its kind, name"),
        ('{"input_shape": [4, 4, 1], "layers": [{"name": "a"}]}', "layer 'a' is of unknown kind None"),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "conv2d"}]}',
            "layer 1 is of unknown kind 'conv2d', which is like",
        ),
        ('{"input_shape": [4, 4, 1], "layers": [{"kind": [], "name": "a"}]}', "layer 'a' is of unknown kind []"),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "fc", "name": "a"}]}',
            "layer 'a' (fc): it has no 'units'; it needs name, units, and may have inputs, block, bias",
        ),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "fc", "name": "a", "units": 3, "colour": 1}]}',
            "layer 'a' (fc): unknown key 'colour'; it needs name, units, and may have inputs, block, bias",
        ),
        (
            '{"input_shape": [4, 4, 1], "layers": [{"kind": "conv", "name": "a", "maps": 3, "kernal": 1}]}',
            "layer 'a' (conv): it has no 'kernel'; unknown key 'kernal', which is like 'kernel'; it needs name, maps, "
            "kernel, and may have inputs, block, bias, stride, padding, groups, dilation",
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


def faults_of(layers):
    """The lines of the error, without the spaces before them."""
    with pytest.raises(ValueError, match="faults") as raised:
        Architecture.from_dict({"input_shape": [8, 8, 3], "initial": "he", "layers": layers})
    return [line.strip() for line in str(raised.value).splitlines()]


CONV = {"kind": "conv", "name": "conv1", "maps": 4, "kernel": 3}


def test_all_faults_of_descriptions_are_told_at_once():
    assert faults_of(
        [
            {**CONV, "kernel_size": 3, "out": 4},
            {"kind": "relu", "name": "relu1"},
            {"kind": "pool", "name": "pool1", "ceil_mode": 1, "inputs": [3]},
            {"kind": "dense"},
        ]
    ) == [
        "3 faults:",
        "layer 'conv1' (conv): unknown key 'kernel_size', which is like 'kernel'; unknown key 'out'; it needs name, "
        "maps, kernel, and may have inputs, block, bias, stride, padding, groups, dilation",
        "pool1: inputs must be names of layers, got (3,); ceil_mode must be true or false, got 1",
        "layer 4 is of unknown kind 'dense'; known: " + ", ".join(KINDS),
    ]


def test_all_faults_of_graphs_are_told_at_once():
    assert faults_of(
        [
            {**CONV, "block": -1},
            {"kind": "relu", "name": "relu1", "inputs": ["conv"]},
            {"kind": "relu", "name": "a/b", "inputs": ["relu1"]},
            {"kind": "add", "name": "sum", "inputs": ["relu1"]},
        ]
    ) == [
        "5 faults:",
        "conv1: block must be a number, 0 or more, or None; got -1",
        'a layer\'s name must be parts with dots between them, without slashes, such as "conv1" or "layer1.0.conv1", '
        "and not \"input\", which is the image; got 'a/b'",
        "relu1: inputs must be \"input\" or layers before it, got 'conv', which is like 'conv1'",
        "sum: a layer of kind add reads two inputs or more, got ('relu1',)",
        "nothing reads the output of conv1, a/b; only the last layer's is the network's",
    ]


def test_all_layers_without_an_output_are_told_at_once():
    assert faults_of(
        [
            CONV,
            {**CONV, "name": "left", "kernel": 9},
            {**CONV, "name": "right", "groups": 3, "inputs": ["conv1"]},
            {"kind": "add", "name": "sum", "inputs": ["left", "right"]},
        ]
    ) == [
        "2 faults:",
        "left: its window of 9 is larger than its padded input, 6 + 0 + 0; the network needs a larger image",
        "right: groups must divide input channels and maps, got 3 for 4 channels and 4 maps",
    ]


def test_of_many_faults_the_first_are_told():
    lines = faults_of([{"kind": f"kind{i}", "name": f"layer{i}"} for i in range(100_000)])
    assert lines[0] == "more than 20 faults, the first of them:"
    assert len(lines) == 21
    assert lines[-1].startswith("layer 'layer19' is of unknown kind 'kind19'")


def test_nets_that_do_not_fit_the_data(fruit, tmp_path, capsys):
    for name, shape, classes, message in (
        ("large", (40, 40, 3), 4, "takes images of 40 x 40 x 3 or larger"),
        ("grey", (28, 28, 1), 4, "takes images of 28 x 28 x 1 or larger, but the data set's are 28 x 28 x 3"),
        ("many", (28, 28, 3), 5, "has 5 outputs, but the data set has 4 classes"),
        ("one", (28, 28, 3), 1, "has 1 output, but the data set has 4 classes; a yes or no has two classes, and an"),
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
