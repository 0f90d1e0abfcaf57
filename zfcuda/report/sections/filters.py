"""First-layer filters, as several sections show them."""

from __future__ import annotations

import numpy as np

from ...analysis.figures import full_swing, is_signal
from ...backends import to_host
from ...nn import Network
from ...nn.layers import Conv
from ...wording import layer_words
from .. import Picture, weight_tiles
from ..pictures import shows_filters
from ..shown import channel_words, extent_words


def filters(net: Network, suffix: str = "") -> list[Picture]:
    """The first-layer filters, if they can be looked at: those of 1 or 3 channels, and of signals. Saved as
    filtersSUFFIX.png."""
    first = next((layer for layer in net.layers.values() if isinstance(layer, Conv)), None)
    if first is None or not shows_filters(first.weight.shape):
        return []
    weight = to_host(first.weight)
    count, height, width, channels = weight.shape
    of_signal = is_signal(*net.input_shape[:2])
    size = extent_words(height, width, True) if of_signal else f"{height} x {width}"
    lines = f"; {channel_words(channels)}" if of_signal else ""
    caption = (
        f"The {count} filters of {layer_words(first.name)}, {size}, strongest first, each on a scale of "
        f"its own, {_largest(weight)}{lines}"
    )
    return [Picture(f"filters{suffix}", weight_tiles(weight), caption, least=480)]


def _largest(weight: np.ndarray) -> str:
    """The ends of the filters' scales: that of the weakest and the strongest."""
    swings = [full_swing(one) for one in weight]
    weakest, strongest = (f"±{swing:.2g}" for swing in (min(swings), max(swings)))
    return strongest if weakest == strongest else f"{weakest} to {strongest}"
