"""What a forward pass leaves: every layer's activation, and what projection needs (paper 2.1, P3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .. import ops
from ..backends import Array
from .layers import Stage, build_stages, needed_for
from .record import Record

__all__ = ["Trace"]


class Traced(Protocol):
    """What a trace asks of its network."""

    precision: str
    stages: list[Stage]

    @property
    def layers(self) -> Mapping[str, Any]: ...

    def locate(self, layer: str) -> tuple[int, int]: ...


class Trace:
    """One test-mode forward pass of a batch.

    `trace[name]` is the activation of any layer, (N, H, W, C) or (N, units); what the fused operations did not store
    (a map before its pool, a sum before its ReLU) is computed again from its input, with the weights of that moment.
    `trace.output` are the logits (N, classes). All of them are float32, whatever the network's precision: one that was
    stored in bfloat16 is widened when it is asked for. ValueError where the network's precision has changed since.
    """

    def __init__(self, network: Traced, records: list[Record], images: Array | None = None):
        self.network = network
        self._precision = network.precision
        self._records = records
        self._images = images  # which images of the batch that went forward, if this is a selection

    __iter__ = None  # it would try the layers 0, 1, ...

    def __contains__(self, name: object) -> bool:
        """Whether the network has a layer of this name."""
        return name in self.network.layers

    def __getitem__(self, name: str) -> Array:
        return ops.cast(self.upto(name)[1][-1]["y"], np.float32)

    def __repr__(self) -> str:
        layers = sum(len(stage.layers) for stage in self.network.stages)
        return f"<Trace of {len(self)} images through {layers} layers, {self._precision}>"

    def __len__(self) -> int:
        """The number of images."""
        return len(self._records[0]["x"]) if self._images is None else len(self._images)

    @property
    def records(self) -> list[Record]:
        """What each stage of the network kept, in the dtype of its precision."""
        if self.network.precision != self._precision:
            raise ValueError(
                f"trace was made in {self._precision}, but the network's precision is {self.network.precision} now"
            )
        return self._records

    def upto(self, name: str) -> tuple[list[Stage], list[Record]]:
        """The stages that this layer is made by, it being the last one's, and their records. Where a longer stage goes
        on beyond it, what it did not keep is computed again from its inputs."""
        number, position = self.network.locate(name)
        everything = dict(zip(self.network.stages, self.records, strict=True))
        last = self.network.stages[number]
        stages = needed_for(last, self.network.stages[: number + 1])
        records = [everything[stage] for stage in stages]
        if last.name != name:
            stages.pop()
            signals = {"input": self._records[0], **{stage.name: record for stage, record in everything.items()}}
            inputs = [signals[one]["x" if one == "input" else "y"] for one in last.inputs]
            records.pop()
            for stage in build_stages(last.layers[: position + 1]):
                stages.append(stage)
                records.append(stage.forward([stage.enter(x) for x in inputs]))
                inputs = [records[-1]["y"]]
        return stages, records

    @property
    def output(self) -> Array:
        """The logits, (N, classes)."""
        return ops.cast(self._records[-1]["y"], np.float32)

    @property
    def input(self) -> Array:
        """The images that went forward, (N, H, W, C), rounded where the first layer is bfloat16."""
        return ops.cast(self._records[0]["x"], np.float32)

    def select(self, images: Sequence[int] | Array) -> Trace:
        """The trace of these images of the batch, in this order, each as often as it is named: many projections of
        one image need one forward pass. Nothing is copied until it is used."""
        indices = self._records[0].array_module.asarray(images)
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise ValueError(f"images must be a list of one or more image numbers, got {images!r}")
        if int(indices.min()) < 0 or int(indices.max()) >= len(self):
            raise ValueError(f"images must be in [0, {len(self)}), got {images!r}")
        if self._images is not None:
            indices = self._images[indices]
        indices = indices.astype(np.int32)
        return Trace(self.network, [record.select(indices) for record in self.records], indices)
