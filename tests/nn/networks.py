"""Networks for tests, and an independent float64 network made of the oracles."""

import numpy as np

from tests import oracles
from zfcuda.nn.architecture import (
    Architecture,
    ConvSpec,
    DropoutSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    NormSpec,
    ReLUSpec,
)

# Every kind of stage: blocks, conv + ReLU, a conv alone, a pool and a ReLU that belong to no block; odd sizes.
TINY = Architecture(
    (21, 18, 3),
    (
        ConvSpec("conv1", 6, kernel=3, stride=2, padding=1),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 3, 2, 1),
        NormSpec("norm1", size=3, alpha=0.3),
        ConvSpec("conv2", 8, kernel=3, padding=1),
        ReLUSpec("relu2"),
        NormSpec("norm2", alpha=0.1, beta=0.5),
        ConvSpec("conv3", 7, kernel=(3, 2), padding=(1, 0)),
        MaxPoolSpec("pool3", 2, 1),
        ReLUSpec("relu3"),
        ConvSpec("conv4", 9, kernel=2),
        ReLUSpec("relu4"),
        MaxPoolSpec("pool4", 2, 1),
        FullyConnectedSpec("fc5", 12),
        ReLUSpec("relu5"),
        DropoutSpec("drop5", 0.4),
        FullyConnectedSpec("fc6", 4),
    ),
    initial="lecun",
)


def randomise(network, rng):
    """Biases that are not zero, so that they are tested too."""
    for name, array in network.parameters().items():
        if name.endswith("bias"):
            array += rng.normal(0, 0.2, array.shape).astype(np.float32)
    return network


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


class Reference:
    """The same network in float64, layer by layer: `activations[name]` after `forward`."""

    def __init__(self, network):
        self.specs = network.architecture.layers
        self.weights = {name: array.astype(np.float64) for name, array in network.parameters().items()}

    def forward(self, x, *, dropout_seed=None, step=0):
        """With dropout if a seed is given; the offset of a layer's mask is its place in the network and the step."""
        self.inputs, self.activations, self.switches = {}, {}, {}
        x = x.astype(np.float64)
        for index, spec in enumerate(self.specs):
            self.inputs[spec.name] = x
            if spec.kind == "conv":
                w, b = self.weights[f"{spec.name}.weight"], self.weights[f"{spec.name}.bias"]
                x = oracles.conv2d(x, w, b, stride=_pair(spec.stride), padding=_pair(spec.padding))
            elif spec.kind == "relu":
                x = np.maximum(x, 0)
            elif spec.kind == "pool":
                x, self.switches[spec.name] = oracles.max_pool2d(x, **_pool(spec))
            elif spec.kind == "norm":
                x = oracles.local_response_norm(x, **_norm(spec))
            elif spec.kind == "fc":
                x = x.reshape(len(x), -1) @ self.weights[f"{spec.name}.weight"].T + self.weights[f"{spec.name}.bias"]
            elif dropout_seed is not None:
                x = oracles.dropout(x, probability=spec.probability, seed=dropout_seed, offset=(step << 16) | index)
            self.activations[spec.name] = x
        return x

    def loss(self, x, labels, **dropout):
        return oracles.cross_entropy(self.forward(x, **dropout), labels)

    def project(self, layer, signal, rule):
        names = [spec.name for spec in self.specs]
        signal = signal.astype(np.float64)
        for spec in reversed(self.specs[: names.index(layer) + 1]):
            x = self.inputs[spec.name]
            if spec.kind == "conv":
                signal = oracles.conv_transpose2d(
                    signal,
                    self.weights[f"{spec.name}.weight"],
                    stride=_pair(spec.stride),
                    padding=_pair(spec.padding),
                    output_size=x.shape[1:3],
                )
            elif spec.kind == "relu":
                if rule != "deconvnet":
                    signal = np.where(x > 0, signal, 0)
                if rule != "gradient":
                    signal = np.maximum(signal, 0)
            elif spec.kind == "pool":
                signal = oracles.max_unpool2d(signal, self.switches[spec.name], output_size=x.shape[1:3], **_pool(spec))
            elif spec.kind == "norm" and rule != "deconvnet":
                signal = oracles.local_response_norm_grad(signal, x, **_norm(spec))
            elif spec.kind == "fc":
                signal = (signal @ self.weights[f"{spec.name}.weight"]).reshape(x.shape)
        return signal


def _pool(spec):
    return {"window": _pair(spec.window), "stride": _pair(spec.stride), "padding": _pair(spec.padding)}


def _norm(spec):
    return {"size": spec.size, "alpha": spec.alpha, "beta": spec.beta, "k": spec.k}
