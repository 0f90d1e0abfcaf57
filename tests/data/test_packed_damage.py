"""Packed images that are damaged, change while they are read, or have an index that lies: an error with the path."""

import copy
import os

import numpy as np
import pytest

import zfcuda
from zfcuda import data
from zfcuda.data import packed
from zfcuda.data.packed.index import Half

from .packing import change_index, flip, made


@pytest.fixture
def folder(tmp_path):
    data.pack(made(), tmp_path / "packed", shard_images=5)
    return tmp_path / "packed"


# ---- Damage ------------------------------------------------------------------------------------------------------


def rewrite(array):
    return lambda path: np.save(path, array)


SHARD = np.zeros((5, 5, 4, 3), np.uint8)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-00001.npy", lambda path: path.unlink(), "cannot be read (No such file"),
        ("train-00001.npy", lambda path: os.truncate(path, 427), "is cut short: 427 bytes, where 428 are expected"),
        ("train-00001.npy", lambda path: os.truncate(path, 429), "goes on behind its images: 429 bytes, where 428"),
        ("train-00001.npy", lambda path: os.truncate(path, 50), "is no .npy file of images"),
        ("train-00001.npy", lambda path: path.write_bytes(b""), "is no .npy file of images"),
        ("train-00001.npy", lambda path: path.write_bytes(b"\x93NUMPY\x03\x00" + bytes(420)), "version (3, 0) of the"),
        ("train-00001.npy", rewrite(SHARD[:4]), "holds uint8 (4, 5, 4, 3), the index says uint8 (5, 5, 4, 3)"),
        ("train-00001.npy", rewrite(SHARD[:, :4]), "holds uint8 (5, 4, 4, 3), the index says"),
        ("train-00001.npy", rewrite(SHARD.astype(np.int8)), "holds int8 (5, 5, 4, 3), the index says"),
        ("train-00001.npy", rewrite(np.asfortranarray(SHARD)), "in Fortran order"),
        ("train-00001.npy", rewrite(np.array([{}] * 5)), "holds object (5,), the index says"),
        ("test-00001.npy", lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
        ("test-00001.npy", lambda path: (path.unlink(), os.mkfifo(path)), "is no .npy file of images"),
        ("train-labels.npy", lambda path: path.unlink(), "cannot be read (No such file"),
        ("train-labels.npy", flip, "its SHA-256 is not that of the index"),
        ("test-mean.npy", lambda path: os.truncate(path, 100), "its SHA-256 is not that of the index"),
    ],
)
def test_damaged_files(folder, name, damage, message, large, monkeypatch):
    """All but the shards' pixels, whatever the size of the set."""
    if large:
        monkeypatch.setattr(packed.dataset, "VERIFIED", 0)
    damage(folder / name)
    with pytest.raises(zfcuda.DataError) as caught:
        data.open(folder)
    assert str(caught.value).startswith(f"{folder}/{name}: ")
    assert message in str(caught.value)


def test_wrong_pixels(folder, monkeypatch):
    flip(folder / "train-00001.npy")
    with pytest.raises(zfcuda.DataError, match=r"train-00001\.npy: is damaged: its SHA-256 is not that of the index"):
        data.open(folder)
    monkeypatch.setattr(packed.dataset, "VERIFIED", 0)
    split = data.open(folder)  # of a large set they are not read
    split.test.verify()
    with pytest.raises(zfcuda.DataError, match=r"train-00001\.npy: is damaged"):
        split.train.verify()
    with pytest.raises(zfcuda.DataError, match=r"train-00001\.npy: is damaged"):
        data.open_packed(folder, verify=True)


def test_wrong_names(folder, monkeypatch):
    flip(folder / "test-names.txt")
    with pytest.raises(zfcuda.DataError, match=r"test-names\.txt: is damaged"):
        data.open(folder)
    monkeypatch.setattr(packed.dataset, "VERIFIED", 0)
    with pytest.raises(zfcuda.DataError, match=r"test-names\.txt: is damaged"):
        data.open(folder).test.identifier(0)


