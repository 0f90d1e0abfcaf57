"""Halves and classes, as people lay them out."""

import pytest

import zfcuda
from zfcuda import data
from zfcuda.data.layout import find_halves
from zfcuda.data.names import Tree

from . import pictures


class _Names:
    """Files of these names; a name that ends in "/" is an empty folder, in "->" a link to nowhere."""

    def __init__(self, *names):
        listed = sorted(name for name in names if not name.endswith("/"))
        folders = set()
        for name in names:
            while "/" in name:
                name = name.rpartition("/")[0]
                folders.add(name)
        self.tree = Tree(listed, sorted(folders), [name for name in listed if name.endswith("->")])

    def path(self, name):
        return f"D/{name}"

    def real(self, folder):
        return folder


def _classes(*places, labels="abc"):
    return [f"{place}/{label}/1.png" for place in places for label in labels]


def _found(*names):
    train, test = find_halves(_Names(*names), "D")
    assert list(train.folders) == ["a", "b", "c"]
    return train.root, None if test is None else test.root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAINING", "TESTING"),
        ("training", "validation"),
        ("train", "val"),
        ("train", "valid"),
        ("tr", "te"),
        ("tr", "val"),
        ("trn", "tst"),
        ("training_set", "test_set"),
        ("TrainingSet", "TestSet"),
        ("Training Data", "Validation Data"),
        ("train_images", "test_images"),
        ("train2017", "val2017"),
        ("imgs_train", "imgs_test"),
        ("seg_train", "seg_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("train", "eval"),
        ("train", "dev"),
        ("Train-Set-1", "holdout"),
    ],
)
def test_halves_are_found_by_the_names_that_people_give_them(train, test):
    names = _classes(train, test)
    assert _found(*names) == (train, test)
    assert _found(*(f"outer/more/{name}" for name in names), "outer/README") == (
        f"outer/more/{train}",
        f"outer/more/{test}",
    )
    assert _found(*names, "docs/x.txt", "labels.csv", "other/thing/1.png") == (train, test)
    assert _found(*(f"data/set/{name}" for name in names), "docs/x/y.txt") == (f"data/set/{train}", f"data/set/{test}")
    twice = [f"{name.partition('/')[0]}/{name}" for name in names]
    assert _found(*twice) == (f"{train}/{train}", f"{test}/{test}")


def test_the_test_half_comes_before_the_validation():
    assert _found(*_classes("train", "val", "test", "validation")) == ("train", "test")
    assert _found(*_classes("train", "valid", "val")) == ("train", "val")


def test_a_test_folder_without_labels_gives_way_to_the_validation():
    for test in (
        ["test/1.png", "test/2.png"],
        ["test/images/1.png"],
        ["test/"],
        ["test/unknown/1.png", "test/x/1.png"],
    ):
        assert _found(*_classes("train", "val"), *test) == ("train", "val")


