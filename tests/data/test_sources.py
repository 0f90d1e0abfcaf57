"""Words and paths to data sets; Fashion-MNIST and CIFAR-10 in their own formats."""

import gzip
import struct

import numpy as np
import pytest

import zfcuda
from zfcuda import data

from . import pictures


def test_embedded_fashion_mnist():
    split = data.open("fashion-mnist")
    assert len(split.train.classes) == 10
    for half, per_class in ((split.train, 1200), (split.test, 200)):
        assert half.image_shape == (28, 28, 1)
        assert np.bincount(half.labels).tolist() == [per_class] * 10
    images, labels = split.train.batch([0, 11_999])
    assert labels.tolist() == [0, 9]
    # The outlines of clothing: dark corners, something bright in the middle.
    assert images[:, 0, 0].max() == 0
    assert images[:, 10:18, 10:18].max() > 100
    assert split.test.identifier(3) == "fashion-mnist/test[3]"
    # An ankle boot's shaft stands over its heel; a sole spans its width.
    boots = split.train.images[split.train.labels == 9].mean(axis=0)[:, :, 0]
    assert boots[8, 16:24].mean() > 2 * boots[8, 2:10].mean()


# ---- IDX -----------------------------------------------------------------------------------------------------


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _idx_files(rng):
    train, test = (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (7, 3))
    labels = rng.integers(0, 10, 7, dtype=np.uint8), rng.integers(0, 10, 3, dtype=np.uint8)
    files = {
        "train-images-idx3-ubyte": _idx(train),
        "train-labels-idx1-ubyte": _idx(labels[0]),
        "t10k-images-idx3-ubyte": _idx(test),
        "t10k-labels-idx1-ubyte": _idx(labels[1]),
    }
    return files, train, test, labels


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_idx_files(tmp_path, packed):
    files, train, test, labels = _idx_files(np.random.default_rng(1))
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    for path in (pictures.write(tmp_path / "set", files), pictures.write_zip(tmp_path / "set.zip", files)):
        split = data.open(path)
        np.testing.assert_array_equal(split.train.images[..., 0], train)
        np.testing.assert_array_equal(split.test.images[..., 0], test)
        np.testing.assert_array_equal(split.train.labels, labels[0])
        np.testing.assert_array_equal(split.test.labels, labels[1])
        assert split.train.classes[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("t10k-labels-idx1-ubyte", lambda content: None, "missing"),
        ("train-images-idx3-ubyte", lambda content: content[:-1], "which promises 5488"),
        ("train-images-idx3-ubyte", lambda content: content[:9], "no IDX file of uint8 with 3 dimensions"),
        ("train-labels-idx1-ubyte", lambda content: b"\0\0\x0d" + content[3:], "no IDX file"),
        ("train-labels-idx1-ubyte", lambda content: _idx(np.zeros(6, np.uint8)), "6 labels for 7 images"),
        ("train-labels-idx1-ubyte", lambda content: _idx(np.full(7, 10, np.uint8)), "labels must be in"),
    ],
)
def test_damaged_idx_files(tmp_path, name, damage, message):
    files, *_ = _idx_files(np.random.default_rng(1))
    damaged = damage(files.pop(name))
    if damaged is not None:
        files[name] = damaged
    with pytest.raises(zfcuda.DataError, match=message) as error:
        data.open(pictures.write(tmp_path, files))
    assert name.partition("-")[0] in str(error.value)


def test_a_gz_cut_short(tmp_path):
    files, *_ = _idx_files(np.random.default_rng(1))
    files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    files["train-images-idx3-ubyte.gz"] = files["train-images-idx3-ubyte.gz"][:-20]
    with pytest.raises(zfcuda.DataError, match=r"train-images-idx3-ubyte\.gz: damaged or cut short"):
        data.open(pictures.write(tmp_path, files))


# ---- CIFAR-10 -------------------------------------------------------------------------------------------------


def _cifar_files(rng):
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    images = rng.integers(0, 256, (6, 2, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, 2), dtype=np.uint8)
    files = {}
    for name, pair, pair_labels in zip(names, images, labels, strict=True):
        planes = pair.transpose(0, 3, 1, 2).reshape(2, -1)
        files[name] = np.concatenate([pair_labels[:, None], planes], axis=1).tobytes()
    return files, images, labels


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin/"])
def test_cifar10_binary(tmp_path, folder):
    files, images, labels = _cifar_files(np.random.default_rng(2))
    files = {folder + name: content for name, content in files.items()} | {f"{folder}readme.html": b""}
    for path in (pictures.write(tmp_path / "set", files), pictures.write_tar(tmp_path / "set.tar.gz", files, "gz")):
        split = data.open(path)
        np.testing.assert_array_equal(split.train.images, images[:5].reshape(10, 32, 32, 3))
        np.testing.assert_array_equal(split.train.labels, labels[:5].reshape(-1))
        np.testing.assert_array_equal(split.test.images, images[5])
        assert split.train.identifier(3) == f"{path}/{folder}data_batch_2.bin[1]"
        assert split.train.classes[3] == "cat"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: None, r"data_batch_3\.bin: missing"),
        (lambda content: content[:-1], r"data_batch_3\.bin: has 6145 bytes"),
        (lambda content: b"", r"data_batch_3\.bin: has 0 bytes"),
        (lambda content: b"\x0a" + content[1:], r"data_batch_3\.bin: labels must be in \[0, 10\), got 10"),
    ],
)
def test_damaged_cifar10(tmp_path, damage, message):
    files, *_ = _cifar_files(np.random.default_rng(2))
    damaged = damage(files.pop("data_batch_3.bin"))
    if damaged is not None:
        files["data_batch_3.bin"] = damaged
    with pytest.raises(zfcuda.DataError, match=message):
        data.open(pictures.write(tmp_path, files))


def test_cifar10_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZFCUDA_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"cifar10: .*elsewhere.*ZFCUDA_DATA"):
        data.open("cifar10")
    (tmp_path / "data").mkdir()
    pictures.write_tar(tmp_path / "data" / "cifar10-small.tar.xz", pictures.splits("cifar10/"), "xz")
    assert len(data.open("cifar10").train) == 12
    files, *_ = _cifar_files(np.random.default_rng(2))
    pictures.write(tmp_path / "elsewhere" / "cifar-10-batches-bin", files)
    assert len(data.open("cifar10").train) == 10


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such data set; expected fashion-mnist"):
        data.open(tmp_path / "nowhere")
