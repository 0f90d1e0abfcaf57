"""Tars of any members, and what is read of an archive."""

import io
import tarfile

import zfcuda

PACKED = ["", "gz", "xz", "bz2"]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info, content


def tar_of(path, members, packed="", **options):
    with tarfile.open(path, f"w:{packed}", **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def symlink(name, target):
    return member(name, kind=tarfile.SYMTYPE, link=target)


def hardlink(name, target):
    return member(name, kind=tarfile.LNKTYPE, link=target)


def contents(files) -> dict[str, bytes]:
    return {name: files.read(name) for name in files.tree.names}


def unreadable(files) -> dict[str, str]:
    """The reasons of all that cannot be read, by name."""
    found = {}
    for name in files.tree.names:
        try:
            files.read(name)
        except zfcuda.DataError as error:
            found[name] = str(error).removeprefix(f"{files.path(name)}: ")
    return found
