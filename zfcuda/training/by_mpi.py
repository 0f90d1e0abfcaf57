"""Gradients that are added up through the host's memory, by MPI.

1. A bucket is cut into as many pieces as there are ranks, and each rank gets its piece from all others (all-to-all);
2. it adds them up, rank by rank, and its sum goes to all others (all-gather).

As in a ring, a rank sends and receives 2 (N - 1) / N times the size of the gradients. MPI's own sums (MPI_Allreduce)
may be in any order; here MPI only carries, so that the bits are the same from run to run and on all ranks. Arrays of a
GPU are copied to the host and back, and the host waits for them. Buckets take twice the memory of the gradients.

Values that travel as bfloat16: the shares' (weighted) gradients and the sums are rounded to nearest even, and added up
in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backends import Array, array_module, to_host
from .buckets import places_of
from .checkpoint import fill
from .ranks import Ranks


class ByMpi:
    """The exchange of a step (`zfcuda.training.distributed.Exchange`)."""

    def __init__(self, ranks: Ranks, buckets: Sequence[Mapping[str, int]], dtype: np.dtype):
        """buckets: of `buckets_of`; dtype: as what values travel."""
        self._ranks = ranks
        self._buckets = [_Bucket(ranks, sizes, dtype) for sizes in buckets]
        self._bucket_of = {name: bucket for bucket in self._buckets for name in bucket.places}

    def mean(self, array: Array, counts: np.ndarray) -> Array:
        parts = self._ranks.gather_array(to_host(array))
        total = sum(count * part.astype(np.float64) for count, part in zip(counts, parts, strict=True))
        return array_module(array).asarray((total / counts.sum()).astype(np.float32))

    def send(self, gradients: Mapping[str, Array], weight: np.float32) -> None:
        for name, gradient in gradients.items():
            self._bucket_of[name].put(name, gradient, weight)
        for bucket in self._buckets:
            if not bucket.advance():
                break

    def receive(self, gradients: Mapping[str, Array]) -> None:
        for bucket in self._buckets:
            bucket.finish(gradients)


class _Bucket:
    """Gradients that travel together. It is empty, is being filled, has its pieces on their way (to where they are
    added up), and its sums."""

    def __init__(self, ranks: Ranks, sizes: Mapping[str, int], dtype: np.dtype):
        self.places = places_of(sizes)
        self._ranks = ranks
        self._values = np.empty(sum(sizes.values()), np.float32)
        self._rounded = ops.cast(self._values, dtype)  # what travels, which float32 values do themselves
        edges = [self._values.size * rank // ranks.size for rank in range(ranks.size + 1)]
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
