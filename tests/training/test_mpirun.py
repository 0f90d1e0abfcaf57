"""`mpirun -n N zfcuda train`: one progress, one report; how it ends when a rank is killed, or at Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

import zfcuda
from tests import mpi
from tests.mpi import assert_all_end, spoken
from zfcuda.nn import Architecture, ConvSpec, DropoutSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from . import tiny
from .scenarios import assert_metrics_near, metrics_of, run

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
