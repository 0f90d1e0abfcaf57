"""Gradients that are added up from GPU to GPU, by NCCL. Not run on a GPU yet: tested on models of CuPy and of NCCL.

A bucket that the backward pass has filled is summed in place (ncclAllReduce) on a stream of its own:

    current stream   ... gradients, bucket, event 1 ... the pass goes on ...   wait for event 2, bucket, update ...
    stream of sums             wait for event 1, all-reduce, event 2

So the host waits for no GPU, and a GPU only for sums that its update needs. All goes through one stream, in one order
on all ranks: the buckets', and between them the means of batch normalisation, which wait for the buckets before them.

NCCL chooses the order of a sum by the size of the array, the number of ranks and how their GPUs are connected: on the
same machine the bits are the same from run to run, and they are the same on all ranks, but it is not MPI's order (the
ranks'). Gradients that travel as bfloat16 are added up as such (NCCL_BFLOAT16): the shares' weighted gradients are
rounded to nearest even, and so is every partial sum, where MPI's exchange adds up in float32. Means are added up in
float64. Buckets take as much memory as the gradients, with bfloat16 1.5 times as much.

The sums are not part of a CUDA graph: before every step the hosts tell each other by MPI how many images they have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backends import BFLOAT16, Array, Backend, resolve
from ..errors import BackendError
from .buckets import places_of
from .ranks import Ranks

_INSTEAD = 'exchange="mpi" (--exchange mpi) adds up through the host\'s memory'


class ByNccl:
    """The exchange of a step (`zfcuda.training.distributed.Exchange`), on the current stream."""

    def __init__(self, ranks: Ranks, buckets: Sequence[Mapping[str, int]], dtype: np.dtype, *, like: Array):
        """buckets: of `buckets_of`; dtype: as what values travel; like: an array on this rank's GPU.

        `BackendError` on all ranks where one has no NCCL or two have one GPU; where one cannot start NCCL, the
        processes of all end, as the others wait for it.
        """
        backend, _ = resolve(like=like)
        self._rank = ranks.rank
        self._device = backend.xp.cuda.Device(like.device.id)
        with self._device:
            self._sums = _Sums(ranks, backend.xp.cuda)
            self._buckets = [_Bucket(backend, sizes, dtype) for sizes in buckets]
        self._bucket_of = {name: bucket for bucket in self._buckets for name in bucket.places}

    def mean(self, array: Array, counts: np.ndarray) -> Array:
        with self._device:
            total = array.astype(np.float64) * int(counts[self._rank])
            self._sums.wait(self._sums.start(total))
            return (total / int(counts.sum())).astype(np.float32)

    def send(self, gradients: Mapping[str, Array], weight: np.float32) -> None:
        with self._device:
            for name, gradient in gradients.items():
                bucket = self._bucket_of[name]
                if bucket.put(name, gradient, weight):
                    bucket.summed = self._sums.start(bucket.travelling)

    def receive(self, gradients: Mapping[str, Array]) -> None:
        with self._device:
            for bucket in self._buckets:
                self._sums.wait(bucket.summed)
                bucket.take(gradients)


class _Sums:
    """Sums over the ranks, one after the other, of arrays on the current GPU."""

    def __init__(self, ranks: Ranks, cuda: Any):
        self._cuda = cuda
        self._nccl, self._communicator = _join(ranks, cuda)
        self._stream = cuda.Stream(non_blocking=True)  # the default stream is often the current one
        self._types = {
            np.dtype(np.float32): self._nccl.NCCL_FLOAT32,
            np.dtype(np.float64): self._nccl.NCCL_FLOAT64,
            BFLOAT16: self._nccl.NCCL_BFLOAT16,
        }

    def start(self, array: Array) -> Any:
        """Sums it in place, behind what the current stream has been given so far -> an event for `wait`."""
        self._stream.wait_event(self._record(self._cuda.get_current_stream()))
        place, kind = array.data.ptr, self._types[array.dtype]
        self._communicator.allReduce(place, place, array.size, kind, self._nccl.NCCL_SUM, self._stream.ptr)
        return self._record(self._stream)

    def wait(self, event: Any) -> None:
        """Nothing that the current stream is given from now on is done before that sum."""
        self._cuda.get_current_stream().wait_event(event)

    def _record(self, stream: Any) -> Any:
        event = self._cuda.Event(disable_timing=True)
        event.record(stream)
        return event


class _Bucket:
    """Gradients that travel together, on their GPU. summed: the event behind their sum."""

    def __init__(self, backend: Backend, sizes: Mapping[str, int], dtype: np.dtype):
        self.places = places_of(sizes)
        self._values = backend.empty((sum(sizes.values()),))
        # What float32 values do themselves.
        self.travelling = self._values if dtype == np.float32 else backend.empty(self._values.shape, dtype)
        self._multiply = backend.xp.multiply
        self._missing = len(self.places)
        self.summed: Any = None

    def put(self, name: str, gradient: Array, weight: np.float32) -> bool:
        """Whether it is full: all ranks fill their buckets in one order."""
        self._multiply(gradient.reshape(-1), weight, out=self._values[self.places[name]])
        self._missing -= 1
        if self._missing:
            return False
        if self.travelling is not self._values:
            ops.cast(self._values, self.travelling.dtype, out=self.travelling)
        return True

    def take(self, gradients: Mapping[str, Array]) -> None:
        """Puts the sums into `gradients`, and is empty again."""
        if self.travelling is not self._values:
            ops.cast(self.travelling, np.float32, out=self._values)
        for name, place in self.places.items():
            gradients[name][...] = self._values[place].reshape(gradients[name].shape)
        self._missing, self.summed = len(self.places), None


def _join(ranks: Ranks, cuda: Any) -> tuple[Any, Any]:
    """CuPy's module of NCCL, and the communicator of all ranks, whose GPUs are the current ones."""
    from cupy.cuda import nccl

    gpu = f"{cuda.Device().pci_bus_id} of {os.uname().nodename}"
    found = ranks.gather((nccl.available, gpu))
    for rank, (available, _) in enumerate(found):
        if not available:
            raise BackendError(
                f"rank {rank} has no NCCL, which adds up the gradients of GPUs: pip install nvidia-nccl-cu12 (or "
                f"-cu13) has it; {_INSTEAD}"
            )
    gpus = [other for _, other in found]
    for rank, other in enumerate(gpus):
        if (first := gpus.index(other)) < rank:
            raise BackendError(
                f"ranks {first} and {rank} have one GPU, {other}, and NCCL needs one for each: "
                f"`Ranks.take_gpu` gives each rank of a host its own, where there are enough; {_INSTEAD}"
            )
    with ranks.ending_together():
        try:
            identity = ranks.broadcast(nccl.get_unique_id() if ranks.rank == 0 else None)
            return nccl, nccl.NcclCommunicator(ranks.size, identity, ranks.rank)
        except nccl.NcclError as error:
            raise BackendError(f"NCCL cannot start: {error} (NCCL_DEBUG=INFO says more); {_INSTEAD}") from error
