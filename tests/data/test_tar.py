"""Links and sparse files in a tar: what they mean, or why they cannot be read."""

import gzip
import tarfile

import numpy as np
import pytest

import zfcuda
from zfcuda import data
from zfcuda.data.files import open_files

from . import pictures
from .archives import PACKED, contents, hardlink, member, symlink, tar_of, unreadable

# ---- Links in a tar -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACKED)
def test_links_are_what_they_point_to(tmp_path, packed):
    members = [
        member("./a/1", b"one"),
        hardlink("./a/2", "./a/1"),
        symlink("./a/3", "1"),
        symlink("b/4", "../a/./2"),
        symlink("b/5", "4"),
        symlink("c", "a"),
        symlink("b/.hidden", "4"),
        symlink("b/6", ".hidden"),
        symlink("d", "c"),
        member(".store/7", b"seven"),
        symlink("b/7", "../.store/7"),
        symlink("b/8", "../c/../a/1"),
        hardlink("e/9", "b/5"),  # of a link: it means what it says where it now is
        member("e/4", b"four"),
    ]
    files = open_files(tar_of(tmp_path / "x.tar", members, packed))
    one = {"a/1", "a/2", "a/3", "c/1", "c/2", "c/3", "d/1", "d/2", "d/3", "b/4", "b/5", "b/6", "b/8"}
    assert contents(files) == dict.fromkeys(one, b"one") | {"b/7": b"seven", "e/9": b"four", "e/4": b"four"}
    assert files.tree.folders == ["a", "b", "c", "d", "e"]
    assert files.real("d") == files.real("a") != files.real("b")


@pytest.mark.parametrize("packed", ["", "gz"])
def test_pictures_that_are_links_to_others_are_counted_and_read(tmp_path, packed):
    members = [member(name, content) for name, content in pictures.splits().items()]
    members += [hardlink("train/red/9.png", "train/red/0.png"), symlink("train/blue/9.png", "0.png")]
    members += [symlink("test/green", "../train/red")]  # replaces the folder, as unpacking would not
    split = data.open(tar_of(tmp_path / "x.tar", members[:-1], packed))
    assert np.bincount(split.train.labels).tolist() == [5, 4, 5]
    images, _ = split.train.batch(range(14))
    np.testing.assert_array_equal(images[4], pictures.solid(pictures.COLOURS["blue"], 0))
    np.testing.assert_array_equal(images[13], pictures.solid(pictures.COLOURS["red"], 0))
    with pytest.raises(zfcuda.DataError, match="test/green: stands in the archive both as a file and as a folder"):
        data.open(tar_of(tmp_path / "y.tar", members, packed))


@pytest.mark.parametrize("packed", PACKED)
def test_what_a_tar_holds_that_cannot_be_read_is_told(tmp_path, packed):
    members = [
        member("x/ok", b"1"),
        symlink("x/absolute", "/etc/passwd"),
        symlink("x/above", "../../etc/passwd"),
        symlink("x/dangling", "nothing"),
        symlink("x/itself", "itself"),
        symlink("x/ping", "pong"),
        symlink("x/pong", "ping"),
        symlink("x/to folder", "../x"),
        hardlink("x/hard", "x/nothing"),
        hardlink("x/hard absolute", "/etc/passwd"),
        member("x/fifo", kind=tarfile.FIFOTYPE),
        member("x/device", kind=tarfile.CHRTYPE),
        member("x/disk", kind=tarfile.BLKTYPE),
        member("x/odd", kind=b"Q"),
    ]
    files = open_files(tar_of(tmp_path / "x.tar", members, packed))
    assert unreadable(files) == {
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
    members = [member(name, name.encode()) for name in ("/a/1", "../b/2", "a/../b/3", "./c//4", "a/../../../5")]
    files = open_files(tar_of(tmp_path / "x.tar", members))
    assert contents(files) == {
        "a/1": b"/a/1",
        "b/2": b"../b/2",
        "b/3": b"a/../b/3",
        "c/4": b"./c//4",
        "5": b"a/../../../5",
    }


def test_of_two_files_with_one_name_the_later_counts_and_a_hard_link_keeps_the_earlier(tmp_path):
    members = [member("a", b"old"), hardlink("b", "a"), member("a", b"new"), hardlink("c", "a"), symlink("d", "a")]
    for packed in ("", "gz"):
        files = open_files(tar_of(tmp_path / "x.tar", members, packed))
        assert contents(files) == {"a": b"new", "b": b"old", "c": b"new", "d": b"new"}


def test_links_that_multiply(tmp_path):
    """Forty folders with two links each to the next: a thousand billion ways."""
    members = [symlink(f"{i}/{name}", f"../{i + 1}") for i in range(40) for name in "ab"]
    with pytest.raises(zfcuda.DataError, match="links lead to this folder by more than 16 ways"):
        open_files(tar_of(tmp_path / "x.tar", [*members, member("40/x", b"")]))
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
        header = bytearray(member(name, stored, tarfile.GNUTYPE_SPARSE)[0].tobuf(tarfile.GNU_FORMAT))
        for i, (offset, content) in enumerate(pieces):
            header[386 + 24 * i : 410 + 24 * i] = b"%011o\0%011o\0" % (offset, len(content))
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = stored
    else:
        info = member(name)[0]
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
    members += _sparse("c", 10, [(8, b"beyond")], kind) + member("d", b"")[0].tobuf()
    (tmp_path / "x.tar").write_bytes(compress(members + bytes(1024)))
    files = open_files(tmp_path / "x.tar")
    assert files.read("a") == b"begin" + bytes(995) + b"middle" + bytes(1994)
    assert files.read("d") == b""
    assert unreadable(files) == {
        "b": "holds 4,294,967,296 bytes, more than the 268,435,456 that can be read",
        "c": "is a sparse file with a damaged map",
    }
