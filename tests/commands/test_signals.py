"""Signals from class folders to every report: what images have, they have."""

import json

import numpy as np
import pytest
from PIL import Image

from zfcuda import load

from .conftest import numbers_of, run

LENGTH = 64
NET = {
    "input_shape": [1, LENGTH, 2],
    "layers": [
        {"kind": "conv", "name": "conv1", "maps": 6, "kernel": [1, 7], "padding": [0, 3]},
        {"kind": "relu", "name": "relu1"},
        {"kind": "pool", "name": "pool1", "window": [1, 2], "stride": [1, 2]},
        {"kind": "conv", "name": "conv2", "maps": 8, "kernel": [1, 5], "padding": [0, 2]},
        {"kind": "relu", "name": "relu2"},
        {"kind": "pool", "name": "pool2", "window": [1, 2], "stride": [1, 2]},
        {"kind": "fc", "name": "fc3", "units": 12},
        {"kind": "relu", "name": "relu3"},
        {"kind": "fc", "name": "fc4", "units": 2},
    ],
    "initial": "he",
}


@pytest.fixture(scope="session")
def waves(tmp_path_factory):
    """Two classes of signals: a fast and a slow wave somewhere in noise, in the first of two channels."""
    root, rng = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    for half, count in (("train", 24), ("test", 6)):
        for name, period in (("fast", 4), ("slow", 16)):
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                signal = rng.integers(110, 146, (1, LENGTH, 2)).astype(float)
                start = rng.integers(0, LENGTH - 32)
                signal[0, start : start + 32, 0] += 100 * np.sin(2 * np.pi * np.arange(32) / period)
                np.save(root / half / name / f"{i}.npy", signal.clip(0, 255).astype(np.uint8))
    return root


@pytest.fixture(scope="session")
def wave_net(waves, tmp_path_factory):
    out = tmp_path_factory.mktemp("wave-net")
    (out / "net.json").write_text(json.dumps(NET))
    words = ("--epochs", 6, "--batch-size", 8, "--lr", 0.01, "--no-flip", "--track-evolution", 1, 6, "--quiet")
    assert run("train", "--data", waves, "--model", out / "net.json", *words, "--out", out) == 0
    assert numbers_of(out)["Training"][-1]["validation_top1"] > 0.8
    return out / "checkpoint.safetensors"


def pictures(directory):
    """The sizes of all pictures, none of which is too low to be seen."""
    sizes = {path.name: Image.open(path).size for path in directory.glob("*.png")}
    assert {name: size for name, size in sizes.items() if size[1] < 40} == {}
    return sizes


@pytest.mark.parametrize(
    ("words", "square"),
    [
        ((), "16 samples at steps of 4"),
        (("--size", 16), "16 samples at steps of 4"),
        (("--size", 8, "--stride", 3), "8 samples at steps of 3"),
        (("--size", "1x9", "--stride", "1x5"), "9 samples at steps of 5"),
        (("--size", 64), "64 samples at steps of 16"),
    ],
)
def test_occlude(words, square, wave_net, tmp_path):
    assert run("occlude", wave_net, "--images", 2, *words, "--quiet", "--out", tmp_path) == 0
    assert f"A rectangle of {square}, painted" in (tmp_path / "report.html").read_text(encoding="utf-8")
    pictures(tmp_path)


def test_a_square_longer_than_the_signal(wave_net, tmp_path, capsys):
    for size, got in ((65, "65"), ("2x4", "2 x 4")):
        assert run("occlude", wave_net, "--size", size, "--quiet", "--out", tmp_path / "out") == 2
        assert f"--size must be at most the image's 1 x 64, got {got}" in capsys.readouterr().err


def test_visualize(wave_net, tmp_path):
    assert run("visualize", wave_net, "--maps", 3, "--top", 4, "--quiet", "--out", tmp_path) == 0
    assert {"filters.png", "sanity-01.png"} < set(pictures(tmp_path))


def test_clutter_is_for_images(waves, wave_net, tmp_path, capsys):
    for words in (("occlude", wave_net), ("train", "--data", waves)):
        assert run(*words, "--clutter", 128, "--quiet", "--out", tmp_path / "out") == 2
        assert "--clutter is for images: signals, as of 1 x 64 x 2, have no canvas" in capsys.readouterr().err


def test_training_shifts_signals_in_time(wave_net):
    assert load(wave_net).origin["augmentation"] == {"padding": [0, 4], "flip": False}


def test_a_file(waves, wave_net, tmp_path):
    signal = waves / "test" / "fast" / "0.npy"
    for command in ("occlude", "visualize"):
        assert run(command, wave_net, "--image", signal, "--quiet", "--out", tmp_path / command) == 0
        pictures(tmp_path / command)


