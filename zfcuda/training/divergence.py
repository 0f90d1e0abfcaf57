"""Where a training went wrong: the first numbers that are not finite."""

from __future__ import annotations

from ..backends import Array
from ..nn import Network
from ..nn.finite import is_finite


def describe_divergence(net: Network, images: Array) -> str:
    """Names the first layer, from the images up, whose weights or activations are not all finite."""
    if not is_finite(images):
        return "the images are not finite"
    trace = net.forward(images)
    for name, layer in net.layers.items():
        for parameter in layer.parameter_shapes:
            if not is_finite(getattr(layer, parameter)):
                return f"{name}.{parameter} is not finite"
        if not is_finite(trace[name]):
            return f"the activations of {name} are not finite"
    return "weights and activations are finite, but the logits are too large for a finite loss"
