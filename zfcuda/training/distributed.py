"""A step of training that several processes make together, each on its share of a batch.

Every parameter's gradient is the sum of the shares' gradients, weighted by how many images they have. Gradients travel
in buckets of some megabytes, as soon as the backward pass has filled one: from GPU to GPU by NCCL (`by_nccl`), or
through the host's memory by MPI (`by_mpi`), which adds up in the order of the ranks. Either way all ranks get the same
bits, and for as many ranks on the same machine the same ones from run to run; the two add up in different orders, so
that theirs differ by rounding. Values travel as float32, or rounded to bfloat16, which is half as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ..backends import BFLOAT16, Array
from ..nn import Network
from .buckets import buckets_of
from .by_mpi import ByMpi
from .by_nccl import ByNccl
from .ranks import Ranks, RanksDiffer

GRADIENTS = {"fp32": np.dtype(np.float32), "bf16": BFLOAT16}  # as which they may travel
EXCHANGES = ("auto", "nccl", "mpi")


class Exchange(Protocol):
    """How the ranks' arrays become the batch's. All ranks call the same, in the same order."""

    def mean(self, array: Array, counts: np.ndarray) -> Array:
        """The mean over the images of the batch, from the mean over those of this rank; counts: the ranks' images."""
        ...

    def send(self, gradients: Mapping[str, Array], weight: np.float32) -> None:
        """Gradients that are what they will be, in the order of the buckets, and by what they count in the sum."""
        ...

    def receive(self, gradients: Mapping[str, Array]) -> None:
        """Puts the sums of all that was sent into `gradients`."""
        ...


def check_options(gradients: str, exchange: str) -> None:
    """ValueError for what is not among GRADIENTS and EXCHANGES."""
    for name, value, allowed in (("gradients", gradients, GRADIENTS), ("exchange", exchange, EXCHANGES)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def exchange_for(net: Network, exchange: str) -> str:
    """ "nccl" or "mpi", for one of EXCHANGES. ValueError where NCCL is asked for and the network is on the CPU."""
    on_host = isinstance(next(iter(net.parameters().values())), np.ndarray)
    if exchange == "nccl" and on_host:
        raise ValueError("exchange 'nccl' needs a network on a GPU, and this one is on the CPU")
    if exchange == "auto":
        return "mpi" if on_host else "nccl"
    return exchange


class SharedStep:
    """`Network.loss_and_gradients` of a batch whose parts are with the ranks: loss and gradients of the whole of it.

    It is also the `zfcuda.nn.record.Part` of those passes.
    """

    def __init__(self, ranks: Ranks, net: Network, gradients: str = "fp32", exchange: str = "auto"):
        """gradients: as what they travel, of GRADIENTS; exchange: how, of EXCHANGES. `BackendError` on all ranks where
        NCCL is to add up and cannot."""
        self._ranks = ranks
        self._net = net
        self._counts = np.zeros(ranks.size, np.int64)
        buckets, dtype = buckets_of(net), GRADIENTS[gradients]
        self._exchange: Exchange
        if exchange_for(net, exchange) == "nccl":
            self._exchange = ByNccl(ranks, buckets, dtype, like=next(iter(net.parameters().values())))
        else:
            self._exchange = ByMpi(ranks, buckets, dtype)

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
        self._exchange.receive(gradients)
        return self.mean(loss), probabilities, gradients

    # ---- As a part ---------------------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        return int(self._counts[: self._ranks.rank].sum())

    @property
    def size(self) -> int:
        return int(self._counts.sum())

    def mean(self, array: Array) -> Array:
        return self._exchange.mean(array, self._counts)

    def ready(self, gradients: Mapping[str, Array]) -> None:
        self._exchange.send(gradients, np.float32(self._counts[self._ranks.rank] / self.size))
