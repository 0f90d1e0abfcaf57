"""The paper's networks: their shapes and sizes, and the rules that make Table 3's variants (P1, P10)."""

import dataclasses

import numpy as np
import pytest

import zfcuda
from zfcuda import models
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, DropoutSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec


def shapes(architecture):
    return dict(zip((layer.name for layer in architecture.layers), architecture.shapes(), strict=True))


def parameter_count(architecture):
    """Without making the weights."""
    count, shape = 0, architecture.input_shape
    for layer, output in zip(architecture.layers, architecture.shapes(), strict=True):
        if isinstance(layer, (ConvSpec, FullyConnectedSpec)):
            weights = layer.weight_shape(shape)
            count += int(np.prod(weights)) + weights[0]
        shape = output
    return count


def test_zfnet_has_the_paper_s_sizes():
    found = shapes(models.zfnet_architecture())
    assert found["conv1"] == (110, 110, 96)
    assert found["pool1"] == found["norm1"] == (55, 55, 96)
    assert found["conv2"] == (26, 26, 256)
    assert found["pool2"] == found["norm2"] == (13, 13, 256)
    assert found["conv3"] == found["conv4"] == (13, 13, 384)
    assert found["conv5"] == (13, 13, 256)
    assert found["pool5"] == (6, 6, 256)
    assert found["fc6"] == found["fc7"] == (4096,)
    assert found["fc8"] == (1000,)
    assert " ".join(found) == (
        "conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 "
        "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    )
    assert parameter_count(models.zfnet_architecture()) == 62_357_608


def test_alexnet_has_k_s_sizes():
    found = shapes(models.alexnet_architecture())
    assert found["conv1"] == (55, 55, 96)
    assert found["pool1"] == (27, 27, 96)
    assert found["conv2"] == (27, 27, 256)
    assert found["pool2"] == (13, 13, 256)
    assert found["pool5"] == (6, 6, 256)
    assert parameter_count(models.alexnet_architecture()) == 62_378_344


def test_weights_start_as_the_paper_says_and_by_seed():
    network = zfcuda.models.zfnet(10, input_size=80, seed=4)
    assert network.layers["conv2"].weight.std() == pytest.approx(1e-2, rel=0.01)
    assert all(not array.any() for name, array in network.parameters().items() if name.endswith("bias"))
    again, other = zfcuda.models.zfnet(10, 80, seed=4), zfcuda.models.zfnet(10, 80, seed=5)
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(array, again.parameters()[name])
        if name.endswith("weight"):
            assert not np.array_equal(array, other.parameters()[name])


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3), (40, 28, 1)])
def test_zfnet_small(shape):
    network = models.zfnet_small(7, shape)
    assert network.blocks == models.zfnet(10, 100).blocks
    images = np.random.default_rng(0).uniform(-128, 128, (2, *shape)).astype(np.float32)
    assert network.predict(images).shape == (2, 7)
    # Pixels in [0, 1] give logits of much the same size as pixels in [-128, 128].
    small = network.forward(images / 255).output.std() / network.forward(images).output.std()
    assert 0.2 < small < 5


def test_an_image_that_is_too_small():
    with pytest.raises(ValueError, match=r"conv2: .* needs a larger image"):
        models.zfnet(10, input_size=8)


def test_dropping_layers():
    whole = models.zfnet_architecture()
    dropped = models.drop_layers(whole, 3, 4)
    assert not [layer for layer in dropped.layers if layer.name[-1] in "34"]
    assert shapes(dropped)["pool5"] == (6, 6, 256)
    without = models.drop_layers(whole, 6, 7)
    assert [layer.name for layer in without.layers][-2:] == ["pool5", "fc8"]
    assert models.drop_layers(whole) == whole
    for number in (8, 9, 0):
        with pytest.raises(ValueError, match=f"can be dropped are .* got {number}"):
            models.drop_layers(whole, number)


