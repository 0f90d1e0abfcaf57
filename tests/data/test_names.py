"""Names of any bytes: found and read as they are, shown as text."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import zfcuda
from zfcuda import cli, data

from . import pictures

PICTURE = pictures.png(pictures.solid((1, 2, 3), 0))


def _write(root, names):
    for name in names:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(PICTURE)
    return root


REPLACED = "\N{REPLACEMENT CHARACTER}"


def _hostile(root):
    """A data set in a folder, of classes and with files, whose names are not UTF-8."""
    place = os.path.join(os.fsencode(root), b"d\xff")
    _write(place, [b"%s/caf\xe9/x\xe8%d.png" % (half, i) for half in (b"train", b"test") for i in range(3)])
    _write(place, [b"%s/new\nline/%d.png" % (half, i) for half in (b"train", b"test") for i in range(3)])
    return os.fsdecode(place)


@pytest.mark.parametrize("packed", [False, True])
def test_names_that_are_not_utf8(tmp_path, packed):
    path = _hostile(tmp_path)
    if packed:
        with tarfile.open(path + ".tar", "w") as archive:
            archive.add(path, ".")
        path += ".tar"
    split = data.open(path)
    assert split.train.classes == (f"caf{REPLACED}", f"new{REPLACED}line")
    assert split.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    shown = str(tmp_path / f"d{REPLACED}") + (".tar" if packed else "")
    assert split.train.identifier(1) == f"{shown}/train/caf{REPLACED}/x{REPLACED}1.png"
    later = data.open(path, in_memory=False).train
    assert later.identifier(1) == split.train.identifier(1)
    np.testing.assert_array_equal(later.batch(range(6))[0], split.train.images)


def test_names_that_are_not_utf8_in_messages(tmp_path):
    path = _hostile(tmp_path)
    with open(os.path.join(os.fsencode(path), b"train/caf\xe9/\xfe.png"), "wb") as file:
        file.write(b"no picture")
    with pytest.raises(zfcuda.DataError) as error:
        data.open(path)
    assert f"d{REPLACED}/train/caf{REPLACED}/{REPLACED}.png: cannot be read" in str(error.value)
    skipped = data.open(path, on_error="skip").train.skipped
    for text in (str(error.value), skipped[0].path):
        assert text.encode()
    with pytest.raises(FileNotFoundError) as missing:
        data.open(os.fsdecode(b"nowhere\xff"))
    assert str(missing.value).encode()


def test_classes_whose_names_look_alike_are_told_apart(tmp_path):
    _write(tmp_path, [b"caf\xe9/1.png", b"caf\xe9/2.png", b"caf\xe8/1.png", b"caf\xe8/2.png", b"tea/1.png"])
    assert data.open(tmp_path).train.classes == ("caf\\xe8", "caf\\xe9", "tea")
    _write(tmp_path, ["é/1.png".encode(), "e\N{COMBINING ACUTE ACCENT}/1.png".encode()])
    with pytest.raises(zfcuda.DataError, match="two class folders whose names look the same"):
        data.open(tmp_path)


def test_a_letter_and_its_accent_are_one(tmp_path):
    """macOS writes what it is given, Linux too, and archives carry either."""
    _write(tmp_path, [f"train/{name}/1.png".encode() for name in ("café", "tea")])
    _write(tmp_path, [f"test/{name}/1.png".encode() for name in ("cafe\N{COMBINING ACUTE ACCENT}", "tea")])
    split = data.open(tmp_path)
    assert split.train.classes == split.test.classes == ("café", "tea")
    assert split.test.labels.tolist() == [0, 1]
    assert all(Path(half.identifier(i)).exists() for half in split for i in range(len(half)))


def test_names_that_a_program_gives_are_shown_too():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    dataset = data.ArrayDataset(images, np.zeros(2, np.int32), ("\udce9", "\ud800"), ["\udcff", "x\x1b[31m"])
    assert dataset.classes == (REPLACED, REPLACED)
    assert [dataset.identifier(i) for i in range(2)] == [REPLACED, f"x{REPLACED}[31m"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, parts of its pictures and a checkpoint, at paths that are not UTF-8."""
    root = tmp_path_factory.mktemp("names")
    path = _hostile(root)
    out = os.path.join(os.fsencode(root), b"\xfe")
    with open(os.path.join(os.fsencode(path), b"train/caf\xe9/\xfe.png"), "wb") as file:
        file.write(b"no picture")
    boxes = {os.fsdecode(b"train/caf\xe9/x\xe8%d.png" % i): {"ear": [0, 0, 9, 9]} for i in range(2)}
    Path(path, "parts.json").write_text(json.dumps(boxes))
    words = ["--epochs", "2", "--batch-size", "4", "--image-size", "28", "--track-evolution", "--quiet"]
    net = os.fsdecode(os.path.join(out, b"net"))
    assert cli.main(["train", "--data", path, "--skip-damaged", *words, "--out", net]) == 0
    return path, net


