"""Wherever a net meets data, the data's classes are matched with its own by name."""

import pytest

from .conftest import numbers_of, run, write_fruit

SQUARE = ("--size", 14, "--stride", 14, "--quiet")


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Three of the four classes: their numbers are not those of the net."""
    names = {fruit: fruit for fruit in ("berry", "cherry", "date")}
    return write_fruit(tmp_path_factory.mktemp("part"), {"train": 2, "test": 2}, seed=1, names=names)


def test_occlude(fruit_net, part, tmp_path):
    assert run("occlude", fruit_net, "--data", part, "--images", 6, *SQUARE, "--out", tmp_path) == 0
    found = numbers_of(tmp_path)["Occlusion"]
    assert [one["label"] for one in found] == [1, 1, 2, 2, 3, 3]
    assert min(one["baseline"] for one in found) > 0.5


def test_a_folder_of_test_images_alone(fruit_net, part, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test").symlink_to(part / "train")
    words = ("--data", tmp_path / "data", "--split", "train", "--images", 3, *SQUARE, "--out", tmp_path / "out")
    assert run("occlude", fruit_net, *words) == 0
    assert [one["label"] for one in numbers_of(tmp_path / "out")["Occlusion"]] == [1, 2, 3]


def test_invariance(fruit_net, part, tmp_path):
    words = ("--images", 6, "--steps", 3, "--quiet", "--out", tmp_path)
    assert run("invariance", fruit_net, "--data", part, *words) == 0
    found = numbers_of(tmp_path)["Invariance"]
    assert found["labels"] == [1, 1, 2, 2, 3, 3]
    assert min(row[1] for row in found["curves"]["translation"]["probability"]) > 0.5


def test_pointing(part, tmp_path):
    """Canvases are cut of images whose labels are matched first."""
    whole = write_fruit(tmp_path / "fruit", {"train": 24, "test": 4})
    words = ("--data", whole, "--clutter", 36, "--epochs", 6, "--batch-size", 8, "--lr", 0.005, "--quiet")
    assert run("train", *words, "--out", tmp_path) == 0
    words = ("--data", part, "--clutter", 36, "--images", 1, "--pointing", 6, *SQUARE, "--out", tmp_path / "p")
    assert run("occlude", tmp_path / "checkpoint.safetensors", *words) == 0
    right = numbers_of(tmp_path / "p")["Pointing"]["right"]
    assert sum(right) >= 4  # by their own numbers, none would be


@pytest.mark.parametrize("command", ["occlude", "invariance"])
def test_unknown_classes_are_an_error_before_any_work(command, fruit_net, tmp_path, capsys):
    names = {"apple": "apple", "berry": "blueberry"}
    other = write_fruit(tmp_path / "other", {"train": 1, "test": 1}, names=names)
    assert run(command, fruit_net, "--data", other, "--quiet", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not know: blueberry (" in line
    assert "it knows apple, berry, cherry, date" in line
    assert not (tmp_path / "out").exists()


def test_pictures_of_any_classes_can_be_looked_at(fruit_net, tmp_path):
    names = {"apple": "pomme", "berry": "baie"}
    other = write_fruit(tmp_path / "other", {"train": 1, "test": 2}, names=names)
    words = ("--layers", "pool1", "--maps", 1, "--top", 2, "--no-sanity", "--quiet", "--out", tmp_path)
    assert run("visualize", fruit_net, "--data", other, *words) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pomme" in page or "baie" in page
