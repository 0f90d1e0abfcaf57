"""Data sets in .npz files."""

import io
import zipfile

import numpy as np
import pytest

import zfcuda
from zfcuda import data

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4, 3), np.uint8)
LABELS = np.arange(12) % 3


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels(tmp_path, save):
    save(tmp_path / "set.npz", images=IMAGES, labels=LABELS, classes=np.array(["a", "b\N{SNOWMAN}", "c"]))
    split = data.open(tmp_path / "set.npz", hold_out=0.25)
    assert split.train.classes == ("a", "b\N{SNOWMAN}", "c")
    assert np.bincount(split.train.labels).tolist() == [3, 3, 3]
    found = {}
    for half in split:
        images, labels = half.batch(range(len(half)))
        assert labels.dtype == np.int32
        for i, image in enumerate(images):
            found[half.identifier(i)] = image
    assert set(found) == {f"{tmp_path}/set.npz/images[{i}]" for i in range(12)}
    for i in range(12):
        np.testing.assert_array_equal(found[f"{tmp_path}/set.npz/images[{i}]"], IMAGES[i])


@pytest.mark.parametrize("names", ["{half}_images {half}_labels", "x_{half} y_{half}"])
def test_two_halves_of_grey_images(tmp_path, names):
    arrays = {}
    for half, part in (("train", slice(0, 8)), ("test", slice(8, 12))):
        images, labels = names.format(half=half).split()
        arrays |= {images: np.asfortranarray(IMAGES[part, ..., 0]), labels: LABELS[part, None].astype(np.uint8)}
    split = data.open(saved(tmp_path / "set.npz", **arrays, val_images=IMAGES))
    assert split.train.classes == split.test.classes == ("0", "1", "2")
    np.testing.assert_array_equal(split.train.batch(range(8))[0], IMAGES[:8, ..., :1])
    np.testing.assert_array_equal(split.test.batch(range(4))[0], IMAGES[8:, ..., :1])
    assert split.test.labels.tolist() == LABELS[8:].tolist()
    assert split.test.identifier(1) == f"{tmp_path}/set.npz/{names.format(half='test').split()[0]}[1]"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, r"set\.npz: holds images; expected images, labels; train_images, train_labels, test_imag"),
        ({"images": IMAGES, "labels": LABELS[:5]}, r"labels: must be whole numbers \(12,\), got int64 \(5,\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"labels: must be whole numbers \(12,\), got float64"),
        ({"images": IMAGES, "labels": np.eye(12, dtype=int)}, r"labels: must be whole numbers"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"labels: labels must be in \[0, 1,048,576\), got values from -1"),
        ({"images": IMAGES, "labels": LABELS + 2**40}, r"labels: labels must be in \[0, 1,048,576\), got values from"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"images: must be uint8 \(N,H,W,C\) or \(N,H,W\), got float64"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"images: must be uint8 .*, got uint8 \(4, 3\)"),
        (
            {},
            r"set\.npz: holds no arrays; expected images, labels; train_images, train_labels, test_images, test_labels",
        ),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"images: holds no images, but an empty array \(0, 5, 4, 3\)"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, r"images: holds no pixels, but an empty array \(12, 0, 4, 3\)"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:0], "y_test": LABELS[:0]},
            r"x_test: holds no images, but an empty array \(0, 5, 4, 3\)",
        ),
        ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, r"images: must be .* looks like \(N,C,H,W\)"),
        (
            {"images": IMAGES, "labels": LABELS * 2**15},
            r"set\.npz: labels must be in \[0, 65,536\), got values from 0 to",
        ),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, r"labels must be in \[0, 1\), got"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.arange(3)}, r"classes: must be names \(N,\), got int64"),
        (
            {"images": np.array([{}] * 3), "labels": LABELS},
            r"images: .* \(it holds pickled objects, which are not read",
        ),
        ({"images": IMAGES[:3], "labels": LABELS[:3]}, "has no test half, and no class with two images"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :4], "y_test": LABELS},
            r"holds images of \(5, 4, 3\) to train on, and of \(4, 4, 3\) to test on",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(saved(tmp_path / "set.npz", **arrays))


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no array", r"images: cannot be read as an array \(the magic string"),
        (npy(IMAGES)[:-1], r"images: cannot be read as an array \(it holds 719 bytes of uint8 \(12, 5, 4, 3\)\)"),
        (npy(IMAGES) + b"x", r"images: cannot be read as an array \(it holds 721 bytes"),
        (npy(IMAGES).replace(b"(12, 5, 4, 3)", b"(10**9, 5, 4)"), r"images: cannot be read as an array"),
        (npy(IMAGES).replace(b"(12, 5, 4, 3)", b"(99999999999)"), r"images: cannot be read as an array"),
        (npy(IMAGES)[:40], r"images: cannot be read as an array"),
        (
            npy(IMAGES).replace(b"(12, 5, 4, 3)", b"(12, 5, 4, 3 "),
            r"cannot be read as an array \(its header is damaged",
        ),
        (npy(IMAGES).replace(b"(12, 5, 4, 3)", b"(-12, 5,-4,3)"), r"\(no array is of uint8 \(-12, 5, -4, 3\)\)"),
        (npy(IMAGES).replace(b"'|u1'", b"'|S0'"), r"cannot be read as an array \(no array is of"),
        (npy(IMAGES).replace(b"'|u1'", b"'2u1'").replace(b"(12,", b"(6, "), r"\(no array is of \('u1', \(2,\)\)"),
    ],
)
def test_damaged_arrays(tmp_path, content, message):
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", content)
        archive.writestr("labels.npy", npy(LABELS))
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(tmp_path / "set.npz")


def test_names_that_are_no_text(tmp_path):
    names = npy(np.array(["ab"] * 3)).replace("ab".encode("utf-32-le"), b"\xff" * 8)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for name, content in (("images", npy(IMAGES)), ("labels", npy(LABELS)), ("classes", names)):
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(zfcuda.DataError, match=r"classes: holds names that are no text"):
        data.open(tmp_path / "set.npz")


def test_damaged_archives(tmp_path):
    path = saved(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    place = whole.index(IMAGES.tobytes()[:50])
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(zfcuda.DataError, match=r"images.*cannot be read from the archive \(Bad CRC"):
        data.open(path)
    path.write_bytes(whole[:500])
    with pytest.raises(zfcuda.DataError, match=r"set\.npz: "):
        data.open(path)
    np.savez_compressed(path, images=np.zeros((3000, 256, 256, 3), np.uint8), labels=np.zeros(3000, int))
    with pytest.raises(zfcuda.DataError, match=r"set\.npz: unpacks to more than 100 times its size"):
        data.open(path)


def test_an_array_that_unpacks_to_far_more_than_it_is(tmp_path):
    """What lies beside it in the archive makes no difference."""
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {"images": np.zeros((700, 256, 256, 3), np.uint8), "labels": np.zeros(700, int)}.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue(), zipfile.ZIP_DEFLATED)
        archive.writestr("padding.npy", RNG.bytes(2**21))
    with pytest.raises(zfcuda.DataError, match=r"set\.npz/images\.npy: unpacks to more than 100 times its size"):
        data.open(path)


def test_an_array_larger_than_half_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("zfcuda.data.npz._LIMIT", IMAGES.nbytes + 127)
    path = saved(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(zfcuda.DataError, match=r"images.* holds 848 bytes, more than the 847 that can be read"):
        data.open(path)
