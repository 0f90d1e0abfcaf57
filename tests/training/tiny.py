"""A network and a data set so small that an epoch takes milliseconds."""

from __future__ import annotations

import numpy as np

from zfcuda.data import ArrayDataset
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, DropoutSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

CLASSES = ("left", "middle", "right")


def architecture(units: int = 8, dropout: float = 0.25) -> Architecture:
    layers = (
        ConvSpec("conv1", 4, 3, padding=1),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2", 5, 3, padding=1),
        ReLUSpec("relu2"),
        FullyConnectedSpec("fc6", units),
        ReLUSpec("relu6"),
        DropoutSpec("drop6", dropout),
        FullyConnectedSpec("fc8", len(CLASSES)),
    )
    return Architecture((6, 6, 1), layers, initial="lecun")


def network(**options) -> Network:
    return Network(architecture(**options), seed=1)


def dataset(n: int = 50, size: tuple[int, int] = (6, 6), seed: int = 0) -> ArrayDataset:
    """Noise with a bright column at the left, in the middle or at the right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n, np.int32)
    images = rng.integers(0, 100, (n, *size, 1), dtype=np.uint8)
    columns = (labels * (size[1] - 1)) // 2
    images[np.arange(n), :, columns] += 150
    return ArrayDataset(images, labels, CLASSES)


def batch(n: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ready inputs of unit variance and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6, 6, 1), np.float32), rng.integers(0, 3, n, np.int32)


def bits(net: Network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in net.parameters().items()}
