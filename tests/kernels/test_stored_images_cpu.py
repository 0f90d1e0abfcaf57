"""Crops of images in files: csrc/cpu/image.cpp, by way of zfcuda/data/stored.py."""

import math
import resource

import numpy as np
import pytest

from zfcuda import DataError, backends, ops
from zfcuda.data import stored
from zfcuda.data.stored import StoredImages


def in_files(folder, images, rng, files=3):
    """Images spread over files, each with something before it."""
    numbers = rng.integers(0, files, len(images))
    contents, offsets = [b""] * files, []
    for image, number in zip(images, numbers, strict=True):
        contents[number] += rng.bytes(int(rng.integers(1, 100)))
        offsets.append(len(contents[number]))
        contents[number] += image.tobytes()
    paths = [folder / f"{number}.bin" for number in range(files)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return StoredImages(images.shape, paths, numbers, np.array(offsets))


def check(folder, rng, shape, size, corners, mean=True):
    n, h, w, c = shape
    images = rng.integers(0, 256, shape, np.uint8)
    mean = (255 * rng.random((h, w, c))).astype(np.float32) if mean else None
    flips = rng.integers(0, 2, n).astype(np.uint8)
    arguments = mean, np.array(corners, np.int32), flips
    lying = in_files(folder, images, rng)
    np.testing.assert_array_equal(lying.crops(*arguments, size=size), ops.crop_images(images, *arguments, size=size))
    read = np.full(shape, 99, np.uint8)
    lying.read(read)
    np.testing.assert_array_equal(read, images)


@pytest.mark.parametrize("number", range(60))
def test_random_crops(tmp_path, number):
    rng = np.random.default_rng(number)
    shape = tuple(int(side) for side in rng.integers(1, (9, 24, 24, 6)))
    size = tuple(int(side) for side in rng.integers(1, 26, 2))
    check(tmp_path, rng, shape, size, rng.integers(-26, 26, (shape[0], 2)), mean=number % 3 > 0)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((350, 60, 70, 3), (64, 64)),  # large results, past the caches
        ((3, 200, 1024, 3), (150, 333)),  # read in three parts
        ((2, 5, 70_000, 3), (4, 9)),  # row by row
        ((1, 256, 256, 3), (224, 224)),
    ],
)
def test_crops_in_parts(tmp_path, shape, size):
    rng = np.random.default_rng(size[0])
    check(tmp_path, rng, shape, size, rng.integers(-3, 12, (shape[0], 2)))


def test_crops_at_each_border(tmp_path):
    """Inside, at it, across it and beyond it, as far as a corner can be."""
    places = [-(2**31), -9, -8, -7, -1, 0, 1, 4, 5, 11, 12, 13, 2**31 - 1]
    corners = [(top, left) for top in places for left in places]
    check(tmp_path, np.random.default_rng(0), (len(corners), 12, 13, 3), (8, 9), corners)


def crops(lying, **changes):
    n, h, w, c = lying.shape
    arguments = {
        "mean": np.zeros((h, w, c), np.float32),
        "corners": np.zeros((n, 2), np.int32),
        "flips": np.zeros(n, np.uint8),
        "size": (2, 3),
    }
    return lying.crops(**(arguments | changes))


IMAGES = (np.arange(6 * 4 * 5 * 3) % 251).astype(np.uint8).reshape(6, 4, 5, 3)


@pytest.mark.parametrize("most", [0, 256], ids=["read before", "read as they are cropped"])
def test_files_that_cannot_be_read(tmp_path, monkeypatch, most):
    monkeypatch.setattr(stored, "_most_open", lambda: most)
    lying = in_files(tmp_path, IMAGES, np.random.default_rng(1))
    expected = crops(lying)
    last = max(range(6), key=lambda image: (lying.numbers[image], lying.offsets[image]))
    number = lying.numbers[last]
    path, content = lying.paths[number], lying.paths[number].read_bytes()
    path.write_bytes(content[: lying.offsets[last] + 5])
    with pytest.raises(DataError, match=rf"{number}\.bin: is cut short"):
        crops(lying)
    path.unlink()
    with pytest.raises(DataError, match=rf"{number}\.bin: cannot be read \(No such file"):
        crops(lying)
    path.mkdir()
    with pytest.raises(DataError, match=rf"{number}\.bin: cannot be read \(Is a directory"):
        crops(lying)
    path.rmdir()
    path.write_bytes(content)
    lying.offsets[last] = -8
    with pytest.raises(DataError, match=rf"{number}\.bin: cannot be read \(Invalid argument"):
        crops(lying)
    lying.offsets[last] = len(content) - math.prod(IMAGES.shape[1:])
    np.testing.assert_array_equal(crops(lying), expected)


def test_only_what_a_crop_needs_is_read(tmp_path):
    (tmp_path / "a").write_bytes(IMAGES[0, :2].tobytes())
    lying = StoredImages((1, 4, 5, 3), [tmp_path / "a"], np.array([0]), np.array([0]))
    np.testing.assert_array_equal(crops(lying)[0], IMAGES[0, :2, :3])
    np.testing.assert_array_equal(crops(lying, corners=np.array([[4, 0]], np.int32)), 0)
    with pytest.raises(DataError, match="a: is cut short"):
        crops(lying, corners=np.array([[1, 0]], np.int32))


def test_other_backends_read_first(tmp_path):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    lying = in_files(tmp_path, IMAGES, np.random.default_rng(2))
    expected = crops(lying)
    with backends.use("emulated"):
        np.testing.assert_array_equal(crops(lying), expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mean": np.zeros((4, 4, 3), np.float32)}, ValueError, "mean must have shape"),
        ({"corners": np.zeros((5, 2), np.int32)}, ValueError, "corners must have shape"),
        ({"corners": np.zeros((6, 2))}, TypeError, "corners must be int32"),
        ({"flips": np.zeros(7, np.uint8)}, ValueError, "flips must have shape"),
        ({"size": (0, 2)}, ValueError, "crop height must be at least 1"),
    ],
)
def test_crops_that_do_not_fit(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        crops(in_files(tmp_path, IMAGES, np.random.default_rng(3)), **changes)


def test_more_files_than_a_process_may_open(tmp_path):
    """They are read one after the other then."""
    images = np.repeat(IMAGES, 20, axis=0)
    paths = [tmp_path / f"{number}.bin" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image.tobytes())
    here = np.arange(len(images))
    lying = stored.StoredImages(images.shape, paths, here, np.zeros_like(here))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        found = crops(lying)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    np.testing.assert_array_equal(found, images[:, :2, :3])
