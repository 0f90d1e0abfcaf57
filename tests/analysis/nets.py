"""Small nets whose answers are known, made by hand, and one that is trained in a second."""

import functools

import numpy as np

from zfcuda import data
from zfcuda.data import Preprocess, mean_image, sample, unit_scale
from zfcuda.nn import Network
from zfcuda.nn.architecture import (
    Architecture,
    ConvSpec,
    DropoutSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    NormSpec,
    ReLUSpec,
)
from zfcuda.training import Trainer

SIZE = 16
# A plus, a stroke down and one across: each excites its own filter most.
PATTERNS = np.array(
    [
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[1, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[1, 1, 1], [0, 0, 0], [0, 0, 0]],
    ],
    np.float32,
)


def pattern_net(size=SIZE, classes=3):
    """conv1 matches the three patterns (zero elsewhere), pool1 halves; fc2 gives class i the largest map i."""
    net = Network(
        Architecture(
            (size, size, 1),
            (
                ConvSpec("conv1", 3, 3, padding=1),
                ReLUSpec("relu1"),
                MaxPoolSpec("pool1", 3, 2, 1),
                FullyConnectedSpec("fc2", classes),
            ),
        )
    )
    weight = np.where(PATTERNS > 0, 1.0, -1.0)[..., None]
    net.layers["conv1"].weight = np.ascontiguousarray(weight, np.float32)
    net.layers["conv1"].bias = -(PATTERNS.sum(axis=(1, 2)) - 0.5).astype(np.float32)
    height, width, maps = net.layers["pool1"].output_shape
    fc = np.zeros((classes, height, width, maps), np.float32)
    for label in range(classes):
        fc[label, ..., label] = 10.0
    net.layers["fc2"].weight = fc.reshape(classes, -1)
    return net


def with_pattern(which, row, column, size=SIZE, strength=1.0):
    """A black image with one pattern, its corner at (row, column)."""
    image = np.zeros((size, size, 1), np.float32)
    image[row : row + 3, column : column + 3, 0] = strength * PATTERNS[which]
    return image


def box_net(box, size=SIZE):
    """Class 1 is as probable as the box (top, left, height, width) is bright, and nothing else matters."""
    net = Network(
        Architecture(
            (size, size, 1),
            (ConvSpec("conv1", 1, 1), ReLUSpec("relu1"), FullyConnectedSpec("fc2", 2)),
        )
    )
    net.layers["conv1"].weight = np.ones((1, 1, 1, 1), np.float32)
    top, left, height, width = box
    fc = np.zeros((2, size, size, 1), np.float32)
    fc[1, top : top + height, left : left + width] = 8.0 / (height * width)
    net.layers["fc2"].weight = fc.reshape(2, -1)
    net.layers["fc2"].bias = np.array([0.0, -4.0], np.float32)
    return net


def deep_net(input_shape=(29, 26, 3), seed=0, classes=4):
    """Every kind of layer, with strides, paddings and windows that do not divide the image."""
    net = Network(
        Architecture(
            input_shape,
            (
                ConvSpec("conv1", 6, 5, stride=2, padding=2),
                ReLUSpec("relu1"),
                MaxPoolSpec("pool1", 3, 2, 1),
                NormSpec("norm1"),
                ConvSpec("conv2", 8, (3, 2), stride=1, padding=(1, 0)),
                ReLUSpec("relu2"),
                ConvSpec("conv3", 5, 3, padding=1),
                ReLUSpec("relu3"),
                MaxPoolSpec("pool3", 2, 2),
                FullyConnectedSpec("fc4", 12),
                ReLUSpec("relu4"),
                DropoutSpec("drop4"),
                FullyConnectedSpec("fc5", classes),
            ),
            initial="lecun",
        ),
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    for name in ("conv1", "conv2", "conv3", "fc4"):
        net.layers[name].bias = rng.uniform(-0.1, 0.3, net.layers[name].bias.shape).astype(np.float32)
    return net


def signal_net(length=64, channels=2, classes=3, seed=0):
    """A net of signals, images one pixel high."""
    layers = (
        ConvSpec("conv1", 6, (1, 7), padding=(0, 3)),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", (1, 2), (1, 2)),
        ConvSpec("conv2", 8, (1, 5), padding=(0, 2)),
        ReLUSpec("relu2"),
        MaxPoolSpec("pool2", (1, 2), (1, 2)),
        FullyConnectedSpec("fc3", 12),
        ReLUSpec("relu3"),
        FullyConnectedSpec("fc4", classes),
    )
    return Network(Architecture((1, length, channels), layers, initial="he"), seed=seed)


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def clothes_net():
    """(A net that is right about three of four pieces of clothing, 500 images of them that it has not seen.)"""
    split = data.open("fashion-mnist")
    train, test = sample(split.train, 2000), sample(split.test, 500)
    layers = (
        ConvSpec("conv1", 8, 5, padding=2),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2", 16, 3, padding=1),
        ReLUSpec("relu2"),
        MaxPoolSpec("pool2", 2, 2),
        ConvSpec("conv3", 16, 3, padding=1),
        ReLUSpec("relu3"),
        FullyConnectedSpec("fc4", 32),
        ReLUSpec("relu4"),
        FullyConnectedSpec("fc5", 10),
    )
    net = Network(Architecture(train.image_shape, layers, initial="lecun"))
    mean = mean_image(train)
    preprocess = Preprocess(mean, train.image_shape[:2], unit_scale(train, mean))
    Trainer(net, lr=0.02).fit(train, test, epochs=3, batch_size=16, preprocess=preprocess, progress=False)
    return net, test
