"""Archives, whole or an error: zips, what cannot be read, damage, bombs, names of any bytes."""

import bz2
import gzip
import lzma
import multiprocessing
import os
import pickle
import stat
import tarfile
import zipfile

import numpy as np
import pytest

import zfcuda
from zfcuda import data
from zfcuda.data.files import open_files

from . import pictures
from .archives import PACKED, contents, member, tar_of, unreadable

# ---- Zips ---------------------------------------------------------------------------------------------------


def _zip(path, members: dict[str, bytes], mode: int = 0, **attributes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def _add(path, *arguments, **options):
    extra = _zip(path.with_suffix(".extra"), *arguments, **options)
    with zipfile.ZipFile(path, "a") as archive, zipfile.ZipFile(extra) as added:
        for info in added.infolist():
            archive.writestr(info, added.read(info))
    return path


def test_links_in_a_zip_are_what_they_point_to_and_what_cannot_be_read_is_told(tmp_path):
    path = _zip(tmp_path / "x.zip", {"a/1": b"one"})
    links = {"a/2": "1", "b/3": "../a/2", "c": "a", "a/out": "../../x", "a/absolute": "/x", "a/gone": "nothing"}
    _add(path, {name: target.encode() for name, target in links.items()}, stat.S_IFLNK)
    _add(path, {"a/fifo": b""}, stat.S_IFIFO)
    files = open_files(path)
    reasons = {
        "out": "is a link that leaves the archive",
        "absolute": "is a link that leaves the archive",
        "gone": "is a link to a/nothing, and no file of the archive is there",
        "fifo": "is a FIFO, not a file",
    }
    assert unreadable(files) == {f"{folder}/{name}": reason for folder in "ac" for name, reason in reasons.items()}
    readable = ("a/1", "a/2", "b/3", "c/1", "c/2")
    assert {name: files.read(name) for name in readable} == dict.fromkeys(readable, b"one")
    assert set(files.tree.names) == {*readable, *unreadable(files)}


def test_encrypted_files_in_a_zip(tmp_path):
    path = _zip(tmp_path / "x.zip", {"a": b"secret", "b": b"open"})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + place] |= 1
    path.write_bytes(content)
    files = open_files(path)
    assert unreadable(files) == {"a": "is encrypted; unpack the archive with its password first"}
    assert files.read("b") == b"open"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_a_zip(tmp_path, method):
    content = np.random.default_rng(0).integers(0, 4, 100_000, np.uint8).tobytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a", content)
    assert open_files(tmp_path / "x.zip").read("a") == content


def test_names_in_a_zip(tmp_path):
    """UTF-8 that says so, UTF-8 that does not (macOS), DOS's letters, and bytes of Unix that are neither."""

    def stored(name: str, raw: bytes, system: int) -> bytes:
        path = _zip(tmp_path / "one.zip", {name.ljust(len(raw), "x"): b""}, create_system=system)
        return path.read_bytes().replace(name.ljust(len(raw), "x").encode(), raw)

    for raw, system, expected in (
        ("café".encode(), 3, "café"),
        (b"caf\x82", 0, "café"),
        (b"caf\xe9", 3, "caf\N{REPLACEMENT CHARACTER}"),
        (b"a\\b", 0, "a/b"),
        (b"a\\b", 3, "a\\b"),
    ):
        (tmp_path / "x.zip").write_bytes(stored("x", raw, system))
        files = open_files(tmp_path / "x.zip")
        assert files.path(files.tree.names[0]) == f"{tmp_path}/x.zip/{expected}"
    files = open_files(_zip(tmp_path / "y.zip", {"é/x": b"1"}))
    assert files.tree.names == ["é/x"]


