"""Classes of data sets are matched by name with those that a network counts in."""

import numpy as np
import pytest

from zfcuda import DataError
from zfcuda.data import ArrayDataset, of_one_class, relabelled

FRUIT = ("apple", "berry", "cherry", "date")


def dataset(labels, classes):
    """Image i is all i."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 1), np.uint8)
    return ArrayDataset(images, np.array(labels, np.int32), tuple(classes), "fruit")


def test_the_same_classes_are_the_same_data_set():
    same = dataset([0, 3, 1], FRUIT)
    assert relabelled(same, FRUIT, 4) is same
    assert relabelled(same, None, 4) is same


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, 2, 0], ("berry", "cherry", "date"), [1, 2, 3, 1]),  # a part
        ([0, 1, 2, 3], ("date", "cherry", "berry", "apple"), [3, 2, 1, 0]),  # another order
        ([1, 0], ("fig", "date", "apple")[1:], [0, 3]),
        ([1, 2, 1], ("fig", "date", "apple"), [3, 0, 3]),  # there is no image of a fig
        ([0, 1, 2, 3], ("0", "1", "2", "3"), [0, 1, 2, 3]),  # numbers for names
        ([0, 1, 2, 3], ("3", "02", "1", "0"), [3, 2, 1, 0]),
    ],
)
def test_labels_count_in_the_networks_classes(labels, classes, expected):
    before = dataset(labels, classes)
    after = relabelled(before, FRUIT, 4)
    assert after.classes == FRUIT
    assert after.labels.dtype == np.int32
    assert after.labels.tolist() == expected
    last = len(labels) - 1
    images, of_batch = after.batch([last, 0])
    assert images[:, 0, 0, 0].tolist() == [last, 0]
    assert of_batch.tolist() == [expected[last], expected[0]]
    assert (after.image_shape, len(after), after.skipped) == ((2, 2, 1), len(labels), ())
    assert after.identifier(last) == f"fruit[{last}]"


def test_one_class_for_all():
    all_of_them = of_one_class(dataset([0, 3, 1], FRUIT), "ripe")
    assert all_of_them.classes == ("ripe",)
    assert all_of_them.labels.tolist() == [0, 0, 0]
    images, labels = all_of_them.batch([2, 0])
    assert (images[:, 0, 0, 0].tolist(), labels.tolist()) == ([2, 0], [0, 0])
    assert all_of_them.identifier(2) == "fruit[2]"


def test_numbers_that_are_names_are_matched_as_names():
    assert relabelled(dataset([0, 1], ("7", "3")), tuple("0123456789"), 10).labels.tolist() == [7, 3]


@pytest.mark.parametrize(
    ("labels", "classes", "own", "message"),
    [
        ([0, 1, 1], ("apple", "fig"), FRUIT, r"does not know: fig \(fruit\[1\]\); it knows apple, berry, cherry, date"),
        ([0, 1], ("0", "1"), FRUIT, "does not know: 0, 1"),  # fewer numbers than classes
        ([0, 1, 2, 3], ("1", "2", "3", "4"), FRUIT, "does not know: 1, 2, 3, 4"),  # not those of four classes
        ([0, 1, 2, 3], FRUIT, ("0", "1", "2", "3"), "does not know: apple"),  # nobody says which is which
        ([0, 1], ("a", "b"), None, "knows 4 classes, but the data set has 2"),
        ([0, 1, 2, 3], ("0", "1", "3", "2"), None, r"no names of classes, .* \(0, 1, 3, 2\): it cannot be told"),
        ([0, 1, 2, 3], ("0", "1", "2", "3"), ("1", "2", "3", "4"), "does not know: 0"),  # some are names
        ([1], ("apple", "date"), ("date", "date", "fig", "apple"), "network has several classes of one name: date"),
        ([0], ("date", "date"), FRUIT, "data set has several classes of one name: date"),
    ],
)
def test_what_cannot_be_matched_is_said(labels, classes, own, message):
    with pytest.raises(DataError, match=message):
        relabelled(dataset(labels, classes), own, 4)


def test_many_names_are_not_all_listed():
    names = tuple(f"class {i}" for i in range(1000))
    with pytest.raises(DataError, match=r"it knows class 0, .*, class 29 and 970 more$"):
        relabelled(dataset([0], ("fig",)), names, 1000)
