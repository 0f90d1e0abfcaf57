"""From the word or path that a user gives to a train and a test set."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from ..errors import DataError
from ..pairs import check_pair
from . import cifar10, fashion_mnist, idx, npz, tar_shards
from .dataset import Split
from .files import open_files
from .folders import OnError, Reading, open_class_folders
from .layout import role
from .names import printable
from .packed import is_packed, open_packed
from .tar_shards import open_tar_shards

FASHION_MNIST = "fashion-mnist"
CIFAR10 = "cifar10"

_LARGEST = 4096  # image_size
_CIFAR10_NAMES = ("cifar10*", "cifar-10*")


def open(
    data: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    on_error: OnError = "raise",
    hold_out: float = 0.1,
    seed: int = 0,
    in_memory: bool = True,
) -> Split:
    """The training and test half of a data set; a `HeldOut` where it has no test half.

    data: "fashion-mnist", the subset in the package; "cifar10", wherever it lies in $ZFCUDA_DATA, the current folder
    or ./data, as class folders or in its binary form, packed or not; or the path of

    - a folder of class folders, or of a training and a test half (see `open_class_folders` for what they may be called)
      with class folders in them;
    - a folder of packed images (`pack`, `open_packed`);
    - a folder with the four IDX files of MNIST or a set in its form (Debian's package dataset-fashion-mnist puts
      Fashion-MNIST's into /usr/share/datasets/fashion-mnist), or with the binary files of CIFAR-10;
    - a zip or tar (also gz, xz, bz2) of one of these. Nothing is unpacked to disk;
    - an .npz file with arrays `images` and `labels` (see `zfcuda.data.npz.open_npz` for other names);
    - tar shards in the webdataset convention: a pattern such as "train-{000..099}.tar" or "{train,val}-{000..099}.tar",
      a folder with numbered tars and no folders, or a single one (see `open_tar_shards`).

    image_size, channels, hold_out, seed, in_memory: see `zfcuda.data.folders.Reading`; arrays, packed or not,
    have their own size and split, and all but packed ones are always in memory. on_error: "raise", or "skip" to
    go on without damaged files, which `train.skipped` and `test.skipped` then list, each once.

    ValueError for arguments that are not allowed, FileNotFoundError where there is nothing; `DataError` where what is
    there is no data set, or is damaged.
    """
    if image_size is not None:
        height, width = check_pair("image_size", image_size)
        if min(height, width) < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        if max(height, width) > _LARGEST and height > 1:  # signals may be long: nothing is scaled to their length
            raise ValueError(f"image_size must be at most {_LARGEST}, got {image_size}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if not 0 < hold_out < 1:
        raise ValueError(f"hold_out must be between 0 and 1, got {hold_out}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not str(data):
        raise ValueError("data must not be empty")
    if data == FASHION_MNIST:
        return fashion_mnist.embedded()
    reading = Reading(image_size, channels, on_error, hold_out, seed, in_memory)
    shards = tar_shards.expand(str(data))
    if shards:
        return open_tar_shards(shards, printable(str(data)), reading)
    path = find_cifar10() if data == CIFAR10 else Path(data)
    where = printable(str(path))
    if not path.exists():
        raise FileNotFoundError(
            f"{where}: no such data set; expected {FASHION_MNIST}, {CIFAR10}, a folder of class folders, "
            "a zip or tar of one, a folder of packed images, or tar shards ('train-{000..099}.tar')"
        )
    if is_packed(path):
        return open_packed(path)
    files = open_files(path)
    root = cifar10.binary_root(files)
    if root is not None:
        return cifar10.open_binary(files, root)
    found = idx.find(files)
    if found is not None:
        return idx.open_idx(files, found)
    if path.is_file() and npz.is_npz(files):
        return npz.open_npz(files, where, hold_out, seed)
    shards = tar_shards.find(files, path)
    if shards:
        return open_tar_shards(shards, where, reading)
    if not files.tree.names and path.suffix == ".npz":
        raise DataError(f"{where}: holds no arrays; expected {npz.forms()}")
    if not files.tree.names:
        raise DataError(f"{where}: holds no files; expected class folders with images")
    return open_class_folders(files, where, reading)


def is_there(data: str) -> bool:
    """Whether `open` would find something for this word or path."""
    if data != CIFAR10:
        return data == FASHION_MNIST or any(path.exists() for path in tar_shards.expand(data) or [Path(data)])
    with contextlib.suppress(FileNotFoundError):
        return find_cifar10().exists()
    return False


def would_hold(data: str | Path, directory: Path) -> bool:
    """Whether `open` would take what is written to the directory for images of this data set: it is a folder of class
    folders, and the directory in it, or in one of its halves; beside halves it plays no part."""
    folder, directory = Path(data).resolve(), directory.resolve()
    if data in (FASHION_MNIST, CIFAR10) or not folder.is_dir() or is_packed(folder):
        return False
    if folder != directory and folder not in directory.parents:
        return False
    inside = directory.relative_to(folder).parts[:1]
    others = [one.name for one in folder.iterdir() if one.is_dir() and one.name not in inside]
    halves = [name for name in others if role(name)[0]]
    return bool(others and not halves) or any(role(name)[0] for name in inside)


def stamp(data: str | Path) -> str:
    """A SHA-256 of the names, sizes and times of all files of a data set, by the word or path that `open` takes:
    another one when they have changed. Nothing in them is read."""
    if data == FASHION_MNIST:
        return hashlib.sha256(FASHION_MNIST.encode()).hexdigest()
    path = find_cifar10() if data == CIFAR10 else Path(data)
    names = [path / name for name in sorted(open_files(path).tree.names)] if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in tar_shards.expand(str(data)) or names:
        try:
            known = os.stat(file)
            said = f"{known.st_size} {known.st_mtime_ns}"
        except OSError as error:
            said = str(error.errno)
        found.update(os.fsencode(f"{os.path.relpath(file, path)}\0{said}\0"))
    return found.hexdigest()


def find_cifar10() -> Path:
    """CIFAR-10 on this machine, a folder or an archive; FileNotFoundError that says where it was looked for."""
    places = [Path("."), Path("data")]
    if os.environ.get("ZFCUDA_DATA"):
        places.insert(0, Path(os.environ["ZFCUDA_DATA"]))
    for place in places:
        for pattern in _CIFAR10_NAMES:
            for found in sorted(place.glob(pattern)):
                if found.is_dir() or found.suffix in (".zip", ".tar", ".gz", ".xz", ".bz2", ".tgz", ".txz"):
                    return found
    raise FileNotFoundError(
        f"cifar10: nothing called {' or '.join(_CIFAR10_NAMES)} in {', '.join(str(place) for place in places)}; "
        "set ZFCUDA_DATA to the folder that holds it (class folders, or https://www.cs.toronto.edu/~kriz/"
        "cifar-10-binary.tar.gz, unpacked or not), or pass its path"
    )
