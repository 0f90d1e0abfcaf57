"""Several processes train as one does: the same losses but for rounding, the same bits from run to run; and how they
end when something goes wrong on one of them. `on_ranks.py` is what they run."""

import json
import os
import re

import numpy as np
import pytest

import zfcuda
from tests.mpi import spoken
from zfcuda.backends import BFLOAT16
from zfcuda.training import Trainer

from . import tiny
from .scenarios import assert_metrics_near, assert_near, bits, found, metrics_of, raised_by_all, run

# ---- The same as one process ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return found(1, "small", tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("n", [2, 3])
def test_twenty_steps_of_the_small_net(n, one_process, tmp_path):
    weights, numbers = found(n, "small", tmp_path)
    np.testing.assert_allclose(numbers["losses"], one_process[1]["losses"], rtol=0, atol=1e-5)
    assert len(numbers["losses"]) == 20
    assert_near(weights, one_process[0])
    again, losses = found(n, "small", tmp_path)
    assert bits(again) == bits(weights)
    assert losses == numbers


@pytest.mark.parametrize(("gradients", "dtype"), [("fp32", np.float32), ("bf16", BFLOAT16)])
@pytest.mark.parametrize("n", [2, 3])
def test_gradients_are_added_up_in_float32_in_the_order_of_the_ranks(n, gradients, dtype, tmp_path):
    """To the bit: shares of 1, 2, ... images, rounded where they travel, and so is their sum."""
    arrays, _ = found(n, "summed", tmp_path, gradients)
    images = np.arange(1, n + 1)
    for name in "abc":
        total = np.zeros_like(arrays[name])
        for rank, weight in enumerate((images / images.sum()).astype(np.float32)):
            total += (arrays[f"{name} of {rank}"] * weight).astype(dtype).astype(np.float32)
        assert np.array_equal(arrays[name], total.astype(dtype).astype(np.float32)), name


def test_steps_of_gradients_that_travel_as_bfloat16(one_process, tmp_path):
    """Losses near those of exact gradients, weights not the same; the same bits from run to run."""
    weights, numbers = found(2, "small", tmp_path, "bf16")
    np.testing.assert_allclose(numbers["losses"], one_process[1]["losses"], rtol=0, atol=1e-3)
    assert bits(weights) != bits(one_process[0])
    again, losses = found(2, "small", tmp_path, "bf16")
    assert bits(again) == bits(weights)
    assert losses == numbers


def test_gradients_travel_as_float32_or_bfloat16():
    with pytest.raises(ValueError, match="gradients must be one of fp32, bf16; got 'fp16'"):
        Trainer(tiny.network(), gradients="fp16")


def test_batch_normalisation_is_that_of_the_whole_batch(tmp_path):
    weights, numbers = found(1, "normalised", tmp_path)
    for n in (2, 3):
        of_ranks, losses = found(n, "normalised", tmp_path)
        np.testing.assert_allclose(losses["losses"], numbers["losses"], rtol=0, atol=1e-5)
        # What batch normalisation takes away has no gradient but that of rounding.
        assert_near(of_ranks, weights, unlearned=("conv1.bias", "conv2.bias", "bn2.bias", "fc3.bias"))


def test_batch_normalisation_in_bfloat16(tmp_path):
    """Rounded more coarsely, as the losses are then."""
    losses = [found(n, "normalised", tmp_path, "bf16")[1]["losses"] for n in (1, 2, 3)]
    for of_ranks in losses[1:]:
        np.testing.assert_allclose(of_ranks, losses[0], rtol=0, atol=5e-3)


# ---- Epochs and files -----------------------------------------------------------------------------------------------


