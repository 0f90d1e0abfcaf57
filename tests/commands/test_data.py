"""What a net was trained on is where commands look by default; image files need no data; `info` tells about a net."""

import shutil

import numpy as np
import pytest

from zfcuda import data, load
from zfcuda.analysis import Cluttered
from zfcuda.data import Preprocess, read_image
from zfcuda.nn import Network, models

from .conftest import numbers_of, run, write_fruit

SQUARE = ("--size", 14, "--stride", 14, "--quiet")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("visualize", ("--layers", "pool1", "--maps", 1, "--no-sanity")),
        ("invariance", ("--images", 1, "--steps", 1)),
        ("diagnose", ("--images", 4)),
        ("occlude", ("--images", 1, "--size", 14, "--stride", 14)),
        ("sanity", ("--images", 1, "--layer", "conv1", "--size", 14, "--stride", 14)),
        ("features", ("--per-class", 2, "--draws", 1, "--layers", "pool1", "--test-images", 4)),
    ],
)
def test_data_are_those_of_the_training(command, words, fruit_net, fruit, tmp_path):
    assert run(command, fruit_net, *words, "--quiet", "--out", tmp_path) == 0
    assert numbers_of(tmp_path)


def test_cluttered_as_they_were(tmp_path, capsys):
    fruit = write_fruit(tmp_path / "fruit", {"train": 2, "test": 2})
    words = ("--data", fruit, "--clutter", 40, "--epochs", 1, "--batch-size", 8, "--quiet", "--out", tmp_path)
    assert run("train", *words) == 0
    words = ("--images", 1, "--pointing", 2, *SQUARE, "--out", tmp_path / "occlude")
    assert run("occlude", tmp_path / "checkpoint.safetensors", *words) == 0
    assert len(numbers_of(tmp_path / "occlude")["Pointing"]["hits"]) == 2
    capsys.readouterr()
    words = ("--images", 1, "--pointing", 2, "--size", 1, "--stride", 39, "--quiet", "--out", tmp_path / "corners")
    assert run("occlude", tmp_path / "checkpoint.safetensors", *words) == 2
    assert "--stride is so large that no square has its centre in an object" in capsys.readouterr().err


def test_pointing_in_what_the_net_sees(fruit, fruit_net, tmp_path):
    """A net that sees the middle 28 x 28 pixels of canvases of 56 x 56: there the boxes count."""
    net = load(fruit_net)
    net.preprocess = Preprocess(np.full((56, 56, 3), 60, np.float32), (28, 28), 1 / 64)
    net.save(tmp_path / "net.safetensors")
    words = ("--data", fruit, "--clutter", 56, "--images", 1, "--pointing", 99, "--size", 4, "--stride", 4, "--quiet")
    assert run("occlude", tmp_path / "net.safetensors", *words, "--out", tmp_path) == 0
    objects = Cluttered(data.open(fruit).test, 56, seed=1).boxes
    centres = 4 * np.arange(7) + 2 + 14
    down, across = (
        (corners[:, None] <= centres) & (centres < corners[:, None] + 28) for corners in (objects[:, 0], objects[:, 1])
    )
    found = numbers_of(tmp_path)["Pointing"]
    assert len(found["hits"]) == len(objects)
    assert found["chance"] == pytest.approx((down[:, :, None] & across[:, None]).mean())


def test_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    write_fruit(tmp_path / "fruit", {"train": 2, "test": 1})
    monkeypatch.chdir(tmp_path)
    assert run("train", "--data", "fruit", "--epochs", 1, "--batch-size", 4, "--quiet", "--out", "net") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = ("--images", 1, "--steps", 1, "--quiet", "--out", tmp_path)
    assert run("invariance", tmp_path / "net" / "checkpoint.safetensors", *words) == 0


