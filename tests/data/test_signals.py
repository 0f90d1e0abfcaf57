"""Signals, arrays of height 1: in class folders, .npz files and other libraries' data sets."""

import numpy as np
import pytest

from zfcuda import DataError, data

from .test_arrays import npy, write


def signals(count=4, length=50, channels=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, length, channels), np.uint8)


def folder(path, arrays):
    """Class folders a and b, an array each file, the first half in a."""
    half = len(arrays) // 2
    return write(path, {f"{'ab'[i >= half]}/{i}.npy": npy(array) for i, array in enumerate(arrays)})


@pytest.mark.parametrize(("length", "channels"), [(50, 2), (5000, 1), (300, 12), (2, 1)])
def test_class_folders(tmp_path, length, channels):
    made = signals(4, length, channels)
    given = made[..., 0] if channels == 1 else made  # (1,W) is a signal of one channel
    for image_size in (None, (1, length)):
        split = data.open(folder(tmp_path, given), image_size=image_size, hold_out=0.4)
        assert split.train.image_shape == (1, length, channels)
        found = np.concatenate([half.batch(range(2))[0] for half in split])
        assert sorted(map(bytes, found)) == sorted(map(bytes, made))


def test_signals_are_not_made_alike(tmp_path):
    mixed = [*signals(2, 50), *signals(2, 40)]
    with pytest.raises(DataError, match="holds signals of 40 to 50 samples; they must have one length"):
        data.open(folder(tmp_path / "mixed", mixed), hold_out=0.4)
    same = folder(tmp_path / "same", signals())
    with pytest.raises(DataError, match="same: holds signals of 1 x 50, which are not scaled to 28 x 28"):
        data.open(same, image_size=28, hold_out=0.4)
    with pytest.raises(DataError, match="holds signals of 1 x 50, which are not scaled to 1 x 64"):
        data.open(same, image_size=(1, 64), hold_out=0.4)


@pytest.mark.parametrize("shape", [(50, 2), (50, 2, 1), (1, 40, 2), (2, 1, 50), (1, 50, 3), (50, 50, 2)])
def test_what_is_no_such_signal(tmp_path, shape):
    folder(tmp_path, [np.zeros(shape, np.uint8)])
    (path,) = tmp_path.glob("*/0.npy")
    has = " x ".join(map(str, (*shape, 1)[:3]))
    message = (
        rf"0.npy: .*is {has}, where signals of 1 x 50 x 2 are expected: arrays \(1,W,C\), which array\[None\] makes"
    )
    with pytest.raises(DataError, match=message):
        data.read_image(path, (1, 50, 2))


def test_samples_that_are_no_bytes(tmp_path):
    message = r"must be uint8 .*, of signals \(1,W,C\), got float32 of shape \(1, 50, 2\); scale it to 0\.\.255"
    with pytest.raises(DataError, match=message):
        data.open(folder(tmp_path / "floats", signals().astype(np.float32)), hold_out=0.4)
    with pytest.raises(DataError, match=r"got int16 of shape \(1, 50, 2\)\)"):
        data.open(folder(tmp_path / "whole", signals().astype(np.int16)), hold_out=0.4)


def test_sizes_of_files(tmp_path):
    folder(tmp_path, signals(2))
    assert data.image_size(tmp_path / "a" / "0.npy") == (1, 50)
    (tmp_path / "a" / "0.npy").write_bytes(npy(signals()[0])[:-1])
    with pytest.raises(DataError, match="must be whole"):
        data.image_size(tmp_path / "a" / "0.npy")


@pytest.mark.parametrize("channels", [1, 2, 3, 12])
def test_npz(tmp_path, channels):
    made = signals(8, 48, channels)
    np.savez(tmp_path / "set.npz", images=made, labels=np.arange(8) % 2)
    split = data.open(tmp_path / "set.npz", hold_out=0.3)
    assert split.train.image_shape == (1, 48, channels)


@pytest.mark.parametrize("shape", [(4, 1, 28, 28), (4, 1, 40, 28), (4, 3, 80, 20)])
def test_channels_that_come_first(tmp_path, shape):
    np.savez(tmp_path / "set.npz", images=np.zeros(shape, np.uint8), labels=np.arange(4) % 2)
    with pytest.raises(DataError, match=r"looks like \(N,C,H,W\): transpose it"):
        data.open(tmp_path / "set.npz", hold_out=0.5)
    with pytest.raises(TypeError, match=r"looks like \(C,H,W\): transpose it"):
        data.SequenceDataset([(np.zeros(shape[1:], np.uint8), 0)])


def test_other_libraries():
    made = signals(6, 60, 5)
    half = data.SequenceDataset([(signal, i % 2) for i, signal in enumerate(made)])
    assert half.image_shape == (1, 60, 5)
    np.testing.assert_array_equal(half.batch([3, 0])[0], made[[3, 0]])
    mixed = [(signal, 0) for signal in (*signals(1, 60), *signals(1, 61))]
    with pytest.raises(DataError, match="list: holds signals of 60 to 61 samples"):
        data.SequenceDataset(mixed)