COMMANDS = {
    "train": "--epochs 1 --batch-size 4 --image-size 28",
    "visualize": "NET --maps 2 --no-sanity",
    "evolve": "NET",
    "invariance": "NET --images 1 --steps 2",
    "diagnose": "NET",
    "occlude": "NET --images 1",
    "sanity": "NET --images 1 --size 14 --stride 14",
    "correspond": "NET PARTS",
    "features": "NET --per-class 2 --draws 1 --layers pool5",
    "ablate": "--epochs 1 --batch-size 4 --image-size 28 --variants --processes 2 --seeds 0 1",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_reports_of_names_of_any_bytes(trained, tmp_path, capsysbinary, monkeypatch, command):
    """All the way, for every command: progress, messages, report.html and the JSON, from and to such paths."""
    path, net = trained
    out = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    named = {"NET": [f"{net}/checkpoint.safetensors"], "PARTS": [f"{path}/parts.json"]}
    words = [word for given in COMMANDS[command].split() for word in named.get(given, [given])]
    if command == "ablate":
        words.insert(words.index("--variants") + 1, "as it is")
    words += [] if command in ("evolve", "correspond") else ["--data", path, "--skip-damaged"]
    monkeypatch.setattr(sys, "argv", ["zfcuda", command, *words, "--out", out])  # for the report's foot
    assert cli.main() == 0
    assert cli.main(["study", out, "--out", f"{out}/study"]) == 0
    printed, errors = (text.decode() for text in capsysbinary.readouterr())
    assert "report: " in printed
    assert ("left out" in errors) == ("--skip-damaged" in words)
    for directory in (out, f"{out}/study"):
        shown = Path(directory, "report.html").read_text(encoding="utf-8")
        numbers = Path(directory, "report.json").read_text(encoding="utf-8")
        assert json.loads(numbers)
        assert "\\ud" not in shown + numbers
        assert REPLACED in shown
        assert REPLACED in numbers


def test_labels_and_messages_of_names_of_any_bytes(trained, tmp_path, capsys):
    path, net = trained
    picture = os.fsdecode(os.path.join(os.fsencode(path), b"test/caf\xe9/x\xe80.png"))
    words = ["occlude", f"{net}/checkpoint.safetensors", "--size", "14", "--out", str(tmp_path), "--quiet"]
    assert cli.main([*words, "--image", picture, "--label", os.fsdecode(b"caf\xe9")]) == 0
    assert f"caf{REPLACED}" in (tmp_path / "report.html").read_text(encoding="utf-8")
    missing = os.fsdecode(b"nowhere\xff.png")
    for wrong in (["--image", picture, "--label", os.fsdecode(b"t\xe9")], ["--image", missing], ["--data", missing]):
        capsys.readouterr()
        assert cli.main([*words, *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.encode()


def test_the_command_line_itself(trained, tmp_path):
    """Without a test's own standard output between: what is printed is text, in any encoding of the terminal."""
    path, net = trained
    for encoding in ("utf-8", "ascii"):
        out = os.path.join(os.fsencode(tmp_path), b"\xfe")
        words = [net + "/checkpoint.safetensors", "--data", path, "--skip-damaged", "--images", "1", "--out", out]
        command = [sys.executable, "-m", "zfcuda.cli", "occlude", *words]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert (done.stdout + done.stderr).decode(encoding)
