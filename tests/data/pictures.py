"""Small data sets on disk, for the tests of zfcuda.data."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


def png(array: np.ndarray) -> bytes:
    """A picture (H,W) or (H,W,3) as the bytes of a PNG."""
    return encode(Image.fromarray(array), "PNG")


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def solid(colour: tuple[int, int, int], index: int, size: tuple[int, int] = (6, 6)) -> np.ndarray:
    """A picture of one colour that carries its index in its first pixel."""
    picture = np.full((*size, 3), colour, np.uint8)
    picture[0, 0] = index
    return picture


def tree(counts: dict[str, int] | None = None, prefix: str = "") -> dict[str, bytes]:
    """File name -> contents of class folders of 6 x 6 PNGs, `counts` of each colour."""
    counts = counts or dict.fromkeys(COLOURS, 4)
    return {
        f"{prefix}{name}/{i}.png": png(solid(COLOURS[name], i)) for name, count in counts.items() for i in range(count)
    }


def splits(prefix: str = "") -> dict[str, bytes]:
    """Four training and two test pictures of three colours."""
    return tree(prefix=f"{prefix}train/") | tree(dict.fromkeys(COLOURS, 2), f"{prefix}test/")


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