def test_epochs_images_and_files_do_not_depend_on_the_number_of_processes(tmp_path):
    """Order, shifts, flips and dropout are those of one process, and so are the metrics."""
    weights, numbers = found(1, "fitted", tmp_path / "1")
    assert sorted(index for batch in numbers["seen"] for index in batch) != list(range(48))
    assert len({index for batch in numbers["seen"] for index in batch}) == 48
    for n in (2, 3):
        of_ranks, others = found(n, "fitted", tmp_path / str(n))
        assert others["seen"] == numbers["seen"]
        assert_metrics_near(others["history"], numbers["history"])
        assert_near(of_ranks, weights)
        files = tmp_path / str(n) / "run"
        assert sorted(os.listdir(files)) == ["checkpoint.safetensors", "metrics.jsonl"]
        assert [json.loads(line) for line in (files / "metrics.jsonl").read_text().splitlines()] == others["history"]
        loaded = zfcuda.load(files / "checkpoint.safetensors")
        assert bits(loaded.parameters()).items() <= bits(of_ranks).items()
        assert loaded.origin["settings"]["processes"] == n


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(before, after, tmp_path):
    weights, numbers = found(1, "fitted", tmp_path / "whole")
    found(before, "fitted", tmp_path / "parts", "2")
    resumed, others = found(after, "fitted", tmp_path / "parts", "4")
    assert_near(resumed, weights)
    assert_metrics_near(others["history"], numbers["history"])


# ---- What is not the same on all ranks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other_data", r"train '\w+...\w+' instead of '\w+...\w+'"),
        ("fewer_images", r"images 49 instead of 50, train .*"),
        ("other_classes", r"classes \('left', 'centre', 'right'\) instead of \('left', 'middle', 'right'\), train .*"),
        ("other_network", r"architecture of other values"),
        ("other_rate", r"lr 0.2 instead of 0.1"),
        ("other_gradients", r"gradients 'bf16' instead of 'fp32'"),
        ("other_augmentation", r"augmentation .*"),
        ("other_version", r"version '0.0.9' instead of '.*'"),
        ("no_images", r"rank 1 has no images of this batch, and needs at least one"),
        ("rate_set_by_hand", r"learning rate 0.00\d+ instead of 0.00\d+"),
    ],
)
def test_ranks_that_would_not_train_the_same_say_so(name, said, tmp_path):
    """Every rank raises it, before any step (or, of what changes on the way, before any step of the epoch)."""
    lines = raised_by_all(2, name, tmp_path)
    assert len(set(lines)) == 1
    assert re.fullmatch(said if name == "no_images" else "rank 1 differs from rank 0: " + said, lines[0])
    assert len(list(tmp_path.glob("run/*"))) == (2 if name == "rate_set_by_hand" else 0)


# ---- How they end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "kind", "said"),
    [
        ("1", "OSError", r"rank 1: \[Errno 5\] Input/output error: '/data/7.png'"),
        ("0", "KeyError", r"rank 0: KeyError: 'kept'"),
        ("all", "OSError", r"rank \d: \[Errno 5\] Input/output error: '/data/7.png'"),
    ],
)
def test_a_rank_that_raises_ends_all_with_one_message(who, kind, said, tmp_path):
    done = run(3, "raises", tmp_path, who, kind)
    assert done.returncode != 0
    (line,) = spoken(done)
    assert re.fullmatch(f"zfcuda: {said}", line)
    assert ("Traceback" in done.stderr) == (kind == "KeyError")  # of what nobody has foreseen
    assert len(metrics_of(tmp_path / "run")) == 1
    zfcuda.load(tmp_path / "run" / "checkpoint.safetensors")


def test_a_loss_that_is_not_finite_is_raised_by_all(tmp_path):
    said, of_other = raised_by_all(2, "diverges", tmp_path)
    assert said.startswith("the loss is ")
    assert of_other.startswith(said.partition(":")[0])


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    done = run(2, "disk_full", tmp_path)
    assert done.returncode != 0
    path = tmp_path / "run" / "checkpoint.safetensors"
    assert spoken(done) == [f"zfcuda: rank 0: [Errno 28] No space left on device: '{path}'"]
    assert zfcuda.load(path).origin["epochs"] == 1


def test_batches_smaller_than_the_number_of_ranks(tmp_path):
    done = run(2, "few_images", tmp_path)
    (line,) = spoken(done)
    assert re.fullmatch(r"zfcuda: rank \d: batch_size must be at least 2, the processes; got 1", line)
