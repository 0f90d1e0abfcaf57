"""A model of `cupy.cuda.nccl` on the model of CuPy, whose sums are MPI's work.

What it models is order: a sum is done when something waits for an event behind it, and is wrong to start (an
AssertionError) on a stream that has not waited for what it is to add up.
"""

import ctypes
import os

import ml_dtypes
import numpy as np


class Nccl:
    """The module."""

    NCCL_SUM = 0
    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_BFLOAT16 = 7, 8, 9
    TYPES = {7: np.float32, 8: np.float64, 9: ml_dtypes.bfloat16}  # noqa: RUF012

    class NcclError(RuntimeError):
        pass

    def __init__(self, cupy, communicator):
        self.cupy = cupy
        self.available = True
        self.mpi = communicator and communicator.Dup()

    def get_unique_id(self):
        return os.urandom(128)

    def NcclCommunicator(self, ndev, commId, rank, config=None):
        assert len(commId) == 128
        found = self.mpi.allgather((ndev, commId, rank, self.cupy.gpu))
        assert [(ndev, commId, rank) for rank in range(ndev)] == [one[:3] for one in found]
        if len({gpu for *_, gpu in found}) < ndev:
            raise self.NcclError("NCCL_ERROR_INVALID_USAGE: two ranks on one GPU")
        return Communicator(self)

    def fails(self, *_):
        raise self.NcclError("NCCL_ERROR_UNHANDLED_CUDA_ERROR: unhandled cuda error")


class Communicator:
    def __init__(self, nccl):
        self._nccl = nccl

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        nccl, cupy = self._nccl, self._nccl.cupy
        assert op == nccl.NCCL_SUM
        stream = cupy.made[stream - 1]
        assert stream.seen == cupy.plain, "a sum of what may not be there yet"
        cupy.calls.append(("sum", count, datatype))
        stream.later(lambda: self._sum(sendbuf, recvbuf, count, nccl.TYPES[datatype]))

    def _sum(self, sendbuf, recvbuf, count, dtype):
        """From the last rank to the first: another order than that of the exchange by MPI."""
        source, target = _memory(sendbuf, count, dtype), _memory(recvbuf, count, dtype)
        *others, total = self._nccl.mpi.allgather(source.copy())
        for part in reversed(others):
            total = total + part
        target[...] = total


def _memory(address, count, dtype):
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8).view(dtype)
