"""Several processes train as one does: the same losses but for rounding, the same bits from run to run; and how they
end when something goes wrong on one of them. `on_ranks.py` is what they run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

import zfcuda
from tests import mpi
from tests.mpi import assert_all_end, spoken
from zfcuda import cli
from zfcuda.backends import BFLOAT16
from zfcuda.nn import Architecture, ConvSpec, DropoutSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.training import Ranks, Trainer, world
from zfcuda.training.distributed import exchange_for
from zfcuda.training.ranks import started

from . import tiny


def run(n, name, out, *arguments):
    """A scenario of `on_ranks.py` to its end -> the process."""
    out.mkdir(exist_ok=True)
    return mpi.run(mpi.command(n, "tests.training.on_ranks", name, out, *arguments))


def found(n, name, out, *arguments):
    """What a scenario leaves when all goes well: weights, and numbers."""
    done = run(n, name, out, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(out / "weights.npz") as arrays:
        return dict(arrays), json.loads((out / "numbers.json").read_text())


def raised_by_all(n, name, out):
    """What every rank has raised in a scenario, after which they could still talk."""
    done = run(n, name, out)
    assert done.returncode == 0, done.stderr
    said = json.loads((out / "raised.json").read_text())
    assert len(said) == n
    return said


def assert_near(arrays, expected, unlearned=()):
    """Weights to 1e-5 of their norm; velocities and biases, which are nothing but sums of gradients, to 1e-2: rounding
    moves maxima and zeros to other places."""
    assert arrays.keys() == expected.keys()
    for name in arrays.keys() - {f"{of}{name}" for name in unlearned for of in ("", "velocity of ")}:
        tolerance = 1e-2 if name.startswith("velocity") or name.endswith("bias") else 1e-5
        assert np.linalg.norm(arrays[name] - expected[name]) <= tolerance * np.linalg.norm(expected[name]), name


def bits(weights):
    return {name: array.tobytes() for name, array in weights.items()}


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


# ---- On models of GPUs --------------------------------------------------------------------------------------------


@pytest.fixture
def gpus():
    if reason := zfcuda.backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")


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


# ---- Epochs and files -----------------------------------------------------------------------------------------------


TIMES = ("seconds", "images_per_second")


def assert_metrics_near(history, expected):
    for metrics, wanted in zip(history, expected, strict=True):
        assert metrics.keys() == wanted.keys()
        for name in metrics.keys() - set(TIMES):
            assert metrics[name] == pytest.approx(wanted[name], abs=1e-5), name


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


def metrics_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


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


# ---- The command ------------------------------------------------------------------------------------------------

TRAIN = ("--batch-size", 6, "--precision", "fp32", "--lr", 0.002)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of images so small that an epoch is short."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for half, count in (("train", 24), ("test", 6)):
        for name in ("cat", "dog"):
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / half / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.json"
    layers = (
        ConvSpec("conv1", 8, 5, padding=2),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 4, 4),
        FullyConnectedSpec("fc6", 16),
        ReLUSpec("relu6"),
        DropoutSpec("drop6"),
        FullyConnectedSpec("fc8", 2),
    )
    path.write_text(json.dumps(Architecture((16, 16, 3), layers, initial="lecun").to_dict()))
    return path


class Training(mpi.Started):
    """`mpirun -n N zfcuda train` on its way."""

    def __init__(self, n, folder, model, out, *words):
        self.out = out
        super().__init__(n, "zfcuda", "train", "--data", folder, "--model", model, "--out", out, *TRAIN, *words)

    def wait_for_epoch(self, epoch):
        self.wait_until(lambda: (self.out / "metrics.jsonl").exists() and len(metrics_of(self.out)) >= epoch)


def trained(n, folder, model, out, *words):
    done = Training(n, folder, model, out, *words).end()
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_command_finds_out_that_mpirun_started_it(folder, model, tmp_path):
    """One progress, one report; the numbers of one process."""
    words = ("--epochs", 2, "--ten-crop", "--track-evolution", 1, "--seed", 4)
    stdout, _ = trained(1, folder, model, tmp_path / "1", *words)
    for n in (2, 3):
        out = tmp_path / str(n)
        printed, errors = trained(n, folder, model, out, *words)
        assert printed == stdout.replace(str(tmp_path / "1"), str(out))
        said = [line.partition(",")[0] for line in errors.splitlines()]
        assert said == [said[0], "epoch 1/2", "epoch 2/2"]
        assert said[0].startswith(f"{n} processes: rank 0 is process ")
        assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "1"))
        assert_metrics_near(metrics_of(out), metrics_of(tmp_path / "1"))


def test_the_command_says_as_what_gradients_travelled(folder, model, tmp_path):
    trained(2, folder, model, tmp_path / "run", "--epochs", 1, "--gradients", "bf16")
    settings = zfcuda.load(tmp_path / "run" / "checkpoint.safetensors").origin["settings"]
    assert (settings["processes"], settings["gradients"], settings["exchange"]) == (2, "bf16", "mpi")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("exchange", ["nccl", "mpi"])
def test_the_command_gives_each_rank_a_gpu(exchange, folder, model, tmp_path):
    words = ("--data", folder, "--model", model, "--epochs", 1, "--exchange", exchange, "--quiet", *TRAIN)
    done = run(2, "commanded", tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    settings = zfcuda.load(tmp_path / "run" / "checkpoint.safetensors").origin["settings"]
    assert (settings["processes"], settings["exchange"]) == (2, exchange)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed(folder, model, tmp_path, rank):
    """At several moments: all end, and to go on gives the bits of a training that nothing has stopped."""
    epochs = ("--epochs", 24, "--seed", 1)
    trained(2, folder, model, tmp_path / "whole", *epochs)
    rng = np.random.default_rng(rank)
    for epoch in (1, 7, 14):
        training = Training(2, folder, model, tmp_path / "killed", *epochs, "--resume")
        pids = training.ranks()
        training.wait_for_epoch(epoch)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(pids[rank], signal.SIGKILL)
        assert training.end().returncode != 0
        assert_all_end(pids.values())
        done = len(metrics_of(tmp_path / "killed"))
        assert epoch <= done < 24
        assert zfcuda.load(tmp_path / "killed" / "checkpoint.safetensors").origin["epochs"] in (done, done + 1)
    trained(2, folder, model, tmp_path / "killed", *epochs, "--resume")
    nets = [zfcuda.load(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "killed")]
    assert tiny.bits(nets[0]) == tiny.bits(nets[1])
    assert_metrics_near(metrics_of(tmp_path / "killed"), metrics_of(tmp_path / "whole"))


@pytest.mark.parametrize("to", ["mpirun", "rank"])
def test_ctrl_c(folder, model, tmp_path, to):
    """As mpirun passes it on to all, or as one gets it."""
    training = Training(3, folder, model, tmp_path / "run", "--epochs", 10_000)
    pids = training.ranks()
    training.wait_for_epoch(2)
    if to == "mpirun":
        training.process.send_signal(signal.SIGINT)
    else:
        os.kill(pids[1], signal.SIGTERM)
    done = training.end()
    assert done.returncode != 0
    assert_all_end(pids.values())
    said = re.findall(
        r"zfcuda: rank (\d): Interrupted in epoch \d+; the checkpoint of epoch (\d+) is whole", done.stderr
    )
    if to == "rank" or "HYDRA" in subprocess.run([mpi.mpirun(), "--version"], capture_output=True, text=True).stdout:
        # Of others, Open MPI's mpirun prints nothing more after Ctrl-C than that a rank has ended all.
        ((rank, _),) = said
        assert rank == "1" or to == "mpirun"
    assert zfcuda.load(tmp_path / "run" / "checkpoint.safetensors").origin["epochs"] >= 2


def test_an_error_before_the_training(folder, model, tmp_path):
    done = Training(3, tmp_path / "nowhere", model, tmp_path / "run").end()
    assert done.returncode != 0
    (line,) = spoken(done)
    assert re.match(rf"zfcuda: rank \d: {tmp_path}/nowhere: no such data set", line)


# ---- Without MPI -------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    for name in mpi.SIZES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("rank", "number"), [(1, 1), (2, 0), (5, 1)])
def test_the_ranks_of_a_host_take_its_gpus_in_turn(rank, number, gpu, monkeypatch):
    ranks = Ranks()
    ranks.rank = rank
    monkeypatch.setattr(ranks, "gather", lambda here: ["one", "one", "two", "two", "two", "two"])
    gpu.cuda.runtime.getDeviceCount = lambda: 2
    ranks.take_gpu()
    assert gpu.gpu == number


@pytest.mark.usefixtures("alone")
def test_one_process_needs_no_mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert world() is None
    monkeypatch.setenv("PMI_SIZE", "1")
    assert world() is None
    for ranks in (Ranks(), Ranks(types.SimpleNamespace(Get_size=lambda: 1))):
        assert (ranks.rank, ranks.size, ranks.share(7)) == (0, 1, slice(0, 7))
        assert ranks.gather("x") == ["x"]
    with pytest.raises(OSError, match="as it is"), ranks.ending_together():
        raise OSError("as it is")


def test_a_process_that_waits_looks_often_between_pauses(monkeypatch):
    """What comes at the thousandth look only has not cost a thousand pauses."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    looks = iter([False] * 999 + [True])
    Ranks().wait(types.SimpleNamespace(Test=lambda: next(looks)))
    assert len(pauses) == 999 // 64
    assert next(looks, None) is None


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("size", "rank"),
    [
        ("PMI_SIZE", "PMI_RANK"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ],
)
def test_which_of_the_started_processes_this_one_is(size, rank, monkeypatch):
    for other in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    assert started() == (1, 0)
    monkeypatch.setenv(size, "4")
    assert started() == (4, 0)
    monkeypatch.setenv(rank, "2")
    assert started() == (4, 2)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", mpi.SIZES)
def test_several_processes_without_mpi4py(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv(name, "4")
    assert cli.main(["train", "--data", "fashion-mnist", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zfcuda train: 4 processes were started, but MPI cannot be used: ")
    assert "pip install 'zfcuda[mpi]'" in line


@pytest.mark.usefixtures("alone")
def test_an_mpi_that_is_not_the_one_of_mpirun(monkeypatch):
    comm = types.SimpleNamespace(size=1)
    mpi = types.SimpleNamespace(COMM_WORLD=comm, Get_library_version=lambda: "MPICH Version:\t5\nand more")
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=mpi))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(
        ImportError, match=r"4 processes were started, but mpi4py sees 1: its MPI \(MPICH Version:\t5\)"
    ):
        world()
