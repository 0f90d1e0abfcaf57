"""Ranks on models of GPUs train as one does, and add up their gradients by NCCL or MPI."""

import re

import numpy as np
import pytest

from tests.mpi import spoken
from zfcuda.backends import BFLOAT16
from zfcuda.training import Trainer
from zfcuda.training.distributed import exchange_for

from . import tiny
from .scenarios import assert_near, bits, found, raised_by_all, run


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("exchange", ["auto", "nccl", "mpi"])
def test_ranks_on_gpus_train_as_one(exchange, tmp_path):
    weights, numbers = found(1, "on_gpu", tmp_path, exchange)
    of_ranks, losses = found(2, "on_gpu", tmp_path, exchange)
    np.testing.assert_allclose(losses["losses"], numbers["losses"], rtol=0, atol=1e-5)
    assert_near(of_ranks, weights)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(("name", "words"), [("on_gpu", ("fp32",)), ("on_gpu", ("bf16",)), ("normalised_on_gpu", ())])
def test_nccl_trains_as_mpi_does(name, words, tmp_path):
    """And with the same bits from run to run."""
    weights, numbers = found(2, name, tmp_path, "mpi", *words)
    by_nccl, losses = found(2, name, tmp_path, "nccl", *words)
    np.testing.assert_allclose(losses["losses"], numbers["losses"], rtol=0, atol=1e-6)
    assert_near(by_nccl, weights)
    again, same = found(2, name, tmp_path, "nccl", *words)
    assert bits(again) == bits(by_nccl)
    assert same == losses


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(("gradients", "dtype"), [("fp32", np.float32), ("bf16", BFLOAT16)])
def test_nccl_adds_up_as_what_gradients_travel(gradients, dtype, tmp_path):
    """To the bit, in the order of the model, with every partial sum rounded."""
    arrays, _ = found(3, "summed", tmp_path, gradients, "cuda")
    weights = (np.arange(1, 4) / 6).astype(np.float32)
    for name in "abc":
        first, second, third = ((arrays[f"{name} of {rank}"] * weights[rank]).astype(dtype) for rank in range(3))
        assert np.array_equal(arrays[name], (third + second + first).astype(np.float32)), name


@pytest.mark.usefixtures("gpus")
def test_a_sum_follows_its_gradients_and_the_update_follows_it(tmp_path):
    """On streams, by events: sums start while the pass goes on, in the same order on all ranks, and nothing but the
    current stream waits for them."""
    _, numbers = found(2, "watched", tmp_path)

    def summing(count, datatype):
        return [["record", 0], ["wait", 1], ["sum", count, datatype], ["record", 1]]

    float32, float64 = 7, 8
    assert numbers["calls"][:-1] == [  # the last one is of the loss that is read later
        *[["ready", "fc8.weight", "fc8.bias"], ["ready", "fc6.weight", "fc6.bias"], *summing(387, float32)],
        *[["ready", "conv2.weight", "conv2.bias"], *summing(188, float32)],
        *[["ready", "conv1.weight", "conv1.bias"], *summing(45, float32)],
        *3 * [["wait", 0]],
        *[*summing(1, float64), ["wait", 0]],
        ["update"],
    ]


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_nccl", r"rank 1 has no NCCL, .*: pip install nvidia-nccl-cu12 .*"),
        ("one_gpu", r"ranks 0 and 1 have one GPU, 0000:00:00.0 of .*, and NCCL needs one for each: .*"),
    ],
)
def test_nccl_is_not_there_or_has_too_few_gpus(name, said, tmp_path):
    lines = raised_by_all(2, name, tmp_path)
    assert len(set(lines)) == 1
    assert re.fullmatch(
        said + re.escape('exchange="mpi" (--exchange mpi) adds up through the host\'s memory'), lines[0]
    )


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(("rank", "where"), [(0, "get_unique_id"), (1, "NcclCommunicator")])
def test_nccl_that_does_not_start_on_one_rank_ends_all(rank, where, tmp_path):
    done = run(2, "nccl_fails", tmp_path, where)
    assert done.returncode != 0
    (line,) = spoken(done)
    assert line.startswith(f"zfcuda: rank {rank}: NCCL cannot start: NCCL_ERROR_UNHANDLED_CUDA_ERROR: unhandled")
    assert 'exchange="mpi"' in line


@pytest.mark.usefixtures("gpus")
def test_ranks_that_would_add_up_differently(tmp_path):
    (line, _) = raised_by_all(2, "other_exchange", tmp_path)
    assert line == "rank 1 differs from rank 0: exchange 'mpi' instead of 'nccl'"


def test_an_exchange_that_cannot_be():
    with pytest.raises(ValueError, match="exchange must be one of auto, nccl, mpi; got 'gloo'"):
        Trainer(tiny.network(), exchange="gloo")
    with pytest.raises(ValueError, match="exchange 'nccl' needs a network on a GPU, and this one is on the CPU"):
        exchange_for(tiny.network(), "nccl")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(("count", "by"), [(2, {"exchange_s", "nccl_s"}), (1, {"exchange_s"})])
def test_the_benchmark_measures_the_exchange_of_the_trainer(count, by, tmp_path):
    """By NCCL only where each rank has a GPU."""
    _, numbers = found(2, "measured", tmp_path, count)
    assert by == numbers.keys() & {"exchange_s", "nccl_s"}
    assert all(numbers[name].keys() == {"fp32", "bf16"} for name in by)
    assert numbers["together_s"].keys() == {"1"}