def vgg(*blocks):
    """Two convolutions to a block, named as VGG's are; blocks: the numbers that the layers are given."""
    layers = (
        ConvSpec("conv1_1", 2, 3, padding=1),
        ReLUSpec("relu1_1"),
        ConvSpec("conv1_2", 2, 3, padding=1),
        ReLUSpec("relu1_2"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2_1", 3, 3, padding=1),
        ReLUSpec("relu2_1"),
        ConvSpec("conv2_2", 3, 3, padding=1),
        ReLUSpec("relu2_2"),
        MaxPoolSpec("pool2", 2, 2),
        FullyConnectedSpec("fc", 4),
    )
    given = [dataclasses.replace(layer, block=block) for layer, block in zip(layers, blocks, strict=False)]
    return Architecture((8, 8, 3), (*given, *layers[len(given) :]))


@pytest.mark.parametrize("blocks", [(1,) * 5 + (2,) * 5 + (3,), (1, *[None] * 4, 2, *[None] * 4, 3)])
def test_blocks_have_the_numbers_that_their_layers_are_given(blocks):
    """A layer without one is of the block of the layer before it."""
    architecture = vgg(*blocks)
    assert Network(architecture).blocks == {1: "pool1", 2: "pool2", 3: "fc"}
    dropped = models.drop_layers(architecture, 2)
    assert [layer.name for layer in dropped.layers][4:] == ["pool1", "fc"]
    assert dropped.blocks() == {1: "pool1", 3: "fc"}
    assert shapes(models.scale_layers(architecture, {2: 2}))["conv2_1"] == (4, 4, 6)


def test_weighted_layers_are_counted_where_none_has_a_number():
    architecture = vgg()
    assert Network(architecture).blocks == {1: "relu1_1", 2: "pool1", 3: "relu2_1", 4: "pool2", 5: "fc"}
    dropped = models.drop_layers(architecture, 2, 3)
    assert [layer.name for layer in dropped.layers if "conv" in layer.name] == ["conv1_1", "conv2_2"]
    assert dropped.blocks() == {1: "relu1_1", 4: "pool2", 5: "fc"}  # the others keep theirs
    with pytest.raises(ValueError, match=r"can be dropped are \[1, 2, 3, 4\], got 5"):
        models.drop_layers(architecture, 5)


def test_what_comes_before_the_first_number_belongs_to_no_block():
    layers = (ReLUSpec("entry"), ConvSpec("stem", 2, 3), ReLUSpec("stem.act"), FullyConnectedSpec("head", 2))
    assert Architecture((6, 6, 1), layers).blocks() == {1: "stem.act", 2: "head"}


def test_scaling_layers():
    whole = models.zfnet_architecture()
    found = shapes(models.scale_layers(whole, {6: 0.5, 7: 0.5}))
    assert (found["fc6"], found["drop7"], found["fc8"]) == ((2048,), (2048,), (1000,))
    with pytest.raises(ValueError, match=r"can be scaled are .* got 8"):
        models.scale_layers(whole, {8: 2})
    with pytest.raises(ValueError, match="factor of layer 3 must be positive, got 0"):
        models.scale_layers(whole, {3: 0})


def test_variants_are_those_of_table_3():
    assert len(models.VARIANTS) == 12
    layers = {name: variant.change(variant.base(1000, 224)) for name, variant in models.VARIANTS.items()}
    assert layers["ZF"] == models.zfnet_architecture()
    assert layers["K"] == models.alexnet_architecture()
    for name, architecture in layers.items():
        found = shapes(architecture)
        missing = {"3,4", "7", "6,7", "3,4,6,7"} & {name.rpartition(" ")[2]} if "without" in name else set()
        numbers = set("".join(missing)) - {","}
        assert {f"{'conv' if n in '34' else 'fc'}{n}" for n in numbers}.isdisjoint(found)
        if "units" in name:
            units = int(name.split(" units")[0].rpartition(" ")[2])
            assert found["fc6"] == found["fc7"] == (units,)
        if "maps" in name:
            assert (found["relu3"][2], found["relu4"][2], found["pool5"][2]) == (512, 1024, 512)


@pytest.mark.parametrize("name", models.VARIANTS)
def test_every_variant_changes_the_small_net_too(name):
    small = models.zfnet_small_architecture(3, (28, 28, 1))
    network = Network(models.VARIANTS[name].change(small))
    assert network.predict(np.zeros((1, 28, 28, 1), np.float32)).shape == (1, 3)


def test_a_variant_builds_its_network():
    network = models.VARIANTS["K without layers 3,4,6,7"](num_classes=4, input_size=64, seed=1)
    assert list(network.blocks) == [1, 2, 5, 8]
    assert network.input_shape == (64, 64, 3)
    whole = models.alexnet(4, 64, seed=1)
    np.testing.assert_array_equal(network.layers["conv1"].weight, whole.layers["conv1"].weight)


def test_architectures_that_cannot_be():
    with pytest.raises(ValueError, match="different names"):
        Architecture((4, 4, 1), (ReLUSpec("relu1"), ReLUSpec("relu1")))
    for name in ("", "a/b", "a..b", ".a", "a.", "input", "a\nb", None):
        with pytest.raises(ValueError, match="a layer's name must be parts with dots between them"):
            Architecture((4, 4, 1), (ConvSpec(name, 1, 1),))
    for block in (-1, "1", 1.0, True):
        with pytest.raises(ValueError, match="conv1: block must be a number"):
            Architecture((4, 4, 1), (ConvSpec("conv1", 1, 1, block=block),))
    with pytest.raises(ValueError, match="input_shape must be"):
        Architecture((4, 0, 1), (ReLUSpec("relu1"),))
    with pytest.raises(ValueError, match="initial must be"):
        Architecture((4, 4, 1), (ReLUSpec("relu1"),), initial="xavier")
    for layers, message in [
        ((ReLUSpec("relu1"),), "needs a conv or fc layer, got relu1"),
        ((ConvSpec("conv1", 0, 3),), "conv1: maps must be at least 1, got 0"),
        ((FullyConnectedSpec("fc1", 0),), "fc1: units must be at least 1, got 0"),
        ((DropoutSpec("drop1", 1.0),), r"drop1: probability must be in \[0, 1\), got 1.0"),
        ((FullyConnectedSpec("fc1", 2), ConvSpec("conv2", 1, 1)), r"conv2 needs an input of shape \(H, W, C\)"),
        ((ConvSpec("conv1", 1, 3, stride=0),), "conv1: window and stride must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            Network(Architecture((4, 4, 1), layers))


def test_the_papers_change_of_the_first_layer_keeps_the_rest():
    whole = models.zfnet_small_architecture(10, (32, 32, 3))
    changed = models.change_first_layer(whole, 11, 4)
    assert changed.shapes()[0] == (8, 8, 32)
    assert [layer for layer in changed.layers if layer.name != "conv1"] == list(whole.layers[1:])
    with pytest.raises(ValueError, match="conv1"):
        models.change_first_layer(whole, 11, 0)