def test_files_that_change_while_they_are_read(folder):
    train = data.open(folder).train
    os.truncate(folder / "train-00004.npy", 200)
    with pytest.raises(zfcuda.DataError, match=r"train-00004\.npy: is cut short"):
        train.batch([22])
    (folder / "train-00004.npy").unlink()
    with pytest.raises(zfcuda.DataError, match=r"train-00004\.npy: cannot be read \(No such file"):
        train.batch([22])
    with pytest.raises(zfcuda.DataError, match=r"train-00004\.npy: cannot be read \(No such file"):
        train.verify()
    assert train.batch([3])[0].shape == (1, 5, 4, 3)


# ---- An index that lies ------------------------------------------------------------------------------------------


def at(*path, value):
    """A change of the index: the value at a path."""

    def change(index):
        for key in path[:-1]:
            index = index[key]
        index[path[-1]] = value

    return change


def resealed(folder, name, array, *path):
    """Another array in a file, with the checksum that it has."""
    np.save(folder / name, array)
    change_index(folder, at(*path, "sha256", value=packed.index.sha256_of(folder / name)))


FIRST = ("halves", "train", "shards", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("format", value="images"), "format must be 'zfcuda packed images', got 'images'"),
        (at("format", value=None), "format must be of the type str, got None"),
        (at("version", value=1), "version 1 of packed images, where 2 is read: pack them anew"),
        (at("version", value=3), "version 3 of packed images, where 2 is read: pack them anew"),
        (at("version", value=True), "version must be of the type int, got True"),
        (at("complete", value=1), "complete must be of the type bool, got 1"),
        (at("classes", value=[1, 2, 3]), "classes must be a list of names"),
        (at("classes", value=[]), "classes must be a list of names"),
        (at("image_shape", value=[5, 4]), "image_shape must be [H, W, C], each from 1 to 65536, got [5, 4]"),
        (at("image_shape", value=[5, 4, 0]), "image_shape must be [H, W, C]"),
        (at("image_shape", value=[5, 4, 10**12]), "image_shape must be [H, W, C]"),
        (at("source", value="abc"), "source must be a SHA-256"),
        (at("options", value={}), "seed must be of the type int, got None"),
        (at("halves", "test", value=None), "test must be of the type dict, got None"),
        (at("halves", "test", "images", value=-1), "images of test must be at least 1, got -1"),
        (at("halves", "test", "images", value=7), "says that it is complete, but has shards with 6 of 7 test images"),
        (at("halves", "test", "digest", value=None), "says that it is complete, but has"),
        (at("halves", "test", "digest", value=5), "digest must be of the type str, got 5"),
        (at("halves", "test", "mean", value=None), "says that it is complete, but has"),
        (at("halves", "train", "labels", value="train-labels.npy"), "labels must be of the type dict"),
        (at("halves", "train", "shards", value=[]), "says that it is complete, but has shards with 0 of 23 train"),
        (at("halves", "train", "shards", 1, value=[]), "file must be of the type str, got None"),
        (at(*FIRST, "count", value=6), "train-00001.npy must hold images from 6 on, of 23; got 5 from 5 on"),
        (at(*FIRST, "count", value=24), "train-00000.npy must hold images from 0 on, of 23; got 24 from 0 on"),
        (at(*FIRST, "count", value=0), "train-00000.npy must hold images from 0 on"),
        (at(*FIRST, "first", value=1), "train-00000.npy must hold images from 0 on, of 23; got 5 from 1 on"),
        (at(*FIRST, "sha256", value="f" * 63), "sha256 must be a SHA-256, 64 hexadecimal digits"),
        (at(*FIRST, "file", value="train-00001.npy"), "names the file train-00001.npy twice"),
        *(
            (at(*FIRST, "file", value=name), f"file must be the name of one in this folder, got {name!r}")
            for name in ("../train-00000.npy", "/etc/passwd", "a/b.npy", "..", ".", "", ".hidden", "a\0b", "\ud800")
        ),
        (at("halves", "test", "names", "file", value="../names.txt"), "file must be the name of one in this folder"),
    ],
)
def test_an_index_that_lies(folder, change, message):
    change_index(folder, change)
    with pytest.raises(zfcuda.DataError) as caught:
        data.open(folder)
    assert str(caught.value).startswith(f"{folder}/packed.json: ")
    assert message in str(caught.value)


