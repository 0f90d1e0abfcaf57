"""Packed images: what is read is what was packed, a call that was ended goes on, and damage is an error."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import zfcuda
from zfcuda import data
from zfcuda.data import packed
from zfcuda.data.packed.index import Half
from zfcuda.data.preprocess import mean_image

from . import pictures

CLASSES = ("a", "b\N{SNOWMAN}", "c")


def made(count=23, tested=6, shape=(5, 4, 3), seed=0):
    rng = np.random.default_rng(seed)
    halves = []
    for half, n in (("train", count), ("test", tested)):
        images = rng.integers(0, 256, (n, *shape), np.uint8)
        images[:, 0, 0] = np.arange(n)[:, None]  # which tells them apart
        halves.append(data.ArrayDataset(images, (np.arange(n) % 3).astype(np.int32), CLASSES, f"{half} of ten"))
    return data.Split(*halves)


@pytest.fixture
def folder(tmp_path):
    data.pack(made(), tmp_path / "packed", shard_images=5)
    return tmp_path / "packed"


def everything(half):
    return half.batch(range(len(half)))


# ---- What is read ------------------------------------------------------------------------------------------------


def test_every_image_with_its_label_and_name(folder):
    split, before = data.open(folder), made()
    assert sorted(os.listdir(folder)) == sorted(
        [
            "packed.json",
            *(f"{half}-{what}" for half in ("train", "test") for what in ("labels.npy", "names.txt", "mean.npy")),
            *(f"train-0000{i}.npy" for i in range(5)),
            *(f"test-0000{i}.npy" for i in range(2)),
        ]
    )
    assert np.load(folder / "train-00004.npy", mmap_mode="r").shape == (3, 5, 4, 3)
    for half, was in zip(split, before, strict=True):
        assert (half.classes, half.image_shape, half.skipped, len(half)) == (CLASSES, (5, 4, 3), (), len(was))
        images, labels = everything(half)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        places = images[:, 0, 0, 0]
        assert sorted(places) == list(range(len(was)))
        np.testing.assert_array_equal(images, was.images[places])
        np.testing.assert_array_equal(labels, was.labels[places])
        np.testing.assert_array_equal(half.labels, labels)
        assert [half.identifier(i) for i in range(len(was))] == [was.identifier(place) for place in places]
        some = [7, 0, 7, 3] if half is split.train else [5, 0, 5, 3]
        np.testing.assert_array_equal(half.batch(some)[0], images[some])
        assert half.batch([])[0].shape == (0, 5, 4, 3)
    # Those to train on are shuffled, those to test on keep their order.
    assert split.train.batch(range(23))[0][:, 0, 0, 0].tolist() != list(range(23))
    assert split.test.batch(range(6))[0][:, 0, 0, 0].tolist() == list(range(6))
    for wrong in ([23], [-1]):
        with pytest.raises(IndexError, match=r"indices must be in \[0, 23\)"):
            split.train.batch(wrong)


def test_the_same_seed_packs_the_same_files(folder, tmp_path):
    data.pack(made(), tmp_path / "again", shard_images=5)
    data.pack(made(), tmp_path / "other", shard_images=5, seed=1)
    for name in os.listdir(folder):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (folder / "train-00000.npy").read_bytes() != (tmp_path / "other" / "train-00000.npy").read_bytes()


def test_digest_and_mean_are_those_of_the_images(folder):
    for half in data.open(folder):
        read = data.ArrayDataset(*everything(half), half.classes)
        assert data.digest(half) == data.digest(read)
        np.testing.assert_array_equal(mean_image(half), mean_image(read))
        assert mean_image(half).dtype == np.float32
    assert data.digest(data.open(folder).test) == data.digest(made().test)


@pytest.mark.parametrize("window", [2**31, 8 * 60, 1])
def test_an_epoch_is_every_image_once_in_an_order_that_a_seed_fixes(folder, window, monkeypatch):
    monkeypatch.setattr(packed.dataset, "_WINDOW", window)
    train = data.open(folder).train
    orders = [data.shuffled(train, np.random.default_rng([0, epoch])) for epoch in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(23))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert orders[0].tolist() != orders[2].tolist()
    if window == 8 * 60:  # of eight images: from three shards at most
        for start in range(0, 23, 8):
            assert len(set(orders[0][start : start + 8] // 5)) <= 3
    # A data set whose labels count in other classes is read in the same order, any other in any.
    renamed = data.relabelled(train, CLASSES[::-1], 3)
    np.testing.assert_array_equal(data.shuffled(renamed, np.random.default_rng([0, 0])), orders[0])
    plain = data.shuffled(made().train, np.random.default_rng(5))
    np.testing.assert_array_equal(plain, np.random.default_rng(5).permutation(23))


def test_processes_read_it_for_themselves(folder):
    train = data.open(folder).train
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(everything(again)[0], everything(train)[0])


READ_ALL = """
import re, sys
import numpy as np
from zfcuda import data

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

train = data.open(sys.argv[1]).train
train.batch(range(4))
before = peak()
for indices in np.split(data.shuffled(train, np.random.default_rng(0)), 64):
    assert train.batch(indices)[0].shape == (4, 512, 512, 3)
print(peak() - before)
"""


def test_memory_stays_flat(tmp_path):
    """In a process of its own, whose peak nothing else has raised."""
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 512, 512, 3))
    half = data.ArrayDataset(images, np.zeros(256, np.int32), ("a",))
    small = data.ArrayDataset(images[:1], np.zeros(1, np.int32), ("a",))
    data.pack(data.Split(half, small), tmp_path / "packed", shard_images=16)
    command = [sys.executable, "-c", READ_ALL, str(tmp_path / "packed")]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(grown) < images.size / 10


# ---- Packing -----------------------------------------------------------------------------------------------------


class Ended(Exception):
    """Stands for whatever ends a process."""


def ended_after(images):
    done = []

    def progress(count):
        done.append(count)
        if sum(done) >= images:
            raise Ended

    return progress


@pytest.mark.parametrize("images", [1, 5, 8, 20, 23, 24, 29])
def test_a_call_that_was_ended_goes_on(folder, tmp_path, images, monkeypatch):
    monkeypatch.setattr(packed.packing, "_BATCH", 2)
    out = tmp_path / "out"
    with pytest.raises(Ended):
        data.pack(made(), out, shard_images=5, progress=ended_after(images))
    with pytest.raises(zfcuda.DataError, match=r"out: the packing was ended after \d+ of 29 images; the same call"):
        data.open(out)
    kept = {name: (out / name).stat().st_mtime_ns for name in os.listdir(out) if name[-9:-4].isdigit()}
    assert len(kept) == {1: 0, 5: 0, 8: 1, 20: 3, 23: 4, 24: 5, 29: 6}[images]
    (out / ".train-00009.npy.tmp").write_bytes(b"what a killed process leaves")
    told = []
    data.pack(made(), out, shard_images=5, progress=told.append)
    assert sum(told) == 29
    for name in os.listdir(folder):
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert all((out / name).stat().st_mtime_ns == time for name, time in kept.items())


def test_a_call_that_was_ended_at_any_file_goes_on(folder, tmp_path, monkeypatch):
    write, count = packed.packing.write_atomically, 1
    while True:
        written = []

        def end(path, *content, written=written, last=count):
            if len(written) == last:
                raise Ended
            written.append(path.name)
            write(path, *content)

        for module in (packed.packing, packed.index):
            monkeypatch.setattr(module, "write_atomically", end)
        out = tmp_path / str(count)
        try:
            data.pack(made(), out, shard_images=5)
            break
        except Ended:
            pass
        for module in (packed.packing, packed.index):
            monkeypatch.setattr(module, "write_atomically", write)
        data.pack(made(), out, shard_images=5)
        for name in os.listdir(folder):
            assert (folder / name).read_bytes() == (out / name).read_bytes()
        count += 1
    assert count == 1 + 4 + 7 * 2 + 2 + 1  # the index; the lists; a shard and the index; the means; the index


def test_a_second_call_reads_no_image_again(folder, monkeypatch):
    told = []
    monkeypatch.setattr(packed.packing, "_pack_half", lambda *_: pytest.fail("packs again"))
    data.pack(made(), folder, shard_images=5, progress=told.append)
    assert told == [29]


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_damaged_is_made_again(folder, tmp_path, finished):
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    (folder / "train-00001.npy").write_bytes((folder / "train-00001.npy").read_bytes()[:-1])
    flip(folder / "train-mean.npy")
    if not finished:
        change_index(folder, lambda index: index.update(complete=False))
    data.pack(made(), folder, shard_images=5)
    for name in os.listdir(whole):
        assert (whole / name).read_bytes() == (folder / name).read_bytes()


def with_other(half, **arrays):
    was = made()
    fields = {"images": was.train.images, "labels": was.train.labels, "classes": CLASSES} | arrays
    return was._replace(**{half: data.ArrayDataset(**fields)})


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        (made(), {"shard_images": 6}, "shard_images 5, not 6"),
        (made(), {"shard_images": 5, "seed": 1}, "seed 0, not 1"),
        (made(shape=(5, 5, 3)), {"shard_images": 5}, r"image_shape \(5, 4, 3\), not \(5, 5, 3\)"),
        (made(seed=1), {"shard_images": 5}, "other data, or what they are has changed since"),
        (made(count=24), {"shard_images": 5}, "other data"),
        (made(), {"shard_images": 5, "source": "files that have changed"}, "other data"),
        (with_other("train", labels=np.zeros(23, np.int32)), {"shard_images": 5}, "other data"),
    ],
)
def test_it_does_not_go_on_with_anything_else(folder, finished, split, options, message):
    if not finished:
        change_index(folder, lambda index: index.update(complete=False))
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    with pytest.raises(zfcuda.DataError, match=f"packed: was {'packed' if finished else 'begun'} with {message}"):
        data.pack(split, folder, **options)
    assert before == {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_what_cannot_be_packed(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"full must be an empty folder, or one in which packing was begun; it holds"):
        data.pack(made(), tmp_path / "full")
    with pytest.raises(ValueError, match="shard_images must be at least 1, got 0"):
        data.pack(made(), tmp_path / "out", shard_images=0)
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        data.pack(made(), tmp_path / "out", seed=-1)
    with pytest.raises(ValueError, match=r"test images of \(5, 5, 3\) or their classes are not those to train on"):
        data.pack(data.Split(made().train, made(shape=(5, 5, 3)).test), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(packed.packing.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"out: 1.74e-06 GB are needed, and 1e-06 GB are free"):
        data.pack(made(), tmp_path / "out")


def test_classes_of_one_name(tmp_path):
    """ImageNet has two called crane."""
    twins = [data.ArrayDataset(half.images, half.labels, ("crane", "crane", "x\udcff")) for half in made()]
    packed = data.pack(data.Split(*twins), tmp_path / "packed")
    assert packed.train.classes == ("crane", "crane", "x\N{REPLACEMENT CHARACTER}")
    assert data.digest(packed.test) == data.digest(twins[1])


class Wrong(data.Subset):
    def batch(self, indices):
        images, labels = super().batch(indices)
        return (images / 255, labels) if len(indices) > 6 else (images, labels)


def test_images_that_are_not_what_the_data_set_says(tmp_path, monkeypatch):
    monkeypatch.setattr(packed.packing, "_SPOTS", 2)
    split = made()._replace(train=Wrong(made().train, range(23)))
    with pytest.raises(TypeError, match=r"images must be uint8 \(n, \*\(5, 4, 3\)\), got float64 \(23, 5, 4, 3\)"):
        data.pack(split, tmp_path / "packed")


def test_an_image_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(packed.packing, "_SPOTS", 1)
    files = pictures.splits() | {"train/red/3.png": b"no picture"}
    split = data.open(pictures.write(tmp_path / "set", files), in_memory=False)
    with pytest.raises(zfcuda.DataError, match=r"red/3\.png: cannot be read as an image"):
        data.pack(split, tmp_path / "out", shard_images=2)
    with pytest.raises(zfcuda.DataError, match="the packing was ended after"):
        data.open(tmp_path / "out")
    pictures.write(tmp_path / "set", pictures.splits())
    assert len(data.pack(split, tmp_path / "out", shard_images=2).train) == 12


def test_a_stamp_changes_with_the_files(tmp_path):
    root = pictures.write(tmp_path / "set", pictures.splits())
    (root / "train" / "red" / "lost.png").symlink_to("nowhere")
    stamps = [data.stamp(root), data.stamp(str(root)), data.stamp("fashion-mnist")]
    assert stamps[0] == stamps[1] != stamps[2]
    os.utime(root / "train" / "red" / "1.png", (1, 1))
    stamps.append(data.stamp(root))
    (root / "train" / "red" / "1.png").rename(root / "train" / "red" / "9.png")
    stamps.append(data.stamp(root))
    archive = pictures.write_zip(tmp_path / "a.zip", pictures.splits())
    stamps.append(data.stamp(archive))
    os.utime(archive, (1, 1))
    stamps.append(data.stamp(archive))
    assert len(set(stamps)) == 6


# ---- Damage ------------------------------------------------------------------------------------------------------


def change_index(folder, change):
    index = json.loads((folder / "packed.json").read_text())
    change(index)
    (folder / "packed.json").write_text(json.dumps(index))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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
        (at("version", value=2), "version 2 of packed images, where 1 is read: pack them anew"),
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
