"""Networks in files: bit for bit back, and what damaged or foreign files get."""

import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors.numpy

import zfcuda
from tests.nn.networks import TINY
from zfcuda.data import Preprocess
from zfcuda.nn import Architecture, Network, checkpoint, models
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, ReLUSpec
from zfcuda.nn.checkpoint import read_checkpoint


@pytest.fixture
def network():
    return Network(TINY, seed=3)


@pytest.fixture
def path(network, tmp_path):
    path = tmp_path / "net.safetensors"
    network.save(path)
    return path


def test_round_trip_is_bit_for_bit(network, path):
    loaded = zfcuda.load(path)
    assert loaded.architecture == network.architecture
    assert list(loaded.layers) == list(network.layers)
    for name, array in network.parameters().items():
        assert loaded.parameters()[name].tobytes() == array.tobytes()
    images = np.random.default_rng(0).normal(size=(2, 21, 18, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(images), network.predict(images))
    loaded.layers["conv1"].weight[:] = 0  # the arrays are the reader's own
    assert loaded.loss_and_gradients(images, np.zeros(2, np.int32))[0] > 0


def without_blocks(architecture):
    """As it was described before layers had a `block`."""
    description = architecture.to_dict()
    layers = [{key: value for key, value in layer.items() if key != "block"} for layer in description["layers"]]
    return {**description, "layers": layers}


@pytest.mark.parametrize("name", models.VARIANTS)
def test_descriptions_without_blocks_take_their_numbers_from_names(name):
    for whole in (models.zfnet_architecture(), models.zfnet_small_architecture(3, (32, 32, 3))):
        architecture = models.VARIANTS[name].change(whole)
        assert Architecture.from_dict(without_blocks(architecture)) == architecture


def test_names_that_do_not_number_the_layers_are_no_numbers(network, path):
    names = dict(zip(("conv1", "conv2", "conv3", "conv4"), ("conv1_1", "conv1_2", "conv2_1", "conv2_2"), strict=True))
    layers = [dataclasses.replace(spec, name=names.get(spec.name, spec.name)) for spec in TINY.layers]
    architecture = Architecture(TINY.input_shape, tuple(layers))
    read = Architecture.from_dict(without_blocks(architecture))
    assert read == architecture
    assert list(read.blocks()) == [1, 2, 3, 4, 5, 6]


def test_layers_named_as_modules_are(tmp_path):
    layers = (ConvSpec("layer1.0.conv1", 3, 3, block=2), ReLUSpec("layer1.0.act"), FullyConnectedSpec("head", 2))
    network = Network(Architecture((5, 5, 1), layers), seed=1)
    network.save(tmp_path / "net")
    loaded = zfcuda.load(tmp_path / "net")
    assert list(loaded.parameters()) == ["layer1.0.conv1.weight", "layer1.0.conv1.bias", "head.weight", "head.bias"]
    assert loaded.architecture == network.architecture
    assert loaded.blocks == {2: "head"}
    np.testing.assert_array_equal(loaded.layers["layer1.0.conv1"].weight, network.layers["layer1.0.conv1"].weight)


def test_the_same_network_makes_the_same_file(network, path, tmp_path):
    network.save(str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_other_tensors_and_metadata_travel_along(network, tmp_path):
    path = tmp_path / "with state"
    state = {"optimizer/conv1.weight": np.arange(3, dtype=np.int64)}
    network.save(path, tensors=state, metadata={"epoch": "7"})
    found = read_checkpoint(path)
    assert found.metadata == {"epoch": "7"}
    np.testing.assert_array_equal(found.tensors["optimizer/conv1.weight"], np.arange(3))
    assert zfcuda.load(path).architecture == network.architecture
    with pytest.raises(ValueError, match="tensors must be named 'prefix/name', got velocity"):
        network.save(path, tensors={"velocity": np.zeros(1)})


def test_a_file_cut_short_at_any_length(path):
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(zfcuda.CheckpointError, match=path.name):
            zfcuda.load(path)


def test_a_file_that_is_damaged(path):
    whole = path.read_bytes()
    for damaged in (b"\xff" * 8 + whole[8:], whole[:8] + b"]" + whole[9:], whole + b"more", b"not safetensors at all"):
        path.write_bytes(damaged)
        with pytest.raises(zfcuda.CheckpointError, match=path.name):
            zfcuda.load(path)


def test_a_file_that_is_not_there(tmp_path):
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(missing)):
            zfcuda.load(missing)


def rewrite(path, change_tensors=lambda tensors: None, header=None, **changes):
    """The file with other tensors, a part of its header changed, or another header."""
    tensors = dict(read_checkpoint(path).parameters)
    change_tensors(tensors)
    if header is None:
        header = {"format": 1, "architecture": TINY.to_dict(), "classes": None, "preprocess": None, "metadata": {}}
        header = json.dumps({**header, **changes})
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"zfcuda": header}))


