"""`zfcuda pack`, and packed images wherever a command takes DATA."""

import os
import shutil
import signal

import numpy as np
import pytest

from zfcuda import data, load

from ..data.pictures import write_tar
from .conftest import numbers_of, run, write_fruit


@pytest.fixture(scope="module")
def packed_fruit(fruit, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "fruit"
    assert run("pack", fruit, "--out", out, "--quiet") == 0
    return out


def test_what_it_says(fruit, tmp_path, capsys):
    assert run("pack", fruit, "--out", tmp_path / "out", "--size", 16, "--quiet") == 0
    assert capsys.readouterr().out.splitlines() == [
        "packed: 96 images to train on and 24 to test on, of 16 x 16 x 3 and 4 classes",
        f"next: zfcuda train --data {tmp_path}/out",
    ]
    half = data.open(tmp_path / "out").test
    folder = data.open(fruit, image_size=16).test
    np.testing.assert_array_equal(half.batch(range(24))[0], folder.batch(range(24))[0])
    assert half.identifier(5) == f"{fruit}/test/apple/5.png"


def test_a_net_is_trained_on_it_and_looked_at(packed_fruit, fruit_net, tmp_path, capsys):
    words = ("--epochs", 2, "--batch-size", 8, "--lr", 0.02, "--quiet", "--out", tmp_path / "net")
    assert run("train", "--data", packed_fruit, *words) == 0
    assert load(tmp_path / "net" / "checkpoint.safetensors").origin["images"] == 96
    words = ("--layers", "pool1", "--maps", 1, "--no-sanity", "--quiet")
    assert run("visualize", tmp_path / "net" / "checkpoint.safetensors", *words, "--out", tmp_path / "own") == 0
    # A net of the folder sees the same test images in it, in the same order.
    assert run("visualize", fruit_net, *words, "--out", tmp_path / "one") == 0
    assert run("visualize", fruit_net, "--data", packed_fruit, *words, "--out", tmp_path / "two") == 0
    assert numbers_of(tmp_path / "one") == numbers_of(tmp_path / "two")


def test_training_that_resumes_on_packed_images(packed_fruit, tmp_path):
    words = ("--data", packed_fruit, "--batch-size", 8, "--schedule", "fixed", "--quiet", "--out")
    assert run("train", *words, tmp_path / "whole", "--epochs", 2) == 0
    assert run("train", *words, tmp_path / "parts", "--epochs", 1) == 0
    assert run("train", *words, tmp_path / "parts", "--epochs", 2, "--resume") == 0
    nets = [load(tmp_path / name / "checkpoint.safetensors").parameters() for name in ("whole", "parts")]
    for name, array in nets[0].items():
        np.testing.assert_array_equal(array, nets[1][name])


def test_verify(packed_fruit, tmp_path, capsys):
    assert run("pack", packed_fruit, "--verify") == 0
    assert capsys.readouterr().out == "whole: 96 images to train on, 24 to test on\n"
    shutil.copytree(packed_fruit, tmp_path / "copy")
    with (tmp_path / "copy" / "train-00000.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2")
    for words in (("pack", tmp_path / "copy", "--verify"), ("train", "--data", tmp_path / "copy")):
        assert run(*words, "--out", tmp_path / "out") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"zfcuda {words[0]}: {tmp_path}/copy/train-00000.npy: is damaged: its SHA-256")
    assert not (tmp_path / "out").exists()


def test_it_goes_on_only_with_what_it_began(tmp_path, capsys):
    fruit = write_fruit(tmp_path / "fruit", {"train": 3, "test": 1})
    out = tmp_path / "out"
    assert run("pack", fruit, "--out", out, "--quiet") == 0
    assert run("pack", fruit, "--out", out, "--quiet") == 0
    capsys.readouterr()
    assert run("pack", fruit, "--out", out, "--size", 14, "--quiet") == 2
    assert "image_shape (28, 28, 3), not (14, 14, 3)" in capsys.readouterr().err
    assert run("pack", fruit, "--out", out, "--seed", 1, "--quiet") == 2
    assert "seed 0, not 1" in capsys.readouterr().err
    os.utime(fruit / "train" / "apple" / "0.png", (1, 1))
    assert run("pack", fruit, "--out", out, "--quiet") == 2
    assert "out: was packed with other data, or what they are has changed since" in capsys.readouterr().err
    assert run("pack", fruit, "--out", fruit / "packed", "--quiet") == 2
    assert f"--out {fruit}/packed must be outside of {fruit}" in capsys.readouterr().err
    assert not (fruit / "packed").exists()


def test_damaged_files(tmp_path, capsys):
    fruit = write_fruit(tmp_path / "fruit", {"train": 3, "test": 1})
    (fruit / "train" / "apple" / "1.png").write_bytes(b"no picture")
    assert run("pack", fruit, "--out", tmp_path / "out", "--quiet") == 2
    assert "apple/1.png: cannot be read as an image" in capsys.readouterr().err
    assert run("pack", fruit, "--out", tmp_path / "out", "--skip-damaged", "--quiet") == 0
    assert len(data.open(tmp_path / "out").train) == 11


def test_ctrl_c(tmp_path, capsys, monkeypatch):
    fruit = write_fruit(tmp_path / "fruit", {"train": 3, "test": 1})
    monkeypatch.setattr(data.packed.packing, "SHARD_BYTES", 5 * 28 * 28 * 3)
    update = data.packed.packing._write

    def press(out, name, *content):
        if name == "train-00002.npy":
            signal.raise_signal(signal.SIGINT)
        return update(out, name, *content)

    monkeypatch.setattr(data.packed.packing, "_write", press)
    assert run("pack", fruit, "--out", tmp_path / "out", "--quiet") == 130
    assert capsys.readouterr().err == "zfcuda pack: interrupted\n"
    monkeypatch.setattr(data.packed.packing, "_write", update)
    assert run("train", "--data", tmp_path / "out", "--quiet") == 2
    assert "the packing was ended after 10 of 16 images; the same call of pack goes on" in capsys.readouterr().err
    assert run("pack", fruit, "--out", tmp_path / "out", "--quiet") == 0
    assert len(data.open(tmp_path / "out").train) == 12


def test_tar_shards_by_a_pattern(fruit, tmp_path, capsys):
    for half, count in (("train", 6), ("val", 2)):
        files = {}
        for label, kind in enumerate(("apple", "berry")):
            for i in range(count):
                picture = fruit / ("train" if half == "train" else "test") / kind / f"{i}.png"
                files |= {f"{kind}{i}.png": picture.read_bytes(), f"{kind}{i}.cls": str(label).encode()}
        write_tar(tmp_path / f"{half}-0.tar", files, "")
    words = ("--epochs", 1, "--batch-size", 4, "--quiet", "--out", tmp_path / "net")
    assert run("train", "--data", f"{tmp_path}/{{train,val}}-{{0..0}}.tar", *words) == 0
    words = ("--layers", "pool1", "--maps", 1, "--top", 2, "--no-sanity", "--quiet")
    assert run("visualize", tmp_path / "net" / "checkpoint.safetensors", *words, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert run("train", "--data", f"{tmp_path}/train-{{0..3}}.tar", "--out", tmp_path / "none") == 2
    assert "3 of 4 shards are missing" in capsys.readouterr().err