def test_an_index_of_many_shards(folder, monkeypatch):
    """Its shards are not added up anew for each of them, which would take minutes."""
    count, added = 1000, []
    packed_so_far = Half.packed.fget
    monkeypatch.setattr(Half, "packed", property(lambda half: added.append(half) or packed_so_far(half)))
    shards = [{"file": f"s{i}.npy", "sha256": "0" * 64, "first": i, "count": 1} for i in range(count)]
    change_index(folder, lambda index: index["halves"]["train"].update(images=count, shards=shards))
    with pytest.raises(zfcuda.DataError, match=r"train-labels\.npy: holds int32 \(23,\), expected int32 \(1000,\)"):
        data.open(folder)
    assert 0 < len(added) < 10


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"packed"', "[" * 100_000, b"\xff\xfe", '{"format": {}}'])
def test_an_index_that_is_none(folder, text):
    (folder / "packed.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for call in (lambda: data.open(folder), lambda: data.pack(made(), folder)):
        with pytest.raises(zfcuda.DataError, match=r"packed\.json: "):
            call()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"seed": 0', '"seed": 1'),
        ('"a"', '"d"'),
        ('"test-00000.npy"', '"test-00009.npy"'),
        ('"digest": "', '"digest": "0'),
        ('"complete": true', '"complete": false'),
        ('"options"', '"more": 1, "options"'),
    ],
)
def test_an_index_that_was_edited(folder, before, after):
    """Nothing of it is trusted, whatever the size of the set: of large ones no shard is read to its end."""
    path = folder / "packed.json"
    text = path.read_text()
    assert before in text
    if before == '"digest": "':  # which stays as long as it is
        start = text.index(before) + len(before)
        path.write_text(text[:start] + ("1" if text[start] == "0" else "0") + text[start + 1 :])
    else:
        path.write_text(text.replace(before, after, 1))
    message = r"packed\.json: is damaged or was edited: its SHA-256 is not the one that it names"
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(folder)
    with pytest.raises(zfcuda.DataError, match=message + "; pass another folder, or delete this one"):
        data.pack(made(), folder)


def test_shards_that_have_changed_places(folder):
    """The pixels of one under the name of another, with the labels of that one."""
    names = [folder / f"train-0000{i}.npy" for i in (0, 1)]
    first, second = (name.read_bytes() for name in names)
    names[0].write_bytes(second)
    names[1].write_bytes(first)
    with pytest.raises(zfcuda.DataError, match=r"train-0000\d\.npy: is damaged: its SHA-256 is not that of the index"):
        data.open(folder)


def test_labels_and_names_that_do_not_fit(folder):
    before = copy.deepcopy({name: (folder / name).read_bytes() for name in os.listdir(folder)})
    for array, message in (
        (np.zeros(22, np.int32), r"holds int32 \(22,\), expected int32 \(23,\)"),
        (np.zeros(23, np.int64), r"holds int64 \(23,\), expected int32"),
        (np.full(23, 3, np.int32), r"labels must be in \[0, 3\), got values from 3 to 3"),
        (np.full(23, -1, np.int32), r"labels must be in \[0, 3\), got values from -1 to -1"),
        (np.array([{}] * 23), r"is no \.npy file \(Object arrays cannot be loaded"),
    ):
        resealed(folder, "train-labels.npy", array, "halves", "train", "labels")
        with pytest.raises(zfcuda.DataError, match=rf"train-labels\.npy: {message}"):
            data.open(folder)
    for name, content in before.items():
        (folder / name).write_bytes(content)
    (folder / "test-names.txt").write_text("one\n")
    change_index(
        folder, at("halves", "test", "names", "sha256", value=packed.index.sha256_of(folder / "test-names.txt"))
    )
    with pytest.raises(zfcuda.DataError, match=r"test-names\.txt: holds 1 names for 6 images"):
        data.open(folder).test.identifier(0)
