"""Data sets in memory, subsets and draws."""

import subprocess
import sys

import numpy as np
import pytest

import zfcuda
from zfcuda import data


def _dataset(labels=(0, 1, 0, 1, 1, 0, 0, 0)):
    labels = np.array(labels, np.int32)
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
    return data.ArrayDataset(images, labels, ("a", "b"))


def test_array_dataset():
    dataset = _dataset()
    assert len(dataset) == 8
    assert dataset.image_shape == (2, 2, 3)
    images, labels = dataset.batch([4, 0])
    np.testing.assert_array_equal(images, dataset.images[[4, 0]])
    assert labels.tolist() == [1, 0]
    assert dataset.identifier(4) == "image[4]"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((2, 2, 2, 3), np.float32)}, TypeError, "images must be uint8, got float32"),
        ({"images": np.zeros((2, 2, 2), np.uint8)}, ValueError, r"images must be \(N,H,W,C\)"),
        ({"images": np.zeros((0, 2, 2, 3), np.uint8)}, ValueError, "none empty"),
        ({"labels": np.zeros(2, np.int64)}, TypeError, "labels must be int32, got int64"),
        ({"labels": np.zeros(3, np.int32)}, ValueError, r"labels must have shape \(2,\), got \(3,\)"),
        ({"labels": np.array([0, 2], np.int32)}, zfcuda.DataError, r"image\[1\]: labels must be in \[0, 2\)"),
        ({"labels": np.array([-1, 0], np.int32)}, zfcuda.DataError, r"image\[0\]: labels must be in \[0, 2\)"),
        ({"identifiers": ["one"]}, ValueError, "identifiers must be 2 strings, got 1"),
    ],
)
def test_arrays_that_do_not_fit(changes, error, message):
    arguments = {"images": np.zeros((2, 2, 2, 3), np.uint8), "labels": np.zeros(2, np.int32), "classes": ("a", "b")}
    with pytest.raises(error, match=message):
        data.ArrayDataset(**(arguments | changes))


def test_classes_of_one_name_stay_several():
    """A label is a place among them. Where names alone say which is which (`data.relabelled`), they are an error."""
    arrays = np.zeros((3, 2, 2, 3), np.uint8), np.array([0, 1, 2], np.int32)
    dataset = data.ArrayDataset(*arrays, ("crane", "crane", "tern"))
    assert dataset.classes == ("crane", "crane", "tern")
    assert dataset.batch([2, 1, 0])[1].tolist() == [2, 1, 0]
    assert "3 classes: crane, crane, tern" in repr(dataset)
    assert data.relabelled(dataset, ("crane", "crane", "tern"), 3) is dataset
    with pytest.raises(zfcuda.DataError, match="the data set has several classes of one name: crane"):
        data.relabelled(dataset, ("crane", "tern"), 2)
    with pytest.raises(zfcuda.DataError, match="the network has several classes of one name: crane"):
        data.relabelled(dataset, ("tern", "crane", "crane"), 3)
    # Names that differ in bytes that cannot be shown, too.
    assert data.ArrayDataset(*arrays, ("a\udc80", "a\udc81", "b")).classes == ("a\ufffd", "a\ufffd", "b")


def test_subset():
    dataset = _dataset()
    subset = data.Subset(data.Subset(dataset, [7, 1, 4]), [2, 0])
    assert len(subset) == 2
    assert subset.labels.tolist() == [1, 0]
    images, labels = subset.batch([1, 0])
    np.testing.assert_array_equal(images, dataset.images[[7, 4]])
    assert labels.tolist() == [0, 1]
    assert subset.identifier(0) == "image[4]"
    for indices in ([], [8], [-1]):
        with pytest.raises(ValueError, match="indices must be"):
            data.Subset(dataset, indices)


def test_both_halves_together():
    dataset = _dataset()
    split = data.Split(data.Subset(dataset, [7, 1, 4]), data.Subset(dataset, [0, 2]))
    both = data.Together(split)
    assert (len(both), both.classes, both.image_shape) == (5, ("a", "b"), (2, 2, 3))
    assert both.labels.tolist() == [0, 1, 1, 0, 0]
    for indices in ([4, 0, 3, 2, 0], [1, 2], [3], []):
        images, labels = both.batch(indices)
        np.testing.assert_array_equal(images, dataset.images[np.array([7, 1, 4, 0, 2])[np.array(indices, int)]])
        assert labels.tolist() == both.labels[np.array(indices, int)].tolist()
    assert [both.identifier(i) for i in range(5)] == [f"image[{i}]" for i in (7, 1, 4, 0, 2)]
    other = data.ArrayDataset(dataset.images, dataset.labels, ("b", "c"))
    with pytest.raises(ValueError, match="both halves must have images of one shape and the same classes, got <Subset"):
        data.Together(data.Split(split.train, other))


def test_files_left_out_are_those_of_both_halves():
    halves = []
    for names in (("a", "b"), ("c", "b")):
        skipped = tuple(data.Skipped(name, "damaged") for name in names)
        images, labels = _dataset().images, _dataset().labels
        halves.append(data.ArrayDataset(images, labels, ("a", "b"), skipped=skipped))
    assert [one.path for one in data.Together(data.Split(*halves)).skipped] == ["a", "b", "c"]


def test_halves_of_a_source_without_a_test_half(tmp_path):
    images, labels = _dataset().images, _dataset().labels
    np.savez(tmp_path / "one.npz", images=images, labels=labels)
    held = data.open(tmp_path / "one.npz")
    assert isinstance(held, data.HeldOut)
    assert (len(held.train), len(held.test)) == (6, 2)
    two = {
        f"{half}_{name}": array
        for half in ("train", "test")
        for name, array in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "two.npz", **two)
    assert not isinstance(data.open(tmp_path / "two.npz"), data.HeldOut)


def test_sample_takes_the_same_share_of_every_class():
    dataset = _dataset([0] * 50 + [1] * 50)
    drawn = data.sample(dataset, 21, seed=1)
    assert sorted(np.bincount(drawn.labels).tolist()) == [10, 11]
    again = data.sample(dataset, 21, seed=1)
    assert [drawn.identifier(i) for i in range(21)] == [again.identifier(i) for i in range(21)]
    assert data.sample(dataset, 100) is dataset
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        data.sample(dataset, 0)


def test_stratified_checks_its_fraction():
    with pytest.raises(ValueError, match="fraction must be between 0 and 1, got 1"):
        data.stratified(np.zeros(4), 1.0)


def test_data_is_imported_when_it_is_first_used():
    code = """
import sys, zfcuda
print(*sorted({"zfcuda.data", "zfcuda.training", "PIL", "tqdm", "matplotlib", "jinja2", "cupy"} & set(sys.modules)))
print(zfcuda.data.open.__module__, zfcuda.training.Trainer.__module__, "data" in dir(zfcuda))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["", "zfcuda.data.sources zfcuda.training.trainer True"]


def test_there_is_no_other_attribute():
    with pytest.raises(AttributeError, match="'zfcuda' has no attribute 'nothing'"):
        _ = zfcuda.nothing
