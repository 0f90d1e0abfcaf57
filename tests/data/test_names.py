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
from zfcuda import data

from . import pictures


def _write(root, names):
    for name in names:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(pictures.png(pictures.solid((1, 2, 3), 0)))
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


def test_reports_of_names_of_any_bytes(tmp_path):
    """All the way: progress lines, messages, the checkpoint, report.html and report.json, from and to such a path."""
    path = _hostile(tmp_path)
    out = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xfe")))
    with open(os.path.join(os.fsencode(path), b"train/caf\xe9/\xfe.png"), "wb") as file:
        file.write(b"no picture")
    for command in (
        ["train", "--epochs", "1", "--skip-damaged", "--out", out / "net"],
        ["occlude", out / "net" / "checkpoint.safetensors", "--images", "1", "--out", out / "maps"],
    ):
        words = [sys.executable, "-m", "zfcuda.cli", *command, "--data", path]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() + done.stderr.decode()
    assert zfcuda.load(out / "net" / "checkpoint.safetensors").classes[0] == f"caf{REPLACED}"
    for name in ("net", "maps"):
        assert json.loads((out / name / "report.json").read_text(encoding="utf-8"))
    assert f"caf{REPLACED}" in (out / "maps" / "report.html").read_text(encoding="utf-8")
