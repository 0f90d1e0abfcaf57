"""A small data set to pack, and changes of what was packed."""

import json

import numpy as np

from zfcuda import data
from zfcuda.data.packed.index import checksum

CLASSES = ("a", "b\N{SNOWMAN}", "c")


def made(count=23, tested=6, shape=(5, 4, 3), seed=0):
    rng = np.random.default_rng(seed)
    halves = []
    for half, n in (("train", count), ("test", tested)):
        images = rng.integers(0, 256, (n, *shape), np.uint8)
        images[:, 0, 0] = np.arange(n)[:, None]  # which tells them apart
        halves.append(data.ArrayDataset(images, (np.arange(n) % 3).astype(np.int32), CLASSES, f"{half} of ten"))
    return data.Split(*halves)


def change_index(folder, change):
    """An index that says something else, with the checksum of what it says."""
    index = json.loads((folder / "packed.json").read_text())
    change(index)
    index["sha256"] = checksum(index)
    (folder / "packed.json").write_text(json.dumps(index))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
