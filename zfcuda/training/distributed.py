"""A step of training that several processes make together, each on its share of a batch.

Every parameter's gradient is the sum of the shares' gradients, weighted by how many images they have, in the order of
the ranks. Gradients travel in buckets of some megabytes, as soon as the backward pass has filled one:

1. a bucket is cut into as many pieces as there are ranks, and each rank gets its piece from all others (all-to-all);
2. it adds them up, rank by rank, and its sum goes to all others (all-gather).

As in a ring, a rank sends and receives 2 (N - 1) / N times the size of the gradients. MPI's own sums (MPI_Allreduce)
may be in any order; here MPI only carries, so that the bits are the same from run to run and on all ranks. The arrays
travel through the host's memory, also those of a GPU. Buckets take twice the memory of the gradients.

Values travel as float32, or rounded to bfloat16, which is half as much: the shares' (weighted) gradients and the sums
are rounded to nearest even, and added up in float32. All ranks get the same bits then, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import ops
from ..backends import BFLOAT16, Array, array_module, to_host
from ..nn import Network
from .checkpoint import fill
from .ranks import Ranks, RanksDiffer

GRADIENTS = {"fp32": np.dtype(np.float32), "bf16": BFLOAT16}  # as which they may travel

_BUCKET = 1 << 20  # values, 4 MiB: large enough that latency does not count, small enough that most are sent early


class SharedStep:
    """`Network.loss_and_gradients` of a batch whose parts are with the ranks: loss and gradients of the whole of it.

    It is also the `zfcuda.nn.record.Part` of those passes.
    """

    def __init__(self, ranks: Ranks, net: Network, gradients: str = "fp32"):
        """gradients: as what they travel, of GRADIENTS."""
        self._ranks = ranks
        self._net = net
        self._counts = np.zeros(ranks.size, np.int64)
        self._buckets = _buckets(net, ranks, GRADIENTS[gradients])
        self._bucket_of = {name: bucket for bucket in self._buckets for name in bucket.places}
        self._gradients: Mapping[str, Array] = {}

    def loss_and_gradients(
        self, images: Array, labels: Array, *, dropout_seed: int, step: int | Array
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        """images (n,H,W,C), labels (n,): this rank's part, at least one image; the parts make up the batch in the order
        of the ranks -> mean loss of the batch, probabilities of the part (n, classes), gradients of the mean loss."""
        self._counts = self._ranks.gather_array(np.array(len(images), np.int64))
        if not self._counts.all():
            raise RanksDiffer(
                f"rank {int(np.argmin(self._counts))} has no images of this batch, and needs at least one"
            )
        loss, probabilities, gradients = self._net.loss_and_gradients(
            images, labels, dropout_seed=dropout_seed, step=step, part=self
        )
        for bucket in self._buckets:
            bucket.finish(gradients)
        return self.mean(loss), probabilities, gradients

    # ---- As a part ---------------------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        return int(self._counts[: self._ranks.rank].sum())

    @property
    def size(self) -> int:
        return int(self._counts.sum())

    def mean(self, array: Array) -> Array:
        parts = self._ranks.gather_array(to_host(array))
        total = sum(count * part.astype(np.float64) for count, part in zip(self._counts, parts, strict=True))
        return array_module(array).asarray((total / self.size).astype(np.float32))

    def ready(self, gradients: Mapping[str, Array]) -> None:
        weight = np.float32(self._counts[self._ranks.rank] / self.size)
        for name, gradient in gradients.items():
            self._bucket_of[name].put(name, gradient, weight)
        for bucket in self._buckets:
            if not bucket.advance():
                break


def _buckets(net: Network, ranks: Ranks, dtype: np.dtype) -> list[_Bucket]:
    parameters = net.parameters()
    sizes = {name: parameters[name].size for stage in reversed(net.stages) for name in stage.parameter_names}
    return [_Bucket(ranks, {name: sizes[name] for name in names}, dtype) for names in bucket_names(sizes)]


def bucket_names(sizes: Mapping[str, int]) -> list[list[str]]:
    """Which gradients travel together. sizes: how many values each has, in the order in which the backward pass comes
    to them."""
    groups: list[list[str]] = [[]]
    for name in sizes:
        if sum(sizes[other] for other in groups[-1]) >= _BUCKET:
            groups.append([])
        groups[-1].append(name)
    return groups


class _Bucket:
    """Gradients that travel together. It is empty, is being filled, has its pieces on their way (to where they are
    added up), and its sums."""

    def __init__(self, ranks: Ranks, sizes: Mapping[str, int], dtype: np.dtype):
        ends = np.cumsum(list(sizes.values())).tolist()
        self.places = {name: slice(end - size, end) for end, (name, size) in zip(ends, sizes.items(), strict=True)}
        self._ranks = ranks
        self._values = np.empty(ends[-1], np.float32)
        self._rounded = ops.cast(self._values, dtype)  # what travels, which float32 values do themselves
        edges = [ends[-1] * rank // ranks.size for rank in range(ranks.size + 1)]
        # What MPI calls counts and displacements.
        self._pieces = np.diff(edges).tolist(), edges[:-1]
        self._received = np.empty((ranks.size, self._pieces[0][ranks.rank]), dtype)
        self._missing = len(sizes)
        self._scattering: Any = None
        self._gathering: Any = None

    def put(self, name: str, gradient: Array, weight: np.float32) -> None:
        """The last one sends the bucket off; all ranks fill their buckets in one order."""
        np.multiply(to_host(gradient).reshape(-1), weight, out=self._values[self.places[name]])
        self._missing -= 1
        if self._missing == 0:
            size, count = self._received.shape
            received = [_bits(self._received), ([count] * size, [count * rank for rank in range(size)])]
            _convert(self._values, self._rounded)
            self._scattering = self._ranks.communicator.Ialltoallv([_bits(self._rounded), self._pieces], received)

    def advance(self) -> bool:
        """Whether its sums are at least on their way: the next bucket's may then follow. Waits for nothing."""
        if self._gathering is not None:
            self._gathering.Test()
            return True
        if self._scattering is None or not self._scattering.Test():
            return False
        self._add_up()
        return True

    def _add_up(self) -> None:
        if self._received.size:  # a small bucket has no piece for some ranks
            total = ops.cast(self._received[0], np.float32)
            for part in self._received[1:]:
                total += ops.cast(part, np.float32)
            total = ops.cast(total, self._rounded.dtype)
        else:
            total = self._received[0]
        self._gathering = self._ranks.sums.Iallgatherv(_bits(total), [_bits(self._rounded), self._pieces])

    def finish(self, gradients: Mapping[str, Array]) -> None:
        """Waits for the sums, puts them into `gradients`, and is empty again."""
        if self._gathering is None:
            self._ranks.wait(self._scattering)
            self._add_up()
        self._ranks.wait(self._gathering)
        _convert(self._rounded, self._values)
        for name, place in self.places.items():
            fill(gradients[name], self._values[place].reshape(gradients[name].shape))
        self._missing, self._scattering, self._gathering = len(self.places), None, None


def _convert(source: np.ndarray, target: np.ndarray) -> None:
    if target is not source:
        ops.cast(source, target.dtype, out=target)


def _bits(array: np.ndarray) -> np.ndarray:
    """Of a size that MPI knows."""
    return array.view(f"u{array.itemsize}")
