"""Small nets of every shape that graphs have: sums, concatenations, branches of the image, and every kind of layer."""

from zfcuda.nn import (
    AddSpec,
    Architecture,
    AvgPoolSpec,
    BatchNormSpec,
    ClipSpec,
    ConcatSpec,
    ConvSpec,
    DropoutSpec,
    FlattenSpec,
    FullyConnectedSpec,
    LeakyReLUSpec,
    MaxPoolSpec,
    NormSpec,
    PermuteSpec,
    PReLUSpec,
    ReLUSpec,
    SliceSpec,
)

RESIDUAL = Architecture(
    (19, 17, 3),
    (
        ConvSpec("conv1", 8, 3, 2, 1, bias=False),
        BatchNormSpec("bn1"),
        ReLUSpec("relu"),
        MaxPoolSpec("maxpool", 3, 2, 1),
        ConvSpec("a.conv1", 8, 3, padding=1, bias=False),
        BatchNormSpec("a.bn1"),
        ReLUSpec("a.relu"),
        ConvSpec("a.conv2", 8, 3, padding=1, bias=False),
        BatchNormSpec("a.bn2", eps=1e-3),
        AddSpec("a.add", inputs=("a.bn2", "maxpool")),
        ReLUSpec("a.out"),
        ConvSpec("b.conv1", 12, 3, 2, 1),
        BatchNormSpec("b.bn1"),
        ReLUSpec("b.relu"),
        ConvSpec("b.conv2", 12, 3, padding=1),
        ConvSpec("b.down", 12, 1, 2, inputs=("a.out",)),
        BatchNormSpec("b.bn2"),
        AddSpec("b.add", inputs=("b.conv2", "b.bn2", "b.relu")),
        ReLUSpec("b.out"),
        AvgPoolSpec("avgpool"),
        FlattenSpec("flatten"),
        FullyConnectedSpec("fc", 5),
    ),
    initial="he",
)

INCEPTION = Architecture(
    (16, 15, 2),
    (
        ConvSpec("conv1", 6, 3, padding=(0, 1, 2, 1)),
        ReLUSpec("relu1"),
        NormSpec("norm1", size=3, alpha=0.2),
        ConvSpec("one", 4, 1, inputs=("norm1",)),
        ReLUSpec("one.relu"),
        ConvSpec("three.reduce", 3, 1, inputs=("norm1",)),
        ReLUSpec("three.reduce.relu"),
        ConvSpec("three", 5, 3, padding=1),
        ReLUSpec("three.relu"),
        MaxPoolSpec("pool", 3, 1, 1, inputs=("norm1",)),
        ConvSpec("pool.conv", 3, 1),
        ReLUSpec("pool.relu"),
        AvgPoolSpec("avg", 3, 1, 1, inputs=("norm1",)),
        ConcatSpec("concat", inputs=("one.relu", "three.relu", "pool.relu", "avg")),
        MaxPoolSpec("pool2", 3, 2, ceil_mode=True),
        ConvSpec("conv2", 7, 3, padding=2, dilation=2),
        ReLUSpec("relu2"),
        DropoutSpec("drop", 0.3),
        ConvSpec("classes", 4, 1),
        ReLUSpec("classes.relu"),
        AvgPoolSpec("gap"),
    ),
    initial="he",
)

SHUFFLE = Architecture(
    (14, 12, 4),
    (
        ConvSpec("conv1", 8, 3, padding=1),
        ClipSpec("relu6", high=1.5),
        ConvSpec("group1", 12, 1, groups=4),
        BatchNormSpec("bn1"),
        ReLUSpec("relu1"),
        PermuteSpec("shuffle", (0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11)),
        ConvSpec("depthwise", 12, 3, 2, 1, groups=12),
        BatchNormSpec("bn2"),
        ConvSpec("group2", 8, 1, groups=2),
        BatchNormSpec("bn3"),
        AvgPoolSpec("shortcut", 3, 2, 1, count_include_pad=False, inputs=("relu6",)),
        ConcatSpec("concat", inputs=("bn3", "shortcut")),
        LeakyReLUSpec("leaky", 0.2),
        BatchNormSpec("bn4"),
        ReLUSpec("relu4"),
        ConvSpec("conv2", 6, (3, 2), (2, 1), groups=2),
        PReLUSpec("prelu"),
        AvgPoolSpec("avg", (2, 3), 2, ceil_mode=True),
        FullyConnectedSpec("fc1", 10, bias=False),
        BatchNormSpec("bn5"),
        PReLUSpec("prelu2", per_channel=False),
        FullyConnectedSpec("fc2", 3),
    ),
    initial="he",
)

# One-dimensional signals are images of height 1.
SIGNAL = Architecture(
    (1, 60, 2),
    (
        ConvSpec("conv1", 6, (1, 7), (1, 2), (0, 3)),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", (1, 2), (1, 2)),
        ConvSpec("conv2", 8, (1, 3), dilation=(1, 2), bias=False),
        BatchNormSpec("bn2"),
        ReLUSpec("relu2"),
        AvgPoolSpec("gap"),
        FullyConnectedSpec("fc", 3),
    ),
    initial="he",
)

# Images normalised by the network itself, and channels that go different ways.
SPLIT = Architecture(
    (11, 13, 3),
    (
        BatchNormSpec("normalise", eps=0.0, frozen=True),
        ConvSpec("conv1", 8, 3, padding=1),
        BatchNormSpec("fixed", frozen=True),
        ReLUSpec("relu1"),
        SliceSpec("left", 0, 3, inputs=("relu1",)),
        SliceSpec("right", 3, 8, inputs=("relu1",)),
        ConvSpec("conv2", 5, 3, padding=1),
        ReLUSpec("relu2"),
        ConcatSpec("concat", inputs=("left", "relu2")),
        PermuteSpec("shuffle", (7, 3, 0, 4, 1, 5, 2, 6)),
        AvgPoolSpec("gap"),
        FullyConnectedSpec("fc", 6),
        SliceSpec("some", 2, 5),
    ),
    initial="he",
)

# Sums whose inputs are read again later, the first, the second or both, and one of the same map twice; and one of a map
# seen as units. A signal comes to each as it is, or reshaped.
SUMS = Architecture(
    (8, 9, 3),
    (
        ConvSpec("a", 4, 3),
        ConvSpec("b", 4, 3, inputs=("input",)),
        AddSpec("first", inputs=("a", "b")),
        ConvSpec("c", 4, 3, padding=1),
        ReLUSpec("relu"),
        AddSpec("chain", inputs=("first", "relu")),
        AddSpec("second", inputs=("c", "chain")),
        AddSpec("twice", inputs=("second", "second")),
        ConcatSpec("concat", inputs=("twice", "second", "a", "chain")),
        ConvSpec("d", 2, 3, 2, inputs=("concat",)),
        ReLUSpec("d.relu"),
        FlattenSpec("d.units"),
        FullyConnectedSpec("units", 12, inputs=("b",)),
        AddSpec("views", inputs=("units", "d.units")),
        FullyConnectedSpec("fc", 3),
    ),
    initial="he",
)

NETS = {
    "residual": RESIDUAL,
    "inception": INCEPTION,
    "shuffle": SHUFFLE,
    "signal": SIGNAL,
    "split": SPLIT,
    "sums": SUMS,
}