@pytest.mark.parametrize(
    "words",
    [
        ("faithfulness", "--images", 2),
        ("faithfulness", "--images", 2, "--patch", 8, "--size", "1x8"),
        ("sanity", "--images", 2),
        ("sanity", "--images", 2, "--size", 8),
        ("diagnose",),
        ("invariance", "--steps", 3),
        ("evolve",),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_other_commands(words, wave_net, tmp_path):
    command, *options = words
    assert run(command, wave_net, *options, "--quiet", "--out", tmp_path) == 0
    assert pictures(tmp_path)


def test_patches(wave_net, tmp_path, capsys):
    for words, grid in (((), "1 x 16 patches of 4"), (("--patch", "1x32"), "1 x 2 patches of 32")):
        words += ("--images", 1, "--methods", "gradient", "--quiet", "--out", tmp_path)
        assert run("faithfulness", wave_net, *words) == 0
        assert f"{grid} samples" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert run("faithfulness", wave_net, "--patch", "2x4", "--quiet", "--out", tmp_path) == 2
    assert "--patch must be at most the image's 1 x 64, got 2 x 4" in capsys.readouterr().err


def test_invariance_shifts_and_scales(wave_net, tmp_path):
    assert run("invariance", wave_net, "--steps", 3, "--quiet", "--out", tmp_path) == 0
    curves = numbers_of(tmp_path)["Invariance"]["curves"]
    assert list(curves) == ["shift", "scale"]
    assert curves["shift"]["amounts"] == [-17, 0, 17]


def test_correspond(waves, wave_net, tmp_path):
    parts = {str(waves / "test" / "fast" / f"{i}.npy"): {"start": [0, 4 * i, 1, 12]} for i in range(3)}
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    assert run("correspond", wave_net, tmp_path / "parts.json", "--quiet", "--out", tmp_path / "out") == 0
    pictures(tmp_path / "out")


def test_other_data_sets(waves, wave_net, tmp_path, capsys):
    assert run("pack", waves, "--quiet", "--out", tmp_path / "packed") == 0
    arrays = np.stack([np.load(waves / "test" / name / "0.npy") for name in ("fast", "slow") for _ in range(4)])
    named = {"labels": np.arange(8) // 4, "classes": np.array(["fast", "slow"])}
    np.savez(tmp_path / "set.npz", images=arrays, **named)
    for source in ("packed", "set.npz"):
        words = ("--data", tmp_path / source, "--images", 2, "--size", 32, "--quiet", "--out", tmp_path / "out")
        assert run("occlude", wave_net, *words) == 0
    np.savez(tmp_path / "set.npz", images=arrays[:, 0], **named)
    capsys.readouterr()
    assert run("occlude", wave_net, *words) == 2
    message = "has images of 64 x 2 x 1, but the network takes 1 x 64 x 2; signals are arrays (1, W, C)"
    assert message in capsys.readouterr().err


def test_features(waves, wave_net, tmp_path):
    words = ("--data", waves, "--per-class", 4, "--draws", 1, "--layers", "pool1", "relu3", "--quiet")
    assert run("features", wave_net, *words, "--out", tmp_path) == 0
    assert {score["layer"] for score in numbers_of(tmp_path)["Frozen features, softmax"]["scores"]} == {
        "pool1",
        "relu3",
    }


def test_the_small_net_takes_signals_too(waves, tmp_path):
    words = ("--epochs", 1, "--batch-size", 8, "--quiet", "--out", tmp_path)
    assert run("train", "--data", waves, *words) == 0
    assert load(tmp_path / "checkpoint.safetensors").input_shape == (1, LENGTH, 2)


def test_arrays_that_are_no_signals(waves, wave_net, tmp_path, capsys):
    for half in ("train", "test"):
        for name in ("fast", "slow"):
            (tmp_path / half / name).mkdir(parents=True)
            for i in range(2):
                signal = np.load(waves / half / name / f"{i}.npy")
                np.save(tmp_path / half / name / f"{i}.npy", signal[0])
    assert run("occlude", wave_net, "--data", tmp_path, "--quiet", "--out", tmp_path / "out") != 0
    assert "is 64 x 2 x 1, where signals of 1 x 64 x 2 are expected" in capsys.readouterr().err
    model = wave_net.parent / "net.json"
    assert run("train", "--data", tmp_path, "--model", model, "--quiet", "--out", tmp_path / "out") != 0
    assert "but the data set's are 64 x 2 x 1; signals are arrays (1, W, C)" in capsys.readouterr().err
