"""Tar shards in the webdataset convention: pictures with a label beside each."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest

import zfcuda
from zfcuda import data
from zfcuda.data import tar_shards

from . import pictures


def picture(index, colour="red"):
    return pictures.png(pictures.solid(pictures.COLOURS[colour], index))


def samples(first, count, label=lambda i: str(i % 3).encode(), kind="cls"):
    """File name -> contents of so many samples, numbered from `first`."""
    files = {}
    for i in range(first, first + count):
        files |= {f"{i:06}.png": picture(i), f"{i:06}.{kind}": label(i), f"{i:06}.txt": b"a caption"}
    return files


def shard(path, files):
    return pictures.write_tar(path, files, "")


@pytest.fixture
def shards(tmp_path):
    """Twelve samples of three classes in four shards to train on, three in one to test on."""
    for i in range(4):
        shard(tmp_path / f"set-train-{i:03}.tar", samples(3 * i, 3))
    shard(tmp_path / "set-val-000.tar", samples(100, 3))
    return tmp_path


def first_pixels(half):
    return half.batch(range(len(half)))[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_pattern(shards, in_memory):
    pattern = f"{shards}/set-train-{{000..003}}.tar"
    split = data.open(pattern, in_memory=in_memory, hold_out=0.25)
    assert data.is_there(pattern)
    assert split.train.classes == ("0", "1", "2")
    assert split.train.image_shape == (6, 6, 3)
    assert np.bincount(split.train.labels).tolist() == [3, 3, 3]
    assert np.bincount(split.test.labels).tolist() == [1, 1, 1]
    assert sorted(first_pixels(split.train) + first_pixels(split.test)) == list(range(12))
    for half in split:
        images, labels = half.batch(range(len(half)))
        assert labels.tolist() == [place % 3 for place in images[:, 0, 0, 0]]
        for i, place in enumerate(images[:, 0, 0, 0]):
            assert half.identifier(i) == f"{shards}/set-train-{place // 3:03}.tar/{place:06}.png"
            np.testing.assert_array_equal(images[i], pictures.solid(pictures.COLOURS["red"], place))


@pytest.mark.parametrize("given", ["", "/set-{train,val}-{000..000}.tar", "/set-{val-000,train-002,train-000}.tar"])
def test_two_halves(shards, given):
    split = data.open(f"{shards}{given}")
    assert first_pixels(split.train) == (
        [*range(12)] if not given else [0, 1, 2] if ".." in given else [6, 7, 8, 0, 1, 2]
    )
    assert first_pixels(split.test) == [100, 101, 102]
    assert split.test.labels.tolist() == [1, 2, 0]


def test_what_patterns_name():
    names = lambda pattern: [str(path) for path in tar_shards.expand(pattern)]  # noqa: E731
    assert names("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert names("a-{8..10}.tar") == ["a-8.tar", "a-9.tar", "a-10.tar"]
    assert names("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    assert names("a-{,b}") == ["a-", "a-b"]
    assert names("a{b}.tar") == names("a.tar") == names("a-{1..}.tar") == names("a-{3..2}.tar") == []
    for pattern in ("{0..100000}", "{0..999}{0..999}", "{000000000..999999999}"):
        with pytest.raises(ValueError, match="names more than 100,000 shards"):
            tar_shards.expand(pattern)


def test_braces_in_the_name_of_a_folder(tmp_path):
    pictures.write(tmp_path / "set{1,2}", pictures.splits())
    assert len(data.open(tmp_path / "set{1,2}").train) == 12


def test_names_as_labels(tmp_path):
    def label(i):
        return json.dumps({"label": ["cat", "dog", "eel"][i % 3], "width": 6}).encode()

    shard(tmp_path / "train-0.tar", samples(0, 6, label, "json"))
    shard(tmp_path / "test-0.tar", samples(50, 2, label, "json"))
    split = data.open(tmp_path)
    assert split.train.classes == split.test.classes == ("cat", "dog", "eel")
    assert split.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert split.test.labels.tolist() == [2, 0]
    shard(tmp_path / "train-0.tar", samples(0, 2, label, "json"))
    with pytest.raises(zfcuda.DataError, match="the test half has classes that the training half lacks: eel"):
        data.open(tmp_path)


def test_a_single_shard_with_folders_and_what_plays_no_part(tmp_path):
    files = {}
    for i in range(6):
        files |= {
            f"./{i % 2}/{i}.seg.png": picture(i),
            f"./{i % 2}/{i}.json": b'{"label": 9}',
            f"./{i % 2}/._{i}.png": b"",
        }
        files |= {f"./{i % 2}/{i}.cls": f" {i % 2}\n".encode(), f"./{i % 2}/{i}.npy": b"?"}
    split = data.open(shard(tmp_path / "some.tar", files), hold_out=0.3)
    assert split.train.classes == ("0", "1")  # .cls counts before .json
    assert sorted(first_pixels(split.train) + first_pixels(split.test)) == list(range(6))


def test_a_picture_that_is_damaged(shards):
    shard(shards / "set-train-001.tar", samples(3, 3) | {"000004.png": b"no picture"})
    where = r"set-train-001\.tar/000004\.png: cannot be read as an image"
    with pytest.raises(zfcuda.DataError, match=where):
        data.open(shards)
    split = data.open(shards, in_memory=False)
    with pytest.raises(zfcuda.DataError, match=where):
        split.train.batch([4])
    skipping = data.open(shards, on_error="skip")
    assert first_pixels(skipping.train) == [0, 1, 2, 3, *range(5, 12)]
    assert [skipped.path for skipped in skipping.train.skipped] == [f"{shards}/set-train-001.tar/000004.png"]


def test_shards_are_packed_and_stamped(shards, tmp_path):
    pattern = f"{shards}/set-{{train,val}}-{{000..000}}.tar"
    split = data.open(pattern, in_memory=False)
    packed = data.pack(split, tmp_path / "packed", source=data.stamp(pattern))
    assert sorted(first_pixels(packed.train)) == [0, 1, 2]
    assert data.digest(packed.test) == data.digest(split.test)
    before = data.stamp(pattern)
    os.utime(shards / "set-val-000.tar", (1, 1))
    assert data.stamp(pattern) != before


def test_other_processes_read_shards_for_themselves(shards):
    train = data.open(shards, in_memory=False).train
    assert first_pixels(pickle.loads(pickle.dumps(train))) == list(range(12))


# ---- Errors ------------------------------------------------------------------------------------------------------


def test_shards_that_are_missing(shards):
    pattern = f"{shards}/set-train-{{002..005}}.tar"
    with pytest.raises(
        FileNotFoundError, match=r"2 of 4 shards are missing: .*set-train-004\.tar, .*set-train-005\.tar"
    ):
        data.open(pattern)
    assert data.is_there(pattern)
    assert not data.is_there(f"{shards}/none-{{0..5}}.tar")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-0.tar", "val-0.tar", "test-0.tar"], "it cannot be told which of these is which half: test-0"),
        (["train-0.tar", "val-0.tar", "part-0.tar"], "it cannot be told which of these is which half: part-0"),
    ],
)
def test_halves_that_cannot_be_told(tmp_path, names, message):
    for name in names:
        shard(tmp_path / name, samples(0, 6))
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(tmp_path)
    with pytest.raises(zfcuda.DataError, match="names a shard twice"):
        data.open(f"{tmp_path}/{{train,train}}-{{0..0}}.tar")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": b"x"}, r"train-0\.tar/1\.png: has no label beside it, 1\.cls or \.json"),
        ({"a/1.png": b"x", "b/1.cls": b"0"}, r"a/1\.png: has no label beside it, a/1\.cls"),
        ({"1.cls": b"0"}, r"train-0\.tar/1\.cls: has no picture beside it, 1\.jpg or another"),
        ({"1.png": b"x", "1.jpg": b"x", "1.cls": b"0"}, r"1\.jpg: is the second picture of a sample, after 1\.png"),
        ({"1.png": b"x", "1.cls": b"cat"}, r"1\.cls: holds no label, a whole number \(invalid literal"),
        ({"1.png": b"x", "1.cls": b""}, r"1\.cls: holds no label"),
        ({"1.png": b"x", "1.cls": b"9" * 5000}, r"1\.cls: holds no label"),
        ({"1.png": b"x", "1.cls": b"\xff"}, r"1\.cls: holds no label"),
        ({"1.png": b"x", "1.cls": b"-1"}, r"labels must be in \[0, 65,536\), got values from -1 to 2"),
        ({"1.png": b"x", "1.cls": b"65536"}, r"labels must be in \[0, 65,536\), got values from 0 to 65536"),
        ({"1.png": b"x", "1.cls": b"9" * 4000}, r"got values from 0 to 99999999999999999999$"),
        ({"1.png": b"x", "1.json": b'{"label": "cat"}'}, "some labels are numbers, others are names"),
        ({"1.png": b"x", "1.json": b"{"}, r"1\.json: holds no label, JSON with \"label\""),
        ({"1.png": b"x", "1.json": b"[5]"}, r"1\.json: holds no label, .* \(label must be a whole number or a name\)"),
        ({"1.png": b"x", "1.json": b'{"label": true}'}, r"1\.json: holds no label"),
        ({"1.png": b"x", "1.json": b'{"label": ""}'}, r"1\.json: holds no label"),
        ({"1.png": b"x", "1.json": b'{"label":' + b"[" * 200_000}, r"1\.json: holds no label"),
        ({"1.png": b"x", "1.cls": b"1_0"}, r"1\.cls: holds no label, a whole number \(invalid literal b'1_0'\)"),
        ({"1.png": b"x", "1.cls": b"0", "1.a.cls": b"0"}, r"1\.a\.cls: is the second \.cls of a sample"),
        (
            {"1.png": b"x", "1.json": b'{"label": 0}', "1.a.json": b'{"label": 0}'},
            r"1\.a\.json: is the second \.json of a sample",
        ),
        ({"1.png": b"x", "1.json": b'{"label": 1, "label": 0}'}, r"1\.json: .* \('label' is named twice\)"),
        ({"1.png": b"x", "1.json": b" " * 2**21}, r"1\.json: holds 2,097,152 bytes, more than the 1,048,576"),
    ],
)
def test_what_is_no_sample(tmp_path, files, message):
    shard(tmp_path / "train-0.tar", files | samples(10, 6))
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(tmp_path)


def test_what_a_label_of_its_own_leaves_unread(tmp_path):
    """Wherever they stand: a .cls is the label, and a .json beside it need not have any, nor be one."""
    for i, files in enumerate(({"1.json": b"{}", "1.cls": b"2"}, {"1.cls": b"2", "1.json": b"{", "1.a.json": b"5"})):
        folder = tmp_path / str(i)
        folder.mkdir()
        shard(folder / "train-0.tar", {"1.png": picture(0), **files} | samples(10, 6))
        split = data.open(folder, hold_out=0.3)
        found = {half.identifier(at): int(half.labels[at]) for half in split for at in range(len(half))}
        assert found[f"{folder}/train-0.tar/1.png"] == 2


def test_a_shard_without_samples(tmp_path):
    shard(tmp_path / "train-0.tar", {"readme.txt": b"nothing"})
    with pytest.raises(zfcuda.DataError, match="holds no samples; expected pictures with a label beside each"):
        data.open(tmp_path)


def _member(kind, name="000001.png", **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf()


@pytest.mark.parametrize(
    "member",
    [
        _member(tarfile.SYMTYPE, linkname="/etc/passwd"),
        _member(tarfile.SYMTYPE, linkname="../../x.png"),
        _member(tarfile.LNKTYPE, linkname="000002.png"),
        _member(tarfile.FIFOTYPE),
        _member(tarfile.CHRTYPE, devmajor=1, devminor=5),
        _member(tarfile.SYMTYPE, "000001.cls", linkname="/etc/hostname"),
    ],
)
def test_links_and_devices(tmp_path, member):
    path = shard(tmp_path / "train-0.tar", samples(10, 6))
    path.write_bytes(member + path.read_bytes())
    with pytest.raises(
        zfcuda.DataError, match=r"train-0\.tar/000001\.\w+: is a link or something else that is no plain"
    ):
        data.open(tmp_path)


def test_names_that_climb_out_do_no_harm(tmp_path):
    files = {f"../../{name}": content for name, content in samples(0, 6).items()}
    split = data.open(shard(tmp_path / "train-0.tar", files), hold_out=0.4)
    assert sorted(first_pixels(split.train) + first_pixels(split.test)) == list(range(6))
    assert os.listdir(tmp_path) == ["train-0.tar"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_shard_that_is_cut_short(shards, share):
    path = shards / "set-train-002.tar"
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(zfcuda.DataError, match=r"set-train-002\.tar: the archive is damaged or cut short"):
        data.open(shards)


@pytest.mark.parametrize("content", [b"", b"no tar at all", os.urandom(5000), b"PK\x03\x04" + bytes(600)])
def test_what_is_no_tar(shards, content):
    (shards / "set-train-002.tar").write_bytes(content)
    with pytest.raises(zfcuda.DataError, match=r"set-train-002\.tar: the archive is damaged or cut short"):
        data.open(shards)


@pytest.mark.parametrize("mode", ["gz", "xz", "bz2"])
def test_a_shard_that_is_compressed(shards, mode):
    pictures.write_tar(shards / "set-train-002.tar", samples(6, 3), mode)
    with pytest.raises(zfcuda.DataError, match=r"set-train-002\.tar: is compressed, .* unpack it to a plain tar"):
        data.open(shards)


def test_pipes_and_folders_in_the_place_of_shards(shards):
    path = shards / "set-train-002.tar"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(zfcuda.DataError, match=r"set-train-002\.tar: is a FIFO, not a file"):
        data.open(shards)
    path.unlink()
    path.mkdir()
    with pytest.raises(zfcuda.DataError, match=r"set-train-002\.tar: is a folder, not a file"):
        data.open(f"{shards}/set-train-{{000..003}}.tar")


def test_shards_that_change_while_they_are_read(shards):
    train = data.open(shards, in_memory=False).train
    os.truncate(shards / "set-train-000.tar", 520)
    with pytest.raises(zfcuda.DataError, match=r"set-train-000\.tar/000000\.png: the archive is cut short"):
        train.batch([0])
    (shards / "set-train-000.tar").unlink()
    with pytest.raises(zfcuda.DataError, match=r"set-train-000\.tar/000000\.png: cannot be read \(No such file"):
        train.batch([0])


def test_a_sparse_picture(tmp_path):
    buffer = io.BytesIO()
    info = tarfile.TarInfo("000001.png")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"00000000000\0", b"00000000000\0"
    block[483:495] = b"00000001000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    buffer.write(block)
    path = shard(tmp_path / "train-0.tar", samples(10, 6))
    path.write_bytes(buffer.getvalue() + path.read_bytes())
    with pytest.raises(zfcuda.DataError, match=r"000001\.png: is a link or something else that is no plain file"):
        data.open(tmp_path)
