"""Words and paths to data sets; CIFAR-10 in its own format."""

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": ""}, "data must not be empty"),
        ({"image_size": 100_000}, "image_size must be at most 4096, got 100000"),
        ({"hold_out": 0}, "hold_out must be between 0 and 1, got 0"),
        ({"hold_out": float("nan")}, "hold_out must be between 0 and 1, got nan"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_arguments_are_checked_before_anything_is_read(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.open(**{"data": "nowhere"} | arguments)


@pytest.mark.parametrize(
    ("folders", "out", "held"),
    [
        (["cat", "dog"], "run", True),
        (["cat", "dog"], "cat", True),
        (["cat", "dog"], "runs/first", True),
        (["cat", "dog"], ".", True),
        (["cat", "dog"], "../run", False),
        (["around/cat", "around/dog"], "run", True),
        (["train/cat", "test/cat"], "run", False),
        (["train/cat", "test/cat"], ".", False),
        (["train/cat", "test/cat"], "train/run", True),
        ([], "run", False),
    ],
)
def test_a_directory_that_would_become_a_class(folders, out, held, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for folder in folders:
        (root / folder).mkdir(parents=True)
    assert data.would_hold(root, root / out) == held
    assert not data.would_hold("fashion-mnist", root / out)
    (tmp_path / "link").symlink_to(root)
    assert data.would_hold(tmp_path / "link", root / out) == held
