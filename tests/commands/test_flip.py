"""Classes that are each other's mirror images: --no-flip, and what reports say of augmentation."""

import json

import numpy as np
import pytest
from PIL import Image

from zfcuda import load

from .conftest import numbers_of, run

WORDS = ("--batch-size", 8, "--lr", 0.02, "--quiet")


@pytest.fixture(scope="module")
def arrows(tmp_path_factory):
    """Wedges that point to the left and to the right."""
    root, rng = tmp_path_factory.mktemp("arrows"), np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(28), np.arange(28))
    for half, count in (("train", 40), ("test", 20)):
        for name in ("left", "right"):
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                x, y = rng.integers(-3, 4, 2)
                wedge = (abs(down - 14 - y) < (across - 4 - x) / 2) & (across < 22 + x)
                image = np.where(wedge, 220, rng.integers(0, 60, wedge.shape)).astype(np.uint8)
                Image.fromarray(image if name == "left" else image[:, ::-1]).save(root / half / name / f"{i}.png")
    return root


def test_train(arrows, tmp_path):
    assert run("train", "--data", arrows, "--epochs", 5, "--no-flip", "--ten-crop", *WORDS, "--out", tmp_path) == 0
    assert numbers_of(tmp_path)["Training"][-1]["validation_top1"] == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "shifts by up to 1 pixel, none mirrored" in page
    checkpoint = tmp_path / "checkpoint.safetensors"
    assert load(checkpoint).origin["augmentation"] == {"padding": 1, "flip": False}
    # What goes on needs no reminder.
    assert run("train", "--data", arrows, "--epochs", 6, "--resume", *WORDS, "--out", tmp_path) == 0
    assert load(checkpoint).origin["augmentation"] == {"padding": 1, "flip": False}


def test_what_was_mirrored_is_not_resumed_without(arrows, tmp_path, capsys):
    words = ("--data", arrows, *WORDS, "--out", tmp_path)
    assert run("train", *words, "--epochs", 1) == 0
    assert run("train", *words, "--epochs", 2, "--resume", "--no-flip") == 2
    assert "was trained with shifts by up to 1 pixel, every other image mirrored" in capsys.readouterr().err


def test_ablate(arrows, tmp_path):
    words = ("--data", arrows, "--epochs", 5, "--variants", "without layers 6,7", *WORDS, "--out", tmp_path)
    assert run("ablate", *words, "--no-flip") == 0
    (row,) = numbers_of(tmp_path)["Ablation"]["rows"]
    assert row["validation_error"] == 0
    assert "none mirrored" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_ablate_with_and_without_are_two_runs(arrows, tmp_path, capsys):
    words = ("--data", arrows, "--epochs", 1, "--variants", "without layers 3,4,6,7", *WORDS, "--out", tmp_path)
    assert run("ablate", *words) == run("ablate", *words, "--no-flip") == run("ablate", *words) == 0
    said = capsys.readouterr().err
    assert "trained anew" in said
    assert "differs in settings" in said
    assert said.count("taken from") == 1
    flips = {
        json.loads(path.read_text())["settings"].count("flip=False") for path in tmp_path.glob("runs/*/made-of.json")
    }
    assert flips == {0, 1}


def test_features(arrows, fruit_net, tmp_path):
    words = ("--per-class", 40, "--draws", 1, "--layers", "pool1", "--scratch-epochs", 8, "--lr", 0.02, "--quiet")
    assert run("features", fruit_net, "--data", arrows, *words, "--no-flip", "--out", tmp_path) == 0
    (scores,) = numbers_of(tmp_path).values()
    assert scores["scores"][-1]["layer"] == "from scratch"
    assert scores["scores"][-1]["accuracy"] > 90
    assert "none mirrored" in (tmp_path / "report.html").read_text(encoding="utf-8")
