"""The stages of a forward pass of which only the end is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from .growing import Growing, grow_concatenations
from .residual import Residual, fuse_sums
from .stage import Stage


def passing_stages(stages: Sequence[Stage]) -> list[Stage | Residual | Growing]:
    """A network's stages, in their order, where nothing but what is still to be read need be kept: sums are part of the
    convolutions before them, and concatenations share arrays, where they can."""
    sums, grown = fuse_sums(stages), grow_concatenations(stages)
    products = {product.name for product, _ in sums.values()}
    passing: list[Stage | Residual | Growing] = []
    for stage in stages:
        if stage.name in sums:
            passing.append(sums[stage.name][1])
        elif stage.name not in products:
            passing.append(grown.get(stage.name, stage))
    return passing
