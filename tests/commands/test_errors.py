"""Every command from the outside: what bad input gets."""

import sys

import numpy as np
import pytest
from PIL import Image

from zfcuda.nn import Network, models

from .conftest import run


def fails(capsys, *words):
    """The one line on standard error of a command that ends with status 2."""
    assert run(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"zfcuda {words[0]}: ")
    return lines[0]


def test_no_such_data(tmp_path, capsys):
    assert "nowhere" in fails(capsys, "train", "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_such_checkpoint(folder, tmp_path, capsys):
    line = fails(capsys, "visualize", tmp_path / "none.safetensors", "--data", folder, "--out", tmp_path)
    assert "none.safetensors" in line


def test_a_file_that_is_no_checkpoint(folder, tmp_path, capsys):
    (tmp_path / "x.safetensors").write_text("hello")
    line = fails(capsys, "occlude", tmp_path / "x.safetensors", "--data", folder, "--out", tmp_path)
    assert "x.safetensors" in line


def test_a_model_that_is_not_imported(tmp_path, capsys):
    (tmp_path / "net.onnx").write_bytes(b"hello")
    assert "`zfcuda import` makes one of it" in fails(capsys, "info", tmp_path / "net.onnx")


def test_a_network_without_preprocessing(folder, tmp_path, capsys):
    Network(models.zfnet_small_architecture(2, (28, 28, 3))).save(tmp_path / "net.safetensors")
    line = fails(capsys, "visualize", tmp_path / "net.safetensors", "--data", folder, "--out", tmp_path)
    assert "no preprocessing" in line


def test_unknown_layer(trained, folder, tmp_path, capsys):
    line = fails(capsys, "visualize", trained, "--data", folder, "--layers", "conv9", "--out", tmp_path)
    assert "layer must be one of conv1" in line


def test_pointing_without_boxes(trained, folder, tmp_path, capsys):
    words = ("--pointing", 2, "--out", tmp_path)
    assert "--pointing needs --clutter" in fails(capsys, "occlude", trained, "--data", folder, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "conv9"), "layer must be one of conv1"),
        (("--seed", -1), "--seed: must be"),
        (("--size", 40), "--size must be at most the image's 28 x 28, got 40"),
        (("--size", "40x3"), "--size must be at most the image's 28 x 28, got 40 x 3"),
        (("--size", "3x0"), "--size: must be a whole number from 1 to 1000000, or two as in 1x16, height x width; got"),
    ],
)
def test_sanity(words, message, trained, folder, tmp_path, capsys):
    words += ("--out", tmp_path, "--quiet")
    assert message in fails(capsys, "sanity", trained, "--data", folder, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--patch", 29), "--patch must be at most the image's 28 x 28, got 29"),
        (("--patch", "7x29"), "--patch must be at most the image's 28 x 28, got 7 x 29"),
        (("--size", 40), "--size must be at most"),
    ],
)
def test_faithfulness(words, message, trained, folder, tmp_path, capsys):
    words += ("--out", tmp_path, "--quiet")
    assert message in fails(capsys, "faithfulness", trained, "--data", folder, *words)


def test_no_evolution_to_show(trained, tmp_path, capsys):
    assert "train with --track-evolution" in fails(capsys, "evolve", trained, "--out", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON like"),
        ("[1]", "must be JSON like"),
        ("{}", "names no image"),
        ('{"none.png": {"eye": [0, 0, 1, 1]}}', "no such image"),
        ('{"a.png": {"eye": [0, 0, 1, 1]}, "b.png": {"nose": [0, 0, 1, 1]}}', "must have the parts eye"),
        ('{"a.png": {"eye": [0, 0, 1]}}', "eye of a.png must be"),
        ('{"a.png": {"eye": [90, 90, 1, 1]}}', "lies outside"),
        ('{"broken.png": {"eye": [0, 0, 1, 1]}}', "broken.png: cannot be read"),
    ],
)
def test_parts_that_make_no_sense(content, message, trained, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "parts.json").write_text(content)
    assert message in fails(capsys, "correspond", trained, tmp_path / "parts.json", "--out", tmp_path)


def test_unknown_variant(folder, tmp_path, capsys):
    words = ("--image-size", 28, "--variants", "none", "--out", tmp_path)
    assert "variant must be one of" in fails(capsys, "ablate", "--data", folder, *words)


def test_unknown_label(trained, folder, tmp_path, capsys):
    image = folder / "test" / "red <b>" / "3.png"
    words = ("--image", image, "--label", "blue", "--out", tmp_path)
    assert "--label must be one of" in fails(capsys, "occlude", trained, "--data", folder, *words)


def test_features_without_scikit_learn(trained, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    words = ("--image-size", 28, "--out", tmp_path, "--quiet")
    assert "pip install 'zfcuda[sklearn]'" in fails(capsys, "features", trained, "--data", folder, *words)


def test_a_square_larger_than_the_image(trained, folder, tmp_path, capsys):
    words = ("--size", 40, "--out", tmp_path, "--quiet")
    message = "--size must be at most the image's 28 x 28"
    assert message in fails(capsys, "occlude", trained, "--data", folder, *words)


def test_parts_and_reports_that_are_nested_too_deeply(trained, tmp_path, capsys):
    for name in ("parts.json", "report.json", "page.json"):
        (tmp_path / name).write_text("[" * 100_000)
    assert run("correspond", trained, tmp_path / "parts.json", "--out", tmp_path / "out") == 2
    assert "parts.json must be JSON like" in capsys.readouterr().err
    assert run("study", tmp_path, "--out", tmp_path / "out") == 2
    assert f"{tmp_path} holds no report of zfcuda" in capsys.readouterr().err


def test_out_cannot_be_made(trained, tmp_path, capsys):
    assert run("occlude", trained, "--out", tmp_path / ("a" * 300)) == 2
    error = capsys.readouterr().err
    assert "--out " in error
    assert error.endswith("cannot be made: File name too long\n")


@pytest.mark.parametrize(
    "words",
    [("train", "--data", "DATA"), ("occlude", "NET", "--data", "DATA"), ("study", "DATA"), ("pack", "DATA")],
)
def test_out_is_empty(words, trained, folder, capsys):
    """As a variable of the shell may be that nobody set: not the folder one is in."""
    words = [{"DATA": folder, "NET": trained}.get(word, word) for word in words]
    assert fails(capsys, *words, "--out", "").endswith("--out must not be empty")


@pytest.mark.parametrize(
    "words",
    [("visualize", "NET", "--image"), ("correspond", "NET"), ("train", "--data", "DATA", "--model")],
)
def test_files_that_are_not_there(words, trained, folder, tmp_path, capsys):
    words = [{"DATA": folder, "NET": trained}.get(word, word) for word in words]
    line = fails(capsys, *words, tmp_path / "none.json", "--out", tmp_path / "out")
    assert line.endswith(f"{tmp_path}/none.json: No such file or directory")


def test_out_is_a_file(trained, folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = fails(capsys, "visualize", trained, "--data", folder, "--out", tmp_path / "file", "--quiet")
    assert "not a directory" in line


def test_a_model_that_does_not_fit_the_data(tmp_path, capsys):
    words = ("--data", "fashion-mnist", "--model", "zfnet", "--out", tmp_path)
    assert "--model zfnet_small takes these" in fails(capsys, "train", *words)


def test_a_training_that_diverges_ends_with_status_1(folder, tmp_path, capsys):
    words = ("--data", folder, "--image-size", 28, "--batch-size", 8, "--lr", "1e12", "--quiet", "--out", tmp_path)
    assert run("train", *words) == 1
    assert "the loss is" in capsys.readouterr().err
