"""Which gradients travel between processes together: buckets of some megabytes, in the order of the backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..nn import Network

__all__ = ["bucket_names", "buckets_of", "places_of"]

_BUCKET = 1 << 20  # values, 4 MiB: large enough that latency does not count, small enough that most are sent early


def buckets_of(net: Network) -> list[dict[str, int]]:
    """How many values each gradient has, bucket by bucket: the same on all ranks, whose backward passes fill the
    buckets in this order."""
    parameters = net.parameters()
    sizes = {name: parameters[name].size for stage in reversed(net.stages) for name in stage.parameter_names}
    return [{name: sizes[name] for name in names} for names in bucket_names(sizes)]


def bucket_names(sizes: Mapping[str, int]) -> list[list[str]]:
    """Which gradients travel together. sizes: how many values each has, in the order in which the backward pass comes
    to them."""
    groups: list[list[str]] = [[]]
    for name in sizes:
        if sum(sizes[other] for other in groups[-1]) >= _BUCKET:
            groups.append([])
        groups[-1].append(name)
    return groups


def places_of(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each gradient of a bucket lies in it."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for end, (name, size) in zip(ends, sizes.items(), strict=True)}
