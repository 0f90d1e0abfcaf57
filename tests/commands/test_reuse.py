"""What earlier runs left in --out is used for the same data only."""

import shutil

from zfcuda import load

from .conftest import numbers_of, run, write_fruit

WORDS = ("--epochs", 2, "--batch-size", 4, "--lr", 0.02)


def swapped(fruit, out):
    """The same training images; apples and berries have changed places in the test half."""
    shutil.copytree(fruit, out)
    test = out / "test"
    (test / "apple").rename(test / "x")
    (test / "berry").rename(test / "apple")
    (test / "x").rename(test / "berry")
    return out


def test_ablate(tmp_path, capsys):
    one = write_fruit(tmp_path / "one", {"train": 8, "test": 4})
    other = swapped(one, tmp_path / "other")
    errors = []
    for data, out in ((one, "kept"), (other, "kept"), (other, "fresh"), (one, "kept")):
        words = ("--variants", "without layers 3,4,6,7", "--quiet", "--out", tmp_path / out)
        assert run("ablate", "--data", data, *WORDS, *words) == 0
        errors.append([row["validation_error"] for row in numbers_of(tmp_path / out)["Ablation"]["rows"]])
    assert errors[0] != errors[1] == errors[2]
    assert errors[3] == errors[0]
    said = [line for line in capsys.readouterr().err.splitlines() if "test error" not in line]
    assert ["trained anew" in line for line in said] == [True, False]
    assert said[0].endswith("differs in test images")
    assert "taken from" in said[1]
    checkpoint = next((tmp_path / "kept" / "runs").glob("*/checkpoint.safetensors"))
    assert load(checkpoint).origin["data"]["name"] in (str(one), str(other))


def test_train(tmp_path, capsys):
    one = write_fruit(tmp_path / "one", {"train": 4, "test": 2})
    other = swapped(one, tmp_path / "other")
    words = ("--quiet", "--out", tmp_path)
    assert run("train", "--data", one, *WORDS, *words) == 0
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert run("train", "--data", other, *WORDS, *words, "--resume") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was tested on other images, labels or classes" in line
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
