"""Archives, whole or an error: links, what cannot be read, damage, bombs, names of any bytes."""

import bz2
import gzip
import io
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

PACKED = ["", "gz", "xz", "bz2"]


def _file(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info, content


def _tar(path, members, packed="", **options):
    with tarfile.open(path, f"w:{packed}", **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def _symlink(name, target):
    return _file(name, kind=tarfile.SYMTYPE, link=target)


def _hardlink(name, target):
    return _file(name, kind=tarfile.LNKTYPE, link=target)


def _all(files) -> dict[str, bytes]:
    return {name: files.read(name) for name in files.tree.names}


def _unreadable(files) -> dict[str, str]:
    """The reasons of all that cannot be read, by name."""
    found = {}
    for name in files.tree.names:
        try:
            files.read(name)
        except zfcuda.DataError as error:
            found[name] = str(error).removeprefix(f"{files.path(name)}: ")
    return found


# ---- Links in a tar -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACKED)
def test_links_are_what_they_point_to(tmp_path, packed):
    members = [
        _file("./a/1", b"one"),
        _hardlink("./a/2", "./a/1"),
        _symlink("./a/3", "1"),
        _symlink("b/4", "../a/./2"),
        _symlink("b/5", "4"),
        _symlink("c", "a"),
        _symlink("b/.hidden", "4"),
        _symlink("b/6", ".hidden"),
        _symlink("d", "c"),
        _file(".store/7", b"seven"),
        _symlink("b/7", "../.store/7"),
        _symlink("b/8", "../c/../a/1"),
        _hardlink("e/9", "b/5"),  # of a link: it means what it says where it now is
        _file("e/4", b"four"),
    ]
    files = open_files(_tar(tmp_path / "x.tar", members, packed))
    one = {"a/1", "a/2", "a/3", "c/1", "c/2", "c/3", "d/1", "d/2", "d/3", "b/4", "b/5", "b/6", "b/8"}
    assert _all(files) == dict.fromkeys(one, b"one") | {"b/7": b"seven", "e/9": b"four", "e/4": b"four"}
    assert files.tree.folders == ["a", "b", "c", "d", "e"]
    assert files.real("d") == files.real("a") != files.real("b")


@pytest.mark.parametrize("packed", ["", "gz"])
def test_pictures_that_are_links_to_others_are_counted_and_read(tmp_path, packed):
    members = [_file(name, content) for name, content in pictures.splits().items()]
    members += [_hardlink("train/red/9.png", "train/red/0.png"), _symlink("train/blue/9.png", "0.png")]
    members += [_symlink("test/green", "../train/red")]  # replaces the folder, as unpacking would not
    split = data.open(_tar(tmp_path / "x.tar", members[:-1], packed))
    assert np.bincount(split.train.labels).tolist() == [5, 4, 5]
    images, _ = split.train.batch(range(14))
    np.testing.assert_array_equal(images[4], pictures.solid(pictures.COLOURS["blue"], 0))
    np.testing.assert_array_equal(images[13], pictures.solid(pictures.COLOURS["red"], 0))
    with pytest.raises(zfcuda.DataError, match="test/green: stands in the archive both as a file and as a folder"):
        data.open(_tar(tmp_path / "y.tar", members, packed))


@pytest.mark.parametrize("packed", PACKED)
def test_what_a_tar_holds_that_cannot_be_read_is_told(tmp_path, packed):
    members = [
        _file("x/ok", b"1"),
        _symlink("x/absolute", "/etc/passwd"),
        _symlink("x/above", "../../etc/passwd"),
        _symlink("x/dangling", "nothing"),
        _symlink("x/itself", "itself"),
        _symlink("x/ping", "pong"),
        _symlink("x/pong", "ping"),
        _symlink("x/to folder", "../x"),
        _hardlink("x/hard", "x/nothing"),
        _hardlink("x/hard absolute", "/etc/passwd"),
        _file("x/fifo", kind=tarfile.FIFOTYPE),
        _file("x/device", kind=tarfile.CHRTYPE),
        _file("x/disk", kind=tarfile.BLKTYPE),
        _file("x/odd", kind=b"Q"),
    ]
    files = open_files(_tar(tmp_path / "x.tar", members, packed))
    assert _unreadable(files) == {
        "x/absolute": "is a link that leaves the archive",
        "x/above": "is a link that leaves the archive",
        "x/dangling": "is a link to x/nothing, and no file of the archive is there",
        "x/itself": "is a link that leads back to itself",
        "x/ping": "is a link that leads back to itself",
        "x/pong": "is a link that leads back to itself",
        "x/hard": "is a hard link to x/nothing, and no file of the archive is there",
        "x/hard absolute": "is a hard link to /etc/passwd, and no file of the archive is there",
        "x/fifo": "is a FIFO, not a file",
        "x/device": "is a device, not a file",
        "x/disk": "is a device, not a file",
        "x/odd": "is of the kind b'Q', not a file",
    }
    assert files.read("x/ok") == b"1"


def test_names_that_climb(tmp_path):
    members = [_file(name, name.encode()) for name in ("/a/1", "../b/2", "a/../b/3", "./c//4", "a/../../../5")]
    files = open_files(_tar(tmp_path / "x.tar", members))
    assert _all(files) == {"a/1": b"/a/1", "b/2": b"../b/2", "b/3": b"a/../b/3", "c/4": b"./c//4", "5": b"a/../../../5"}


def test_of_two_files_with_one_name_the_later_counts_and_a_hard_link_keeps_the_earlier(tmp_path):
    members = [_file("a", b"old"), _hardlink("b", "a"), _file("a", b"new"), _hardlink("c", "a"), _symlink("d", "a")]
    for packed in ("", "gz"):
        files = open_files(_tar(tmp_path / "x.tar", members, packed))
        assert _all(files) == {"a": b"new", "b": b"old", "c": b"new", "d": b"new"}


def test_links_that_multiply(tmp_path):
    """Forty folders with two links each to the next: a thousand billion ways."""
    members = [_symlink(f"{i}/{name}", f"../{i + 1}") for i in range(40) for name in "ab"]
    with pytest.raises(zfcuda.DataError, match="links lead to this folder by more than 16 ways"):
        open_files(_tar(tmp_path / "x.tar", [*members, _file("40/x", b"")]))
    for i in range(40):
        (tmp_path / "set" / str(i)).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "set" / str(i) / name).symlink_to(f"../{i + 1}")
    with pytest.raises(zfcuda.DataError, match="links lead to this folder by more than 16 ways"):
        open_files(tmp_path / "set")


# ---- Sparse files -------------------------------------------------------------------------------------------


def _sparse(name: str, size: int, pieces: list[tuple[int, bytes]], kind: str) -> bytes:
    """A member of a tar as GNU tar writes it, in its old form or as a PAX header of version 1.0."""
    stored = b"".join(content for _, content in pieces)
    if kind == "old":
        header = bytearray(_file(name, stored, tarfile.GNUTYPE_SPARSE)[0].tobuf(tarfile.GNU_FORMAT))
        for i, (offset, content) in enumerate(pieces):
            header[386 + 24 * i : 410 + 24 * i] = b"%011o\0%011o\0" % (offset, len(content))
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = stored
    else:
        info = _file(name)[0]
        table = f"{len(pieces)}\n" + "".join(f"{offset}\n{len(content)}\n" for offset, content in pieces)
        data = table.encode().ljust(512, b"\0") + stored
        info.size = len(data)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
        header = info.tobuf(tarfile.PAX_FORMAT)
    return bytes(header) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize("kind", ["old", "pax"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_sparse_files_have_their_zeros(tmp_path, kind, compress):
    pieces = [(0, b"begin"), (1000, b"middle"), (2995, b"")]
    members = _sparse("a", 3000, pieces, kind) + _sparse("b", 2**32, [(0, b"x")], kind)
    members += _sparse("c", 10, [(8, b"beyond")], kind) + _file("d", b"")[0].tobuf()
    (tmp_path / "x.tar").write_bytes(compress(members + bytes(1024)))
    files = open_files(tmp_path / "x.tar")
    assert files.read("a") == b"begin" + bytes(995) + b"middle" + bytes(1994)
    assert files.read("d") == b""
    assert _unreadable(files) == {
        "b": "holds 4,294,967,296 bytes, more than the 268,435,456 that can be read",
        "c": "is a sparse file with a damaged map",
    }


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
    assert _unreadable(files) == {f"{folder}/{name}": reason for folder in "ac" for name, reason in reasons.items()}
    readable = ("a/1", "a/2", "b/3", "c/1", "c/2")
    assert {name: files.read(name) for name in readable} == dict.fromkeys(readable, b"one")
    assert set(files.tree.names) == {*readable, *_unreadable(files)}


def test_encrypted_files_in_a_zip(tmp_path):
    path = _zip(tmp_path / "x.zip", {"a": b"secret", "b": b"open"})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + place] |= 1
    path.write_bytes(content)
    files = open_files(path)
    assert _unreadable(files) == {"a": "is encrypted; unpack the archive with its password first"}
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
    path = _tar(tmp_path / "x.tar", [_file(str(i), bytes([i]) * 700) for i in range(4)], format=tarfile.USTAR_FORMAT)
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
        assert len(_all(open_files(path))) == 4
    if compress is not bytes:
        packed = compress(whole)
        for cut in range(len(packed) // 2, len(packed), 7):
            path.write_bytes(packed[:cut])
            with pytest.raises(zfcuda.DataError, match=r"x\.tar: "):
                open_files(path)


def test_headers_that_lead_nowhere(tmp_path):
    """Sizes that are negative, vast, or those of a header alone."""
    base = _file("a", b"x")[0]
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
    path = _tar(tmp_path / "x.tar", [_file("a/1", b"1"), _file("a/2.zip", inner)])
    assert open_files(path).tree.names == ["a/1", "a/2.zip"]


# ---- Bombs --------------------------------------------------------------------------------------------------


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("zfcuda.data.limits._ANY_RATIO", 2**22)
    zeros = bytes(2**20)
    (tmp_path / "one.tar.gz").write_bytes(gzip.compress(_sized("train/a/1.png", 3 * 2**30) + 8 * zeros))
    many = [_file(f"train/a/{i}.png", zeros) for i in range(8)]
    for packed in PACKED[1:]:
        _tar(tmp_path / f"many.tar.{packed}", many, packed)
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
    for path in (_zip(tmp_path / "x.zip", {name: b""}), _tar(tmp_path / "x.tar.gz", [_file(name)], "gz")):
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
    assert _unreadable(open_files(tmp_path)) == {
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
