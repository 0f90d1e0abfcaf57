"""The stages of a forward pass of which only the end is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from .joined import Joined, Written, join_concatenations
from .residual import Residual, fuse_sums
from .stage import Stage


def passing_stages(stages: Sequence[Stage]) -> list[Stage | Residual | Written | Joined]:
    """A network's stages, in their order, where nothing but what is still to be read need be kept: sums are part of the
    convolutions before them, and concatenations share arrays with theirs, where they can."""
    sums, joined = fuse_sums(stages), join_concatenations(stages)
    products = {product.name for product, _ in sums.values()}
    passing: list[Stage | Residual | Written | Joined] = []
    for stage in stages:
        if stage.name in sums:
            passing.append(sums[stage.name][1])
        elif stage.name not in products:
            passing.append(joined.get(stage.name, stage))
    return passing
