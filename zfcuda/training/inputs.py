"""What a network is trained on, where nobody says how images become its inputs."""

from __future__ import annotations

from ..data import Dataset, Preprocess, mean_image, unit_scale
from ..nn import Network


def default_preprocess(net: Network, train: Dataset) -> Preprocess:
    """The mean image of `train`, a crop of the network's input size, and the scale that the weights were made for.

    The paper's weights start at 1e-2 and meet inputs of roughly [-128, 128]: scale 1 (P2). Weights that start at
    LeCun's or He's scale are made for inputs of unit variance.
    """
    mean = mean_image(train)
    scale = unit_scale(train, mean) if net.architecture.initial != "gaussian" else 1.0
    return Preprocess(mean, net.input_shape[:2], scale)
