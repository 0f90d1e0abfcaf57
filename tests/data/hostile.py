"""Files and folders that mean harm, or look like it: how each is made, and what is read of it or said about it."""

import bz2
import functools
import gzip
import io
import lzma
import os
import socket
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# ---- What stands in every set ---------------------------------------------------------------------------------


def _picture(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_ZEROS = 2**26


@functools.cache
def _flushed() -> bytes:
    """64 MiB of zeros as a part of a deflate stream, which may stand there many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(_ZEROS)) + packer.flush(zlib.Z_FULL_FLUSH)


def _png(width: int, height: int, bits: int, colour: int, *chunks: bytes) -> bytes:
    """A black PNG of any size."""
    size = height * (1 + width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8)
    packer = zlib.compressobj(1)
    content = b"".join(packer.compress(bytes(min(_ZEROS, size - start))) for start in range(0, size, _ZEROS))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", content + packer.flush()), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


_GOOD = _picture(Image.new("RGB", (8, 8), (10, 20, 30)))


def _set(root: Path, more: dict[str, bytes] | None = None) -> Path:
    """Two classes of four pictures, and more files."""
    files = {f"{label}/{i}.png": _GOOD for label in "ab" for i in range(4)} | (more or {})
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _with(content: bytes):
    return lambda root: _set(root, {"a/x.png": content})


def _tar(path: Path, *more: tuple[str, bytes, str, bytes], mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as archive:
        members = [(f"{label}/{i}.png", tarfile.REGTYPE, "", _GOOD) for label in "ab" for i in range(4)]
        for name, kind, link, content in (*members, *more):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _pack(compress, parts: list[bytes]) -> bytes:
    packed = {part: compress(part) for part in set(parts)}
    return b"".join(packed[part] for part in parts)


def _file(name: str, content: bytes):
    def make(root: Path) -> Path:
        root.mkdir()
        (root / name).write_bytes(content)
        return root / name

    return make


def _three_gigabytes(compress, name: str, one: bool):
    """A tar of one file of 3 GiB, or of 48 of 64 MiB."""

    def make(root: Path) -> Path:
        zeros = bytes(_ZEROS)
        if one:
            parts = [_header("a/x.png", 48 * _ZEROS), *[zeros] * 48, bytes(1024)]
        else:
            parts = [part for i in range(48) for part in (_header(f"a/{i}.png", _ZEROS), zeros)]
        return _file(name, _pack(compress, parts))(root)

    return make


def _zip(root: Path, entries: list[tuple[str, int, bytes, int, int]]) -> Path:
    """Entries: name, method, packed bytes, the size and the flags that the archive says."""
    root.mkdir()
    body, directory = b"", b""
    for name, method, content, size, flags in entries:
        rest = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 0, 0, len(content), size, len(name), 0)
        central = b"PK\1\2" + struct.pack("<H", 20) + rest + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        directory += central + name.encode()
        body += b"PK\3\4" + rest + name.encode() + content
    count = len(entries)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    (root / "x.zip").write_bytes(body + directory + end)
    return root / "x.zip"


def _deflated(times: int) -> bytes:
    return _flushed() * times + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def fifo(root: Path) -> Path:
    _set(root)
    os.mkfifo(root / "a" / "x.png")
    return root


def _socket(root: Path) -> Path:
    _set(root)
    here = os.getcwd()
    os.chdir(root / "a")  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("x.png")
    os.chdir(here)
    return root


def _link(name: str, target: str):
    def make(root: Path) -> Path:
        (_set(root) / name).symlink_to(target)
        return root

    return make


def _farm(root: Path) -> Path:
    for i in range(30):
        (root / str(i)).mkdir(parents=True)
        for name in "ab":
            (root / str(i) / name).symlink_to(f"../{i + 1}")
    return root


def _sparse(name: str, size: int):
    def make(root: Path) -> Path:
        (_set(root) / name).parent.mkdir(exist_ok=True)
        with open(root / name, "wb") as file:
            file.truncate(size)
        return root

    return make


def _halves(*linked: str):
    def make(root: Path) -> Path:
        _set(root / "all")
        for name in linked:
            (root / name).symlink_to("all")
        return root

    return make


def _flat(root: Path) -> Path:
    _set(root / "x")
    for name, folder in (("train", "a"), ("test", "b")):
        (root / "x" / folder).rename(root / name)
    (root / "x").rmdir()
    return root


def _flat_test(root: Path) -> Path:
    """As ImageNet's validation and test images are unpacked."""
    _set(root / "train")
    _set(root / "val")
    (root / "test").mkdir()
    (root / "test" / "x.png").write_bytes(_GOOD)
    return root


def _idx(images: bytes, packed: bool = True):
    def make(root: Path) -> Path:
        root.mkdir()
        for half in ("train", "t10k"):
            (root / f"{half}-images-idx3-ubyte{'.gz' if packed else ''}").write_bytes(images)
            (root / f"{half}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\1\0")
        return root

    return make


def _tiff(strips: int, big: bool = False) -> bytes:
    """64 pixels wide, a row in each strip, all of them the same 64 bytes."""
    entry, count = ("<HHQQ", "<Q") if big else ("<HHII", "<H")
    start = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    tags = {256: 64, 257: strips, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 0}
    behind = len(start) + struct.calcsize(count) + len(tags) * struct.calcsize(entry) + struct.calcsize(entry[-1])
    arrays = {273: behind, 279: behind + 4 * strips}
    directory = [struct.pack(count, len(tags))]
    directory += [
        struct.pack(entry, tag, 4, strips if tag in arrays else 1, arrays.get(tag, value))
        for tag, value in tags.items()
    ]
    end = bytes(struct.calcsize(entry[-1]))
    return b"".join([start, *directory, end, struct.pack("<I", 8) * strips, struct.pack("<I", 64) * strips])


def _qoi(height: int, width: int, steps: bytes) -> bytes:
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + steps + bytes(7) + b"\1"


_SLOW = r"2048 x 2049 pixels in a form of \w+ that is slow to read: at most 4,194,304"
DAMAGED = "1 of 9 files cannot be read"
_READ = [8, 1]  # of nine pictures one is held back for each class, of four and five
_DEEP = _picture(Image.fromarray(np.array([[-5, 9]], np.int32)), "TIFF")
_LONG = _picture(Image.new("RGB", (30_000, 100)))

CASES = {
    # Folders and what is in them.
    "empty folder": (lambda root: root.mkdir() or root, "holds no files"),
    "litter alone": (lambda root: _only(_made(root), ".DS_Store"), "holds no files"),
    "one class": (lambda root: _set(root / "x") / "a", "has no class folders"),
    "FIFO": (fifo, DAMAGED + ".*x.png: is a FIFO"),
    "socket": (_socket, DAMAGED + ".*x.png: is a socket"),
    "device": (_link("a/x.png", "/dev/zero"), DAMAGED + ".*x.png: is a device"),
    "terminal": (_link("a/x.png", "/dev/ptmx"), DAMAGED + ".*x.png: is a device"),
    "link to nowhere": (_link("a/x.png", "nowhere"), DAMAGED + ".*No such file"),
    "class to nowhere": (_link("c", "nowhere"), "c: is a link that leads nowhere"),
    "link to itself": (_link("a/x.png", "x.png"), DAMAGED + ".*symbolic links"),
    "folder in itself": (_link("a/x", ".."), [6, 2]),
    "links that multiply": (_farm, "by more than 16 ways"),
    "deep": (lambda root: _set(root, {"a/" + "d/" * 900 + "x.png": _GOOD}), [7, 2]),
    "name of any bytes": (lambda root: _set(root, {os.fsdecode(b"a/\xff\n\x1b[31m.png"): _GOOD}), [7, 2]),
    "class of any bytes": (
        lambda root: _set(root, {os.fsdecode(b"\xff\xfe/%d.png" % i): _GOOD for i in (1, 2)}),
        [7, 3],
    ),
    "terabyte": (_sparse("a/x.png", 2**40), DAMAGED + ".*holds 1,099,511,627,776 bytes"),
    "train is test": (_halves("train", "test"), "test: is the same folder as .*train, by a link"),
    "flat halves": (_flat, "train: has no class folders"),
    "flat test, labelled val": (_flat_test, [8, 8]),
    "two trainings": (_halves("train", "Train", "test"), "which of these is which half"),
    # Pictures.
    "nothing": (_with(b""), DAMAGED),
    "text": (_with(b"Hello!"), DAMAGED),
    "noise": (_with(np.random.default_rng(0).bytes(10**6)), DAMAGED),
    "program": (_with(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), DAMAGED),
    "vast PNG": (_with(_png(8, 8, 8, 0).replace(struct.pack(">II", 8, 8), struct.pack(">II", 2**30, 2**30))), DAMAGED),
    "vast JPEG": (_with(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9"), DAMAGED),
    "bomb of grey": (_with(_png(16000, 11186, 8, 0)), DAMAGED + ".*exceeds limit|more than Pillow's"),
    "large grey": (_with(_png(9400, 9400, 8, 0)), [7, 2]),
    "large colours": (_with(_png(9400, 9400, 8, 2)), [7, 2]),
    "large, see-through": (_with(_png(9400, 9400, 8, 6)), [7, 2]),
    "large palette": (_with(_png(9400, 9400, 8, 3, _chunk(b"PLTE", bytes(3)), _chunk(b"tRNS", b"\x80"))), [7, 2]),
    "large deep grey": (_with(_png(9400, 9400, 16, 0)), [7, 2]),
    "deep colours": (_with(_png(5700, 5700, 16, 2)), [7, 2]),
    "large deep colours": (_with(_png(9400, 9400, 16, 2)), DAMAGED + ".*not all are used"),
    "large, turned": (
        _with(_png(9400, 9400, 8, 2, _chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"))),
        [7, 2],
    ),
    "strips": (lambda root: _set(root, {f"{c}/{i}.png": _LONG for c in "ab" for i in range(30)}), [54, 6]),
    "no pixels": (_with(b"P5 0 0 255\n"), DAMAGED),
    "cut short": (_with(_picture(Image.effect_noise((99, 99), 50), "JPEG")[:900]), DAMAGED),
    "bomb of words": (_with(_png(8, 8, 8, 0, _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**26))))), DAMAGED),
    "bomb of a profile": (_with(_png(8, 8, 8, 0, _chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26))))), DAMAGED),
    "below black": (_with(_DEEP), DAMAGED + ".*must lie in 0..65535, got -5 to 9"),
    "TIFF in a circle": (_with(b"II*\0\x08\0\0\0\0\0\x08\0\0\0"), DAMAGED),
    "plain PPM": (_with(b"P3 1500 1500 255\n" + b"0 " * (3 * 1500**2)), [7, 2]),
    "vast plain PPM": (_with(b"P3 2048 2049 255\n" + b"0 " * (3 * 2048 * 2049)), DAMAGED + ".*" + _SLOW),
    "vast plain PGM": (_with(b"P2 2048 2049 4095\n" + b"0 " * (2048 * 2049)), DAMAGED + ".*" + _SLOW),
    "vast plain PBM": (_with(b"P1 5000 5000\n" + b"0" * 5000**2), [7, 2]),
    "plain PPM of comments": (_with(b"P3 9 9 255\n" + b"#\n" * 2**21), DAMAGED + ".*more than 8,192 comments"),
    "PPM behind a comment": (
        _with(b"P6\n#" + b"a" * 2**26 + b"\n9 9 255\n" + bytes(243)),
        DAMAGED + ".*its header has more than 65,536 bytes",
    ),
    "PPM with a comment": (_with(b"P6\n# Made by GIMP\n200 200\n# so\n255\n" + bytes(3 * 200**2)), [7, 2]),
    "vast PBM": (_with(b"P4 5000 5000\n" + b" " * 625 * 5000), [7, 2]),
    "vast 12 bits": (_with(b"P5 2048 2049 4095\n" + bytes(2 * 2048 * 2049)), [7, 2]),
    "vast QOI": (_with(_qoi(2049, 2048, b"\x55" * 2048 * 2049)), DAMAGED + ".*" + _SLOW),
    "vast QOI of one colour": (_with(_qoi(4000, 4000, b"\xfd" * (4000**2 // 62 + 1))), [7, 2]),
    "TIFF of many strips": (_with(_tiff(2**17)), [7, 2]),
    "big TIFF of many strips": (_with(_tiff(2**10, True)), [7, 2]),
    "TIFF of too many strips": (_with(_tiff(2**20)), DAMAGED + ".*in 1,048,576 pieces, more than the 524,288"),
    "big TIFF of too many strips": (_with(_tiff(2**20, True)), DAMAGED + ".*in 1,048,576 pieces"),
    "big TIFF of tags": (
        _with(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40) + bytes(2**20)),
        DAMAGED + ".*a TIFF of 1,099,511,627,776 tags",
    ),
    "TIFF without end": (_with(b"MM\0*" + struct.pack(">I", 2**32 - 1) + bytes(99)), DAMAGED),
    "film": (
        _with(
            _picture(
                Image.new("P", (9, 9)),
                "GIF",
                save_all=True,
                append_images=[Image.new("P", (9, 9), i % 256) for i in range(500)],
            )
        ),
        [7, 2],
    ),
    # Archives.
    "3 GB, gz": (_three_gigabytes(gzip.compress, "x.tar.gz", True), "x.tar.gz: unpacks to more than 100 times"),
    "3 GB, gz, many": (_three_gigabytes(gzip.compress, "x.tgz", False), "x.tgz: unpacks to more than 100 times"),
    "3 GB, xz": (
        _three_gigabytes(lambda data: lzma.compress(data, preset=0), "x.tar.xz", True),
        "unpacks to more than",
    ),
    "3 GB, bz2": (_three_gigabytes(lambda data: bz2.compress(data, 1), "x.tar.bz2", True), "unpacks to more than"),
    "3 GB, zip": (lambda root: _zip(root, [("a/x.png", 8, _deflated(48), 48 * _ZEROS, 0)]), "unpacks to more than"),
    "3 GB, zip, many": (
        lambda root: _zip(root, [(f"a/{i}.png", 8, _deflated(1), _ZEROS, 0) for i in range(48)]),
        "unpacks to more than",
    ),
    "zip that lies": (
        lambda root: _zip(root, [(f"{c}/x.png", 8, _deflated(48), 99, 0) for c in "ab"]),
        "2 of 2 files cannot be read",
    ),
    "bzip2 zip that lies": (
        lambda root: _zip(root, [(f"{c}/x.png", 12, bz2.compress(bytes(_ZEROS), 1) * 48, 99, 0) for c in "ab"]),
        "2 of 2 files cannot be read",
    ),
    "encrypted": (lambda root: _zip(root, [(f"{c}/x.png", 0, _GOOD, len(_GOOD), 1) for c in "ab"]), "is encrypted"),
    "links out": (
        lambda root: _tar(_made(root) / "x.tar", ("a/x.png", tarfile.SYMTYPE, "/etc/passwd", b"")),
        DAMAGED + ".*leaves the archive",
    ),
    "devices": (
        lambda root: _tar(_made(root) / "x.tar", ("a/x.png", tarfile.CHRTYPE, "", b"")),
        DAMAGED + ".*is a device",
    ),
    "archives in an archive": (
        lambda root: _zip(root, [("train.zip", 0, b"PK", 2, 0)]),
        "no class folders but train.zip",
    ),
    "archive in archive": (
        lambda root: _tar(_made(root) / "x.tar", ("a/x.tar", tarfile.REGTYPE, "", bytes(10240))),
        DAMAGED,
    ),
    "many headers": (
        lambda root: _file(
            "x.tar.gz", gzip.compress(b"".join(_header(f"{i % 2}/{i}", 0) for i in range(9_000)) + bytes(1024))
        )(root),
        "1000 of 9000 files cannot be read",
    ),
    "endless header": (
        _file("x.tar", _header("x", 2**33 - 1, tarfile.GNUTYPE_LONGNAME) + bytes(4096)),
        "x.tar: .*header",
    ),
    "no archive": (_file("x.tar.gz", gzip.compress(b"hello")), "it holds no tar"),
    "zeros": (lambda root: _sparse("a/x", 3 * 2**30)(root) / "a/x", "holds no files"),
    "picture": (_file("x.png", _GOOD), "neither a folder nor a zip or tar"),
    "FIFO alone": (lambda root: fifo(root) / "a/x.png", "is a FIFO, not a file"),
    "device alone": (lambda root: Path("/dev/zero"), "is a device, not a file"),
    "NUL": (lambda root: f"{root}\0x", "null|no such"),
    "3 GB, IDX": (
        _idx(_pack(gzip.compress, [b"\0\0\x08\3", *[bytes(_ZEROS)] * 48])),
        "gz: unpacks to more than 100 times",
    ),
    "IDX of 2^96": (_idx(b"\0\0\x08\3" + b"\xff" * 12, packed=False), "which promises"),
    "CIFAR of a terabyte": (_sparse("data_batch_1.bin", 2**40), "data_batch_1.bin: holds 1,099,511,627,776 bytes"),
}


def _made(root: Path) -> Path:
    root.mkdir()
    return root


def _only(root: Path, name: str) -> Path:
    (root / "alone").mkdir()
    (root / "alone" / name).write_bytes(b"x")
    return root / "alone"