def test_classes_that_sound_like_halves():
    train, test = find_halves(_Names("train/1.png", "bus/1.png", "car/1.png"), "D")
    assert (list(train.folders), test) == (["bus", "car", "train"], None)
    names = ("train station/1.png", "test tube/1.png", "tr/1.png", "te/1.png")  # and languages
    train, test = find_halves(_Names(*names), "D")
    assert (list(train.folders), test) == (["te", "test tube", "tr", "train station"], None)
    train, _ = find_halves(_Names("train/steam/1.png", "train/2.png", "bus/1.png"), "D")
    assert list(train.folders) == ["bus", "train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            _classes("one", "two"),
            r"D: it cannot be told what the classes are: its folders \(one, two\) all hold .*\(a, b, c\)",
        ),
        (_classes("a", "b", labels=("train", "test")), r"all hold the same folders \(test, train\)"),
        (
            _classes("1", "2", "3", "4", labels="vwxyz"),
            r"\(1, 2, 3, \.\.\.\) all hold the same folders \(v, w, x, \.\.\.\)",
        ),
        ([*_classes("1", "2"), "1/d/1.png", "1/direct.png", "x.txt"], "cannot be told what the classes are"),
        (_classes("train", "Train", "test"), r"which of these is which half: Train, train, test"),
        (_classes("train", "test", "TEST"), r"which of these is which half"),
        (_classes("a_train", "a_test", "b_train", "b_test"), "which of these is which half"),
        (
            [*_classes("train"), "annotations/1.xml"],
            r"D: has train with class folders in it, but no test .* pass D/train",
        ),
        ([*_classes("train"), "test/1.png"], r"D/test: has no class folders, .* pass D/train"),
        (["train/1.png", "test/1.png"], r"D/train: has no class folders; expected one folder per class"),
        ([*_classes("train"), *_classes("val", labels="xy")], r"D/val: has classes that D/train lacks: x, y"),
        ([*_classes("train", "val"), *_classes("test", labels="ax")], r"D/test: has classes that D/train lacks: x"),
        (_classes("train", "test", labels="a"), r"D/train: has one class folder, a; two are needed"),
        (
            [*_classes("s/train", "s/test"), "t/u/1.PNG"],
            r"a test folder in D/s, but also images elsewhere \(D/t/u/1\.PNG\)",
        ),
        ([*_classes("train", "test"), "train/d->"], r"D/train/d->: is a link that leads nowhere"),
        ([*_classes("train", "test"), "test/d->"], r"D/test/d->: is a link that leads nowhere"),
        ([*_classes("x/train"), "x/test->"], r"D/x/test->: is a link that leads nowhere"),
    ],
)
def test_what_cannot_be_told_is_said(names, message):
    with pytest.raises(zfcuda.DataError, match=message):
        find_halves(_Names(*names), "D")


def test_folders_that_all_classes_have_but_that_are_no_classes():
    """Tiny ImageNet's images/, and classes with pictures of their own beside theirs."""
    assert _found(*_classes("x", labels=("a/images", "b/images", "c/images"))) == ("x", None)
    names = _classes("x", labels=[f"{c}/{s}" for c in "abc" for s in ("cut", "turned")])
    assert _found(*names, *(f"x/{c}/{i}.png" for c in "abc" for i in range(3))) == ("x", None)


@pytest.mark.parametrize("packed", [False, True])
def test_a_test_on_the_images_of_the_training_is_refused(tmp_path, packed):
    import tarfile

    def opened(name):
        if not packed:
            return data.open(tmp_path / name)
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(tmp_path / name, ".")
        return data.open(tmp_path / f"{name}.tar")

    for name in ("halves", "classes", "both"):
        pictures.write(tmp_path / name / "all", pictures.tree())
    (tmp_path / "halves" / "train").symlink_to("all")
    (tmp_path / "halves" / "test").symlink_to("all")
    with pytest.raises(zfcuda.DataError, match=r"test: is the same folder as .*train, by a link"):
        opened("halves")
    for half in ("train", "test"):
        pictures.write(tmp_path / "classes" / half, pictures.tree({"blue": 2, "green": 2}))
    (tmp_path / "classes" / "train" / "red").symlink_to("../all/red")
    (tmp_path / "classes" / "test" / "red").symlink_to("../all/red")
    with pytest.raises(zfcuda.DataError, match=r"test/red: is the same folder as .*train/red, by a link"):
        opened("classes")
    # One half that is a link, and a class that is one, are what they point to.
    (tmp_path / "both" / "train").symlink_to("all")
    pictures.write(tmp_path / "both" / "test", pictures.tree({"blue": 1}))
    pictures.write(tmp_path / "both", pictures.tree({"green": 3}, "elsewhere/"))
    (tmp_path / "both" / "test" / "green").symlink_to("../elsewhere/green")
    split = opened("both")
    assert (len(split.train), split.test.labels.tolist()) == (12, [0, 1, 1, 1])