def test_a_safetensors_file_of_somebody_else(path):
    path.write_bytes(safetensors.numpy.save({"conv1.weight": np.zeros(3, np.float32)}, metadata={"format": "pt"}))
    with pytest.raises(zfcuda.CheckpointError, match="holds no network of zfcuda"):
        zfcuda.load(path)


def _with_tensor(path, name, kind, count, size):
    """The file with one more tensor, of zeros that take no room on the disk."""
    content = path.read_bytes()
    begins = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begins])
    end = len(content) - begins
    header[name] = {"dtype": kind, "shape": [count], "data_offsets": [end, end + count * size]}
    described = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described + content[begins:])
        file.truncate(file.tell() + count * size)


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("BF16", 2), ("F32", 4)])
def test_tensors_are_not_read_before_they_are_known(path, kind, size):
    _with_tensor(path, "more.weight", kind, 2**34, size)  # more than fits into memory
    with pytest.raises(zfcuda.CheckpointError, match=r"net\.safetensors .*missing or unknown: more\.weight"):
        zfcuda.load(path)


def test_other_tensors_are_read_only_where_they_are_asked_for(path, network):
    _with_tensor(path, "velocity/more", "F8_E5M2", 2**34, 1)
    assert zfcuda.load(path).architecture == network.architecture
    assert read_checkpoint(path, others=False).tensors == {}


def test_other_tensors_of_dtypes_that_numpy_lacks(path):
    _with_tensor(path, "velocity/more", "F8_E5M2", 8, 1)
    with pytest.raises(zfcuda.CheckpointError, match=r"net\.safetensors does not hold"):
        read_checkpoint(path)


def test_a_mean_image_of_any_size(path):
    network = zfcuda.load(path)
    network.preprocess = Preprocess(np.zeros(TINY.input_shape, np.float32), TINY.input_shape[:2])
    network.save(path)
    path.write_bytes(path.read_bytes().replace(b'"preprocess/mean"', b'"preprocess/else"'))
    _with_tensor(path, "preprocess/mean", "F32", 2**30, 4)
    with pytest.raises(zfcuda.CheckpointError, match=r"mean image is of \(1073741824,\)"):
        zfcuda.load(path)


def test_a_format_of_the_future(path):
    rewrite(path, format=2)
    with pytest.raises(zfcuda.CheckpointError, match="its format is 2, and this version reads 1"):
        zfcuda.load(path)


@pytest.mark.parametrize("header", ["", "{", "[]", "{}", "null", "[" * 100_000, '{"format": 1}'])
def test_headers_that_cannot_be_read(path, header):
    rewrite(path, header=header)
    with pytest.raises(zfcuda.CheckpointError, match=path.name):
        zfcuda.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("fc6.bias"), "missing or unknown: fc6.bias"),
        (lambda tensors: tensors.update({"fc9.bias": np.zeros(3, np.float32)}), "missing or unknown: fc9.bias"),
        (lambda tensors: tensors.update({"fc6.bias": np.zeros(3, np.float32)}), "fc6.bias must have shape"),
        (lambda tensors: tensors.update({"fc6.bias": np.zeros(4)}), "fc6.bias must be float32"),
    ],
)
def test_weights_of_another_architecture(path, change, message):
    rewrite(path, change)
    with pytest.raises(zfcuda.CheckpointError, match=message) as raised:
        zfcuda.load(path)
    assert str(path) in str(raised.value)


def changed_architectures():
    yield []
    yield {}
    for changes in (
        {"layers": []},
        {"layers": 3},
        {"layers": [{"kind": "attention", "name": "a1"}]},
        {"layers": [{"kind": "conv", "name": "conv1", "maps": "many", "kernel": 3}]},
        {"layers": [{"kind": "conv", "name": "conv1", "maps": 3, "kernel": 99}]},
        {"input_shape": [21, 18]},
        {"input_shape": None},
        {"initial": "zeros"},
    ):
        yield {**TINY.to_dict(), **changes}


