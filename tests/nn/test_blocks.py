"""The paper's numbers of graphs that come without."""

import pytest

from zfcuda import models
from zfcuda.nn import (
    AddSpec,
    Architecture,
    AvgPoolSpec,
    BatchNormSpec,
    ConcatSpec,
    ConvSpec,
    DropoutSpec,
    FlattenSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    ReLUSpec,
    number_blocks,
)


def blocks(size, *layers):
    return number_blocks(Architecture((size, size, 3), layers)).blocks()


def test_a_chain_ends_a_block_with_each_size_and_each_fully_connected_layer():
    found = blocks(
        16,
        ConvSpec("conv1", 4, 3, padding=1),
        ReLUSpec("relu1"),
        ConvSpec("conv2", 4, 3, padding=1),
        BatchNormSpec("bn2"),
        ReLUSpec("relu2"),
        MaxPoolSpec("pool2", 2, 2),
        ConvSpec("conv3", 4, 3, padding=1),
        ReLUSpec("relu3"),
        DropoutSpec("drop3"),
        FlattenSpec("flatten"),
        FullyConnectedSpec("fc4", 5),
        ReLUSpec("relu4"),
        DropoutSpec("drop4"),
        FullyConnectedSpec("fc5", 2),
    )
    assert found == {1: "relu2", 2: "relu3", 3: "relu4", 4: "fc5"}


@pytest.mark.parametrize("model", ["resnet18_architecture", "resnet50_architecture"])
def test_branches_belong_to_the_layer_where_they_meet(model):
    """ResNet-50's blocks begin with a convolution at the size before."""
    architecture = number_blocks(getattr(models, model)())
    last = 3 if "50" in model else 2
    ends = [
        f"layer{group}.{count}.relu{last}" for group, count in enumerate((2, 3, 5, 2) if last == 3 else (1,) * 4, 1)
    ]
    assert architecture.blocks() == dict(enumerate(["relu", *ends, "fc"], start=1))
    numbers = dict(zip((layer.name for layer in architecture.layers), architecture.numbers(), strict=True))
    assert numbers["layer2.0.conv1"] == numbers["layer2.0.downsample.0"] == numbers["layer2.0.add"] == 3
    assert numbers["avgpool"] == numbers["fc"] == 6


def test_sizes_that_come_again_are_one_block():
    layers = [ConvSpec("conv1", 4, 3), ConvSpec("conv2", 4, 3, padding=2), ReLUSpec("relu2"), AvgPoolSpec("gap")]
    assert blocks(8, *layers) == {1: "conv1", 2: "relu2", 3: "gap"}
    assert blocks(8, ConvSpec("a", 4, 1), ConvSpec("b", 4, 3), ConvSpec("c", 4, 3, padding=2)) == {1: "c", 2: "b"}


def test_a_pool_with_no_weights_at_its_size_ends_the_block_before():
    """As in AlexNet and VGG-16; the pool between conv1 and conv2 is the begin of a block."""
    layers = [
        *(ConvSpec("conv1", 4, 3, padding=1), ReLUSpec("relu1"), MaxPoolSpec("pool1", 2, 2)),
        *(ConvSpec("conv2", 4, 3, padding=1), ReLUSpec("relu2"), MaxPoolSpec("pool2", 2, 2)),
        *(AvgPoolSpec("mean", 2), DropoutSpec("drop"), FullyConnectedSpec("fc3", 5), ReLUSpec("relu3")),
    ]
    assert blocks(16, *layers) == {1: "relu1", 2: "mean", 3: "relu3"}
    assert blocks(16, AvgPoolSpec("halve", 2), *layers[:2]) == {1: "relu1"}


def test_rows_that_are_joined():
    found = blocks(
        4,
        ConvSpec("conv", 4, 3),
        ReLUSpec("relu"),
        FullyConnectedSpec("one", 3, inputs=("relu",)),
        FullyConnectedSpec("two", 3, inputs=("relu",)),
        ConcatSpec("both", inputs=("one", "two")),
        FullyConnectedSpec("classes", 2),
    )
    assert found == {1: "relu", 2: "both", 3: "classes"}


def test_the_image_read_late_holds_everything_together():
    found = blocks(
        8,
        ConvSpec("conv", 3, 3, padding=1),
        ReLUSpec("relu"),
        AddSpec("add", inputs=("relu", "input")),
        MaxPoolSpec("pool", 2, 2),
        ConvSpec("conv2", 2, 3),
    )
    assert found == {1: "pool", 2: "conv2"}
