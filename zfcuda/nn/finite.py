"""NaN and infinity in a network: nothing may be concluded from them, so whatever looks at a network refuses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..backends import Array, array_module, to_host

if TYPE_CHECKING:
    from .network import Network

__all__ = ["check_activations", "check_weights", "is_finite"]


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(array_module(array).isfinite(array).all())


def check_weights(net: Network) -> None:
    """ValueError that names the first parameter, or running average, with values that are not finite."""
    for name, array in (net.parameters() | net.state()).items():
        if not is_finite(array):
            raise ValueError(f"the network's {name} has values that are not finite")


def check_activations(activations: Array, layer: str, first_image: int = 0) -> Array:
    """A layer's activations (N, ...) of images first_image, first_image + 1, ... themselves; ValueError that names the
    layer and the image where one is not finite."""
    if not is_finite(activations):
        found = to_host(activations).reshape(len(activations), -1)
        image = first_image + int(np.argmin(np.isfinite(found).all(axis=1)))
        raise ValueError(f"layer {layer!r} has activations that are not finite for image {image}")
    return activations
