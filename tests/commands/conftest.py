"""A command line, a net that knows four fruits by their colours, and one that tells two squares by theirs."""

import json

import numpy as np
import pytest
from PIL import Image

from zfcuda import cli

COLOURS = {"apple": (220, 0, 0), "berry": (0, 0, 220), "cherry": (220, 0, 220), "date": (200, 160, 0)}


def run(*words):
    """The exit status of a command line."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        return stop.code


def numbers_of(directory):
    """What a command left in report.json, by section."""
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))["sections"]


def write_fruit(root, counts, seed=0, names=None):
    """root/half/class/i.png for counts: half -> images a class; names: class -> the folder's name, some or all."""
    rng = np.random.default_rng(seed)
    for half, count in counts.items():
        for fruit, name in (names or {fruit: fruit for fruit in COLOURS}).items():
            folder = root / half / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 50, (28, 28, 3), np.uint8)
                top, left = rng.integers(4, 10, 2)
                image[top : top + 14, left : left + 14] = COLOURS[fruit]
                Image.fromarray(image).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def fruit(tmp_path_factory):
    return write_fruit(tmp_path_factory.mktemp("fruit"), {"train": 24, "test": 6})


@pytest.fixture(scope="session")
def fruit_net(fruit, tmp_path_factory):
    """The checkpoint of a net that is right about nearly every fruit."""
    out = tmp_path_factory.mktemp("fruit-net")
    words = ("--epochs", 6, "--batch-size", 8, "--lr", 0.005, "--quiet")
    assert run("train", "--data", fruit, *words, "--out", out) == 0
    assert numbers_of(out)["Training"][-1]["validation_top1"] > 0.9
    return out / "checkpoint.safetensors"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two classes of 28 x 28 colour images, with a train and a test half."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for half, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(("red <b>", "green & co")):
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 60, (28, 28, 3), np.uint8)
                image[6:20, 6:20, label] = 220
                Image.fromarray(image).save(root / half / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    words = ("--data", folder, "--image-size", 28, "--epochs", 2, "--batch-size", 8, "--quiet")
    assert run("train", *words, "--out", out) == 0
    return out / "checkpoint.safetensors"