class TestWhereThereAreNone:
    def line(self, capsys, *words):
        assert run(*words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    def test_moved(self, tmp_path, capsys):
        fruit = write_fruit(tmp_path / "fruit", {"train": 2, "test": 1})
        words = ("--epochs", 1, "--batch-size", 4, "--quiet", "--out", tmp_path)
        assert run("train", "--data", fruit, *words) == 0
        shutil.rmtree(fruit)
        capsys.readouterr()
        line = self.line(capsys, "diagnose", tmp_path / "checkpoint.safetensors", "--out", tmp_path / "out")
        assert "--data is needed" in line
        assert f"was trained on {fruit}, which is not there" in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("origin", [{}, {"data": "x"}, {"data": {"name": 3}}])
    def test_not_known(self, origin, fruit_net, tmp_path, capsys):
        net = load(fruit_net)
        net.origin = origin
        net.save(tmp_path / "net.safetensors")
        line = self.line(capsys, "visualize", tmp_path / "net.safetensors", "--out", tmp_path)
        assert "--data is needed" in line
        assert "does not say what it was trained on" in line


@pytest.mark.parametrize("command", ["visualize", "occlude", "invariance", "diagnose", "sanity"])
def test_images_of_another_shape(command, fruit_net, tmp_path, capsys):
    assert run(command, fruit_net, "--data", "fashion-mnist", "--quiet", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data fashion-mnist has images of 28 x 28 x 1, but the network takes 28 x 28 x 3" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "words"), [("visualize", ("NET",)), ("train", ()), ("ablate", ())])
def test_a_report_among_the_class_folders(command, words, fruit, fruit_net, tmp_path, capsys):
    """It would be another class when the data are read again."""
    shutil.copytree(fruit / "test", tmp_path / "fruit")
    words = [fruit_net if word == "NET" else word for word in words]
    assert run(command, *words, "--data", tmp_path / "fruit", "--quiet", "--out", tmp_path / "fruit" / "run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--out {tmp_path / 'fruit' / 'run'} is among the class folders of --data" in line
    assert sorted(path.name for path in (tmp_path / "fruit").iterdir()) == sorted(load(fruit_net).classes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "all 24 test images of {}"),
        (("--images", 8), "8 of 24 test images of {}"),
        (("--split", "train"), "all 96 training images of {}"),
        (("--split", "all", "--images", 50), "50 of 120 images of {}"),
    ],
)
def test_what_was_looked_at(words, said, fruit, fruit_net, tmp_path):
    words = ("--data", fruit, "--layers", "fc8", "--maps", 1, "--top", 2, "--no-sanity", "--quiet", *words)
    assert run("visualize", fruit_net, *words, "--out", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"What was looked at: {said.format(fruit)}; the strongest 2" in page


@pytest.mark.parametrize(
    "command", [("occlude", "--size", 14, "--stride", 14), ("faithfulness", "--methods", "gradient", "--patch", 14)]
)
def test_what_few_images_were_looked_at(command, fruit, fruit_net, tmp_path):
    command, *words = command
    files = [fruit / "test" / "apple" / f"{i}.png" for i in range(2)]
    for more, said in (
        (("--data", fruit, "--images", 4), f"4 of 24 test images of {fruit}. "),
        (("--data", fruit, "--split", "all", "--images", 3), f"3 of 120 images of {fruit}. "),
        (("--image", *files), "2 image files. "),
        (("--image", files[0], "--data", fruit), "1 image file. "),
    ):
        assert run(command, fruit_net, *words, *more, "--quiet", "--out", tmp_path) == 0
        assert f"What was looked at: {said}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_of_data_without_a_test_half_all_or_what_training_left(fruit, fruit_net, tmp_path):
    """The tenth that is held out counts for a net alone that was trained on the rest."""
    words = ("--epochs", 1, "--batch-size", 8, "--quiet", "--out", tmp_path / "net")
    assert run("train", "--data", fruit / "train", *words) == 0
    kept = "all 8 test images of {} (of its 96 images, as it has no test half, 8 are held out for testing)"
    for net, said in ((tmp_path / "net" / "checkpoint.safetensors", kept), (fruit_net, "all 96 images of {}")):
        for command, more in (("diagnose", ()), ("sanity", ("--images", 2)), ("invariance", ("--images", 2))):
            out = tmp_path / f"{command}-{net.parent.name}"
            words = ("--data", fruit / "train", *more, "--quiet", "--out", out)
            words += ("--size", 14, "--stride", 14) if command == "sanity" else ()
            words += ("--steps", 1) if command == "invariance" else ()
            assert run(command, net, *words) == 0
            expected = said.format(fruit / "train")
            expected = expected.replace("all ", "2 of ", 1) if more else expected
            assert f"What was looked at: {expected}" in (out / "report.html").read_text(encoding="utf-8")


def test_of_classes_of_one_image_all(fruit_net, tmp_path, capsys):
    """Of which none can be held out: a net that learned of others sees them."""
    few = write_fruit(tmp_path, {"few": 1}) / "few"
    (few / "apple" / "damaged.png").write_bytes(b"no image")
    words = ("--data", few, "--layers", "fc8", "--maps", 1, "--top", 2, "--no-sanity", "--quiet", "--skip-damaged")
    assert run("visualize", fruit_net, *words, "--out", tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out {few / 'apple' / 'damaged.png'}: ")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"What was looked at: all 4 images of {few};" in page
    assert run("visualize", fruit_net, *words, "--split", "test", "--out", tmp_path / "out") == 2
    assert "has no test half, and no class with two images to hold one back" in capsys.readouterr().err


class TestImageFiles:
    def test_the_label_is_what_the_net_says(self, fruit, fruit_net, tmp_path, monkeypatch):
        monkeypatch.setattr("zfcuda.data.open", None)  # no data set is opened
        images = [fruit / "test" / name / "1.png" for name in ("date", "berry")]
        assert run("occlude", fruit_net, "--image", *images, *SQUARE, "--out", tmp_path) == 0
        assert [one["label"] for one in numbers_of(tmp_path)["Occlusion"]] == [3, 1]
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "date/1.png: date" in page

    def test_or_what_is_asked_for(self, fruit, fruit_net, tmp_path):
        words = ("--image", fruit / "test" / "date" / "1.png", "--label", "cherry", *SQUARE, "--out", tmp_path)
        assert run("occlude", fruit_net, *words) == 0
        assert [one["label"] for one in numbers_of(tmp_path)["Occlusion"]] == [2]

    def test_with_data_the_strongest_map_is_shown_elsewhere(self, fruit, fruit_net, tmp_path):
        words = ("--image", fruit / "test" / "date" / "1.png", "--data", fruit, *SQUARE, "--out", tmp_path)
        assert run("occlude", fruit_net, *words) == 0

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ("--image", "x.png", "--label", "cherri"),
                "one of apple, berry, cherry, date; got 'cherri', which is like",
            ),
            (("--label", "date"), "--label needs --image"),
            (("--image", "x.png", "--pointing", "3"), "--pointing needs --clutter"),
            (("--image", "nowhere.png"), "nowhere.png"),
        ],
    )
    def test_errors(self, words, message, fruit_net, tmp_path, capsys):
        assert run("occlude", fruit_net, *words, "--out", tmp_path / "out") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "out").exists()

    def test_visualize(self, fruit, fruit_net, tmp_path):
        files = [fruit / "test" / name / "1.png" for name in ("date", "berry", "apple")]
        words = ("--layers", "fc8", "--maps", 4, "--top", 3, "--no-sanity", "--quiet", "--out", tmp_path)
        assert run("visualize", fruit_net, "--image", *files, *words) == 0
        found = numbers_of(tmp_path)["Block 8"]
        net = load(fruit_net)
        images = np.stack([read_image(file, net.preprocess.image_shape) for file in files])
        outputs = net.forward(net.preprocess(images)).output[:, found["maps"]].T
        np.testing.assert_allclose(found["values"], -np.sort(-outputs), rtol=1e-4)
        assert found["indices"] == np.argsort(-outputs).tolist()
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "3 image files" in page
        assert "date/1.png" in page

    def test_visualize_takes_files_or_a_data_set(self, fruit, fruit_net, tmp_path, capsys):
        words = ("--image", fruit / "test" / "date" / "1.png", "--data", fruit, "--out", tmp_path / "out")
        assert run("visualize", fruit_net, *words) == 2
        assert "--image and --data exclude each other" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("command", "told"), [("visualize", True), ("faithfulness", True), ("diagnose", False)])
    def test_a_folder_without_classes(self, command, told, fruit, fruit_net, tmp_path, capsys):
        assert run(command, fruit_net, "--data", fruit / "test" / "date", "--out", tmp_path / "out") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "has no class folders" in line
        assert ("pass image files to --image" in line) == told