@pytest.mark.parametrize("architecture", list(changed_architectures()), ids=range(10))
def test_architectures_that_describe_no_network(path, architecture):
    rewrite(path, architecture=architecture)
    with pytest.raises(zfcuda.CheckpointError, match=path.name):
        zfcuda.load(path)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kind": "conv", "maps": 2.5, "kernel": 3}, r"x: maps must be a whole number below 2\^31, got 2\.5"),
        ({"kind": "conv", "maps": True, "kernel": 3}, "x: maps must be a whole number .* got True"),
        ({"kind": "conv", "maps": 2**40, "kernel": 1}, "x: maps must be a whole number .* got 1099511627776"),
        (
            {"kind": "conv", "maps": 2, "kernel": [3, 3, 3]},
            r"x: window must be an int or \(height, width\), got \(3, 3, 3",
        ),
        ({"kind": "conv", "maps": 2, "kernel": 3, "padding": 10**30}, "x: padding is out of range: 10000"),
        ({"kind": "conv", "maps": 2, "kernel": 3, "bias": "no"}, "x: bias must be true or false, got 'no'"),
        ({"kind": "leaky_relu", "slope": "steep"}, "x: slope must be a number, got 'steep'"),
        ({"kind": "clip", "high": float("nan")}, "x: high must be a number, got nan"),
        ({"kind": "norm", "k": -1}, "x: k must be positive, alpha not negative, all finite, in float32; got k=-1"),
        ({"kind": "norm", "size": 0}, "x: size must be at least 1, got 0"),
        ({"kind": "permute", "order": [0.0, 1.0]}, r"x: order must be whole numbers, got \(0\.0, 1\.0\)"),
        ({"kind": "relu", "inputs": [3]}, r"x: inputs must be names of layers, got \(3,\)"),
    ],
)
def test_fields_of_layers_that_are_not_what_they_must_be(layer, message):
    first = {"kind": "conv", "name": "first", "maps": 2, "kernel": 1}
    description = {"input_shape": [4, 4, 2], "initial": "he", "layers": [first, {"name": "x", **layer}]}
    with pytest.raises(ValueError, match=message):
        zfcuda.nn.Architecture.from_dict(description)


@pytest.mark.parametrize("shape", [[4, 4, 2.0], [4, 4, True], ["4", 4, 2], [4, 4], [0, 4, 2]])
def test_shapes_of_images_that_are_none(shape):
    with pytest.raises(
        ValueError, match=r"input_shape must be \(height, width, channels\), all positive whole numbers"
    ):
        zfcuda.nn.Architecture(shape, TINY.layers)


@pytest.mark.parametrize(
    "changes", [{"classes": 3}, {"preprocess": []}, {"preprocess": {"crop": [28, 28], "scale": 1.0}}, {"metadata": 3}]
)
def test_parts_of_the_header_that_cannot_be_read(path, changes):
    rewrite(path, **changes)
    with pytest.raises(zfcuda.CheckpointError, match=path.name):
        zfcuda.load(path)


@pytest.mark.parametrize("classes", [["cat"], ["cat"] * 99, "cats!", [1] * 5, {}])
def test_classes_that_are_not_those_of_the_outputs(path, classes):
    rewrite(path, classes=classes)
    with pytest.raises(
        zfcuda.CheckpointError, match=rf"{path.name} .* its classes must be \d+ names, one for each output"
    ):
        zfcuda.load(path)


def test_preprocessing_for_other_inputs(network, path):
    for size, channels in ((20, 3), (18, 1)):
        network.preprocess = Preprocess(np.zeros((32, 32, channels), np.float32), (21, size))
        network.save(path)
        with pytest.raises(
            zfcuda.CheckpointError, match=rf"makes images of \(21, {size}, {channels}\), and it takes \(21, 18, 3"
        ):
            zfcuda.load(path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(network, path, monkeypatch):
    before = path.read_bytes()
    network.layers["conv1"].weight[:] = 0

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        network.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_is_not_there(network, tmp_path):
    with pytest.raises(FileNotFoundError):
        network.save(tmp_path / "none" / "net.safetensors")


def test_a_saved_file_has_ordinary_permissions(path, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode
