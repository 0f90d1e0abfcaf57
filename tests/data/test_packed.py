"""Packed images: what is read is what was packed, and a call that was ended goes on."""

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
from zfcuda.data.preprocess import mean_image

from . import pictures
from .packing import CLASSES, change_index, flip, made


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
batches = np.split(data.shuffled(train, np.random.default_rng(0)), 64)

def read(batches):
    for indices in batches:
        assert train.batch(indices)[0].shape == (4, 512, 512, 3)

preprocess = data.Preprocess(np.zeros((512, 512, 3), np.float32), (256, 256))

def crop(batches):
    drawn = (data.Drawn(indices, np.zeros((4, 2), int), np.zeros(4, np.uint8)) for indices in batches)
    for crops, _ in data.load_crops(train, preprocess, drawn):
        assert crops.shape == (4, 256, 256, 3)

call = globals()[sys.argv[2]]
call(batches[:8])
before = peak()
call(batches)
print(peak() - before)
"""


@pytest.mark.parametrize("call", ["read", "crop"])
def test_memory_stays_flat(tmp_path, call):
    """In a process of its own, whose peak nothing else has raised."""
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 512, 512, 3))
    half = data.ArrayDataset(images, np.zeros(256, np.int32), ("a",))
    small = data.ArrayDataset(images[:1], np.zeros(1, np.int32), ("a",))
    data.pack(data.Split(half, small), tmp_path / "packed", shard_images=16)
    command = [sys.executable, "-c", READ_ALL, str(tmp_path / "packed"), call]
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