class TestInfo:
    def test_a_checkpoint(self, fruit, fruit_net, tmp_path, capsys):
        assert run("info", fruit_net, "--out", tmp_path) == 0
        text = capsys.readouterr().out
        assert f"trained on     {fruit}, 96 images" in text
        assert "apple, berry, cherry, date" in text
        lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
        weight = load(fruit_net).layers["conv1"].weight
        assert lines["conv1"][1] == "conv"
        assert f"{weight.size + len(weight):,}" in lines["conv1"]
        numbers = numbers_of(tmp_path)["Network"]
        assert numbers["input_shape"] == [28, 28, 3]
        assert numbers["parameters"] == sum(array.size for array in load(fruit_net).parameters().values())
        assert numbers["classes"] == ["apple", "berry", "cherry", "date"]
        assert numbers["origin"]["epochs"] == 6
        by_name = {layer["name"]: layer for layer in numbers["layers"]}
        assert by_name["fc8"]["output_shape"] == [4]
        assert by_name["conv1"]["sees"] == list(weight.shape[1:3])
        assert by_name["fc6"]["sees"] == [28, 28]
        assert "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_a_network_that_nobody_has_trained(self, tmp_path, capsys):
        Network(models.zfnet_small_architecture(2, (28, 28, 3))).save(tmp_path / "net.safetensors")
        assert run("info", tmp_path / "net.safetensors") == 0
        text = capsys.readouterr().out
        assert "trained on     not known" in text
        assert "2 classes      without names" in text
        assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]

    @pytest.mark.parametrize("origin", [{"data": 3}, {"augmentation": {"x": 1}}, {"settings": "fast"}])
    def test_what_it_says_may_be_damaged(self, origin, fruit_net, tmp_path, capsys):
        net = load(fruit_net)
        net.origin = origin
        net.save(tmp_path / "net.safetensors")
        assert run("info", tmp_path / "net.safetensors") == 0
        assert "trained on     cannot be read" in capsys.readouterr().out

    def test_errors(self, tmp_path, capsys):
        assert run("info", tmp_path / "none") == 2
        assert "no checkpoint at" in capsys.readouterr().err
        assert run("info", "--out", tmp_path) == 2
        assert "--out needs CHECKPOINT" in capsys.readouterr().err

    def test_where_nothing_can_be_written_nothing_is_said(self, fruit_net, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert run("info", fruit_net, "--out", tmp_path / "file") == 2
        assert capsys.readouterr() == ("", f"zfcuda info: --out {tmp_path / 'file'} is not a directory\n")
