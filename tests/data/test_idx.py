"""Data sets in IDX files: MNIST, what is made like it, and what its classes are called."""

import gzip
import struct

import numpy as np
import pytest

import zfcuda
from zfcuda import data

from . import pictures

DIGITS = tuple("0123456789")


def _idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _set(labels, shape=(28, 28), form="{half}-{kind}-idx{rank}-ubyte", halves=("train", "t10k")):
    """Random images with these labels, seven of ten to train on -> files, images, labels."""
    rng = np.random.default_rng(1)
    labels = np.array(labels, np.uint8)
    images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    cut = len(labels) * 7 // 10
    files = {}
    for half, part in zip(halves, (slice(0, cut), slice(cut, None)), strict=True):
        files[form.format(half=half, kind="images", rank=1 + len(shape))] = _idx(images[part])
        files[form.format(half=half, kind="labels", rank=1)] = _idx(labels[part])
    return files, images, labels


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize(
    ("form", "halves"),
    [
        ("{half}-{kind}-idx{rank}-ubyte", ("train", "t10k")),
        ("deep/er/{half}-{kind}.idx{rank}-ubyte", ("train", "t10k")),
        ("gzip/emnist-digits-{half}-{kind}-idx{rank}-ubyte", ("train", "test")),
    ],
)
def test_digits_are_called_digits(tmp_path, packed, form, halves):
    files, images, labels = _set(np.arange(30) % 10, form=form, halves=halves)
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    for path in (pictures.write(tmp_path / "set", files), pictures.write_zip(tmp_path / "set.zip", files)):
        split = data.open(path)
        assert split.train.classes == split.test.classes == DIGITS
        np.testing.assert_array_equal(split.train.images[..., 0], images[:21])
        np.testing.assert_array_equal(split.test.images[..., 0], images[21:])
        np.testing.assert_array_equal(split.train.labels, labels[:21])
        np.testing.assert_array_equal(split.test.labels, labels[21:])
        assert split.test.identifier(2).endswith("[2]")


def test_fashion_mnist_is_known_by_its_images(tmp_path):
    known = data.open("fashion-mnist").train
    chosen = np.random.default_rng(0).permutation(len(known))[:60]
    for relabelled, expected in ((False, known.classes), (True, ("0", "1"))):
        labels = known.labels[chosen] % 2 if relabelled else known.labels[chosen]
        files, images, _ = _set(labels)
        images[::5] = known.images[chosen, :, :, 0][::5]  # what the package holds of it is a fifth
        for half, part in (("train", slice(0, 42)), ("t10k", slice(42, None))):
            files[f"{half}-images-idx3-ubyte"] = _idx(images[part])
        assert data.open(pictures.write(tmp_path / str(relabelled), files)).train.classes == expected


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 2] * 5, ("0", "1", "2")),
        ([*range(26)] * 2, tuple(map(str, range(26)))),
        ([*range(1, 27)] * 2, tuple(map(str, range(1, 27)))),  # EMNIST's letters
        ([*range(1, 11)] * 2, tuple(map(str, range(1, 11)))),
        ([1, 3, 9] * 4, DIGITS),
    ],
)
def test_other_classes_are_called_by_their_numbers(tmp_path, labels, classes):
    files, _, labels = _set(labels)
    split = data.open(pictures.write(tmp_path, files))
    assert split.train.classes == classes
    assert [classes[label] for label in split.train.labels] == [str(label) for label in labels[: len(split.train)]]


