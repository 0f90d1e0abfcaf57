"""Batches that are ready when they are needed: those of `batch` and `crops`, in order, and errors where they belong."""

import os
import threading

import numpy as np
import pytest

import zfcuda
from zfcuda import backends, data
from zfcuda.data import Drawn, Preprocess, load_batches, load_crops, loading

from .packing import CLASSES, made

RNG = np.random.default_rng(0)
PREPROCESS = Preprocess((255 * RNG.random((5, 4, 3))).astype(np.float32), (3, 2), scale=0.5)
BATCHES = np.split(RNG.permutation(23), [6, 12, 18])


def drawn(batches=BATCHES, low=-3, high=5):
    """In and across the image."""
    rng = np.random.default_rng(1)
    for indices in batches:
        n = len(indices)
        yield Drawn(indices, rng.integers(low, high, (n, 2)), rng.integers(0, 2, n, np.uint8))


@pytest.fixture
def packed(tmp_path):
    return data.pack(made(), tmp_path / "packed", shard_images=5).train


class Images(data.Subset):
    """Of any other kind: read before they are cropped."""


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
@pytest.mark.parametrize(
    "view",
    [
        lambda packed: packed,
        lambda packed: data.relabelled(packed, CLASSES[::-1], 3),
        lambda packed: Images(packed, range(len(packed))),
    ],
    ids=["packed", "packed, with other labels", "other images"],
)
def test_crops_are_those_of_the_batches(packed, view, backend):
    if reason := backends.status()[backend]:
        pytest.skip(f"{backend}: {reason}")
    dataset = view(packed)
    with backends.use(backend):
        expected = [
            (PREPROCESS.crops(images, one.corners, one.flips), labels)
            for one, (images, labels) in zip(drawn(), load_batches(dataset, BATCHES), strict=True)
        ]
        found = list(load_crops(dataset, PREPROCESS, drawn()))
    for (crops, labels), (wanted, of_batch) in zip(found, expected, strict=True):
        assert (crops.dtype, crops.shape[1:]) == (np.float32, (3, 2, 3))
        np.testing.assert_array_equal(crops, wanted)
        np.testing.assert_array_equal(labels, of_batch)
        assert labels.dtype == np.int32


def test_crops_on_a_gpu(gpu, packed):
    """Of images that have been copied there: nothing is cropped in the thread that reads."""
    host = list(load_crops(packed, PREPROCESS, drawn()))
    for (crops, labels), (wanted, of_batch) in zip(load_crops(packed, PREPROCESS, drawn(), gpu), host, strict=True):
        assert isinstance(crops, gpu.ndarray)
        np.testing.assert_array_equal(crops.get(), wanted)
        np.testing.assert_array_equal(labels.get(), of_batch)


def test_crops_are_drawn_by_the_caller_in_order(packed):
    threads = []

    def watched():
        for one in drawn():
            threads.append(threading.current_thread())
            yield one

    loaded = load_crops(packed, PREPROCESS, watched())
    assert not threads
    next(loaded)
    assert len(threads) == loading._AHEAD + 1
    assert len(list(loaded)) == len(BATCHES) - 1
    assert set(threads) == {threading.current_thread()}


def load_corners(dataset, batches):
    return load_crops(dataset, PREPROCESS, drawn(batches, 0, 1))


@pytest.mark.parametrize("load", [load_batches, load_corners])
def test_what_is_wrong_is_said_at_its_batch(packed, tmp_path, load):
    for batches, error, message in (
        ([[0, 1], [2, 23]], IndexError, r"indices must be in \[0, 23\), got 2 to 23"),
        ([[0, 1], [-1]], IndexError, r"indices must be in \[0, 23\), got -1 to -1"),
        ([[0, 1], [3, 22]], zfcuda.DataError, r"train-00004\.npy: is cut short"),
    ):
        if error is zfcuda.DataError:
            os.truncate(tmp_path / "packed" / "train-00004.npy", 128 + 2 * 60)
        loaded = load(packed, list(map(np.array, batches)))
        assert len(next(loaded)[0]) == 2
        with pytest.raises(error, match=message):
            next(loaded)


def test_images_of_another_shape_are_refused(packed):
    other = Preprocess(np.zeros((5, 5, 3), np.float32), (3, 2))
    with pytest.raises(ValueError, match=r"images must be 5 x 5 x 3, as the network takes them, got 5 x 4 x 3"):
        next(load_crops(packed, other, drawn()))