# ---- Damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_tar_is_whole_or_an_error(tmp_path, compress):
    """Cut anywhere, also between two files; a damaged header in the middle; another archive behind the end."""
    path = tar_of(tmp_path / "x.tar", [member(str(i), bytes([i]) * 700) for i in range(4)], format=tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    step = 512 + 1024  # of a header and its file
    damaged = bytearray(whole)
    damaged[2 * step + 150] ^= 1
    for content in (*(whole[:cut] for cut in range(256, 4 * step + 1, 256)), bytes(damaged), whole + whole):
        path.write_bytes(compress(content))
        with pytest.raises(zfcuda.DataError, match=r"x\.tar: "):
            open_files(path)
    for content in (whole, whole[: 4 * step + 512], whole + b"what some programs leave in the last block"):
        path.write_bytes(compress(content))
        assert len(contents(open_files(path))) == 4
    if compress is not bytes:
        packed = compress(whole)
        for cut in range(len(packed) // 2, len(packed), 7):
            path.write_bytes(packed[:cut])
            with pytest.raises(zfcuda.DataError, match=r"x\.tar: "):
                open_files(path)


def test_headers_that_lead_nowhere(tmp_path):
    """Sizes that are negative, vast, or those of a header alone."""
    base = member("a", b"x")[0]
    sizes = (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0")
    for size in sizes:
        for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            base.type = kind
            header = bytearray(base.tobuf(tarfile.GNU_FORMAT))
            header[124:136] = size
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            for compress in (bytes, gzip.compress):
                (tmp_path / "x.tar").write_bytes(compress(bytes(header) + bytes(10240)))
                with pytest.raises(zfcuda.DataError, match=r"x\.tar: "):
                    open_files(tmp_path / "x.tar")


def test_other_archives_and_files_are_called_what_they_are(tmp_path):
    contents = {
        b"7z\xbc\xaf\x27\x1c": "a 7z archive, which cannot be read",
        b"Rar!\x1a\x07": "a RAR archive",
        b"\x28\xb5\x2f\xfd": "a Zstandard archive",
        gzip.compress(b"text"): "it holds no tar",
        b"": "neither a folder nor a zip or tar archive",
        b"PK\x03\x04 and no more": "damaged or cut short",
    }
    for content, message in contents.items():
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(zfcuda.DataError, match=f"x: .*{message}"):
            open_files(tmp_path / "x")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(zfcuda.DataError, match="fifo: is a FIFO, not a file"):
        data.open(tmp_path / "fifo")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = _zip(tmp_path / "inner.zip", {"inner/1": b"1"}).read_bytes()
    path = tar_of(tmp_path / "x.tar", [member("a/1", b"1"), member("a/2.zip", inner)])
    assert open_files(path).tree.names == ["a/1", "a/2.zip"]


# ---- Bombs --------------------------------------------------------------------------------------------------


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("zfcuda.data.limits._ANY_RATIO", 2**22)
    zeros = bytes(2**20)
    (tmp_path / "one.tar.gz").write_bytes(gzip.compress(_sized("train/a/1.png", 3 * 2**30) + 8 * zeros))
    many = [member(f"train/a/{i}.png", zeros) for i in range(8)]
    for packed in PACKED[1:]:
        tar_of(tmp_path / f"many.tar.{packed}", many, packed)
    (tmp_path / "end.tar.gz").write_bytes(gzip.compress(bytes(1024) + 8 * zeros))
    _zip(tmp_path / "x.zip", {f"train/a/{i}.png": zeros for i in range(8)}, compress_type=zipfile.ZIP_DEFLATED)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(zfcuda.DataError, match=f"{path.name}: unpacks to more than 100 times its size"):
            open_files(path)
    parts = {f"{half}-{kind}-ubyte.gz": b"" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}
    parts["train-images-idx3-ubyte.gz"] = gzip.compress(b"\0\0\x08\3" + 5 * zeros)
    with pytest.raises(zfcuda.DataError, match=r"train-images-idx3-ubyte\.gz: unpacks to more than 100 times"):
        data.open(pictures.write(tmp_path / "idx", parts))


def test_folders_in_folders_without_end_are_refused(tmp_path):
    name = "a/" * 20_000 + "x.png"
    for path in (_zip(tmp_path / "x.zip", {name: b""}), tar_of(tmp_path / "x.tar.gz", [member(name)], "gz")):
        with pytest.raises(zfcuda.DataError, match="the names of its folders have more than 33,554,432 characters"):
            open_files(path)


def _sized(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


# ---- Folders ------------------------------------------------------------------------------------------------


def test_what_is_no_file_in_a_folder_is_told_and_never_waited_for(tmp_path):
    import socket

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    assert unreadable(open_files(tmp_path)) == {
        "fifo": "is a FIFO, not a file",
        "gone": "cannot be read (No such file or directory)",
        "itself": "cannot be read (Too many levels of symbolic links)",
        "device": "is a device, not a file",
        "socket": "is a socket, not a file",
    }


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, monkeypatch):
    pictures.write(tmp_path, pictures.splits())
    scan = os.scandir

    def denied(folder):
        if str(folder).endswith("red"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(zfcuda.DataError, match=r"red: cannot be looked into \(Permission denied\)"):
        data.open(tmp_path)


def test_hidden_files_play_no_part(tmp_path):
    litter = [
        ".DS_Store",
        "._0.png",
        "Thumbs.db",
        "thumbs.db",
        "desktop.ini",
        "__MACOSX/x",
        ".x.tmp",
        "@eaDir/x",
        "Icon\r",
    ]
    files = pictures.splits() | {f"train/red/{name}": b"litter" for name in litter} | {"__MACOSX/train/x": b"litter"}
    for path in (pictures.write(tmp_path / "set", files), pictures.write_zip(tmp_path / "x.zip", files)):
        split = data.open(path)
        assert len(split.train) == 12
        assert split.train.skipped == ()


# ---- Other processes ----------------------------------------------------------------------------------------


def _numbers(dataset) -> list[int]:
    return dataset.batch(range(len(dataset)))[0][:, 0, 0, 0].tolist()


def _in_child(connection, dataset):
    connection.send(_numbers(dataset))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gz"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_sets_are_read_in_other_processes(tmp_path, kind, start):
    """Forks share the place in an open file and have none of their parent's threads."""
    files = pictures.splits()
    if kind == "folder":
        path = pictures.write(tmp_path / "set", files)
    elif kind == "zip":
        path = pictures.write_zip(tmp_path / "x.zip", files)
    else:
        path = pictures.write_tar(tmp_path / "x.tar", files, kind.removeprefix("tar"))
    train = data.open(path, in_memory=False).train
    expected = _numbers(train)  # starts the threads
    context = multiprocessing.get_context(start)
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(theirs, train))
    child.start()
    try:
        for _ in range(50):
            assert _numbers(train) == expected
        assert ours.poll(60)
        assert ours.recv() == expected
    finally:
        child.kill()
        child.join()


def test_errors_go_to_other_processes(tmp_path):
    with pytest.raises(data.DamagedFiles) as error:
        data.open(pictures.write(tmp_path, pictures.splits() | {"train/red/x": b""}))
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value)
    assert str(again.advising("--skip-damaged")) == str(again).replace('on_error="skip"', "--skip-damaged")