def test_characters_are_in_a_mapping(tmp_path):
    form = "emnist-letters-{half}-{kind}-idx{rank}-ubyte"
    files, _, labels = _set([1, 2, 4] * 4, form=form, halves=("train", "test"))
    mapping = "1 65 97\n2 66 98\n4 68 100\n"
    files["emnist-letters-mapping.txt"] = mapping.encode()
    split = data.open(pictures.write(tmp_path, files))
    assert split.train.classes == ("A/a", "B/b", "D/d")
    assert split.train.labels.tolist() == [{1: 0, 2: 1, 4: 2}[label] for label in labels[:8]]
    for content in (b"1 65\n2 66\n", b"1 65\n2 66\n4 66\n", b"one two", b"1 -5\n", b"\xff", b"", b"1\n2\n4\n"):
        (tmp_path / "emnist-letters-mapping.txt").write_bytes(content)
        with pytest.raises(zfcuda.DataError, match=r"mapping\.txt: must have lines|labels must be in \[1, 2\], got 4"):
            data.open(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_channels(tmp_path, channels):
    files, images, _ = _set([0, 1, 2] * 5, shape=(5, 7, channels))
    split = data.open(pictures.write(tmp_path, files))
    np.testing.assert_array_equal(split.train.images, images[:10])
    assert split.test.image_shape == (5, 7, channels)


TRAIN, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("t10k-labels-idx1-ubyte", lambda content: None, "the file of t10k labels is missing"),
        (LABELS, lambda content: None, "the file of train labels is missing"),
        (TRAIN, lambda content: content[:-1], "which promises 16464"),
        (TRAIN, lambda content: content[:9], "no IDX file of uint8 with 3 dimensions"),
        (TRAIN, lambda content: b"", "no IDX file of uint8 with 3 dimensions"),
        (TRAIN, lambda content: content[:4] + b"\xff" * 12, "which promises 79228162458924105385300197375"),
        (TRAIN, lambda content: _idx(np.zeros((21, 4, 28, 7), np.uint8)), "images must be .* got \\(21, 4, 28, 7\\)"),
        (TRAIN, lambda content: _idx(np.zeros((21, 8, 8), np.uint8)), "t10k-.* holds images of \\(28, 28, 1\\), but"),
        (TRAIN, lambda content: _idx(np.zeros((21, 28, 28), np.float32), 13), "no IDX file"),
        (TRAIN, lambda content: _idx(np.zeros((0, 28, 28), np.uint8)), "21 labels for 0 images"),
        (TRAIN, lambda content: _idx(np.zeros((21, 0, 28), np.uint8)), "labels for 21 images"),
        (LABELS, lambda content: b"\0\0\x0d" + content[3:], "no IDX file of uint8 with 1 dimension"),
        (LABELS, lambda content: _idx(np.zeros(20, np.uint8)), "20 labels for 21 images"),
        (LABELS, lambda content: _idx(np.full(21, 200, np.uint8)), "labels must be in .* got 200"),
        (LABELS, lambda content: _idx(np.zeros((21, 28, 28), np.uint8)), "no IDX file of uint8 with 1 dimension"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_damaged_files(tmp_path, name, damage, message, packed):
    files, *_ = _set(np.arange(30) % 10)
    damaged = damage(files.pop(name))
    if damaged is not None:
        files[name] = damaged
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    with pytest.raises(zfcuda.DataError, match=message) as error:
        data.open(pictures.write(tmp_path, files))
    assert str(error.value).startswith(str(tmp_path))


def test_a_gz_cut_short(tmp_path):
    files, *_ = _set(np.arange(30) % 10)
    files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    files[f"{TRAIN}.gz"] = files[f"{TRAIN}.gz"][:-20]
    with pytest.raises(zfcuda.DataError, match=r"train-images-idx3-ubyte\.gz: damaged or cut short"):
        data.open(pictures.write(tmp_path, files))


def test_several_sets(tmp_path):
    """EMNIST's six in a folder; MNIST as it is on Kaggle, once more in folders of the files' names."""
    both = {}
    for name in ("letters", "digits"):
        both |= _set(np.arange(30) % 10, form=f"emnist-{name}-{{half}}-{{kind}}-idx{{rank}}-ubyte")[0]
    with pytest.raises(zfcuda.DataError, match=r"several data sets in IDX files \(emnist-digits-, emnist-letters-\)"):
        data.open(pictures.write(tmp_path / "emnist", both))
    files = _set(np.arange(30) % 10, form="{half}-{kind}.idx{rank}-ubyte")[0]
    files |= {f"{name.replace('.', '-')}/{name.replace('.', '-')}": content for name, content in files.items()}
    assert len(data.open(pictures.write(tmp_path / "kaggle", files)).train) == 21
