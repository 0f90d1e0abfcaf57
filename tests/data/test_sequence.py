"""Data sets of other libraries: torchvision's and Hugging Face's forms, and whatever else gives images by index."""

import io
import types

import numpy as np
import pytest
from PIL import Image

import zfcuda
from zfcuda import data

from . import pictures

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 6, 8, 3), np.uint8)
LABELS = [0, 1, 2] * 3


class Pairs:
    """In the form of torchvision's."""

    def __init__(self, images=IMAGES, labels=LABELS, **said):
        self._images, self._labels, self.read = images, labels, []
        vars(self).update(said)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        assert type(index) is int
        self.read.append(index)
        return self._images[index], self._labels[index]


class Columns:
    """In the form of Hugging Face's: rows by number, columns by name."""

    def __init__(self, images, labels, names, keys=("image", "label")):
        self._columns = dict(zip(keys, (images, labels), strict=True))
        self.column_names = list(keys)
        self.features = {keys[0]: object(), keys[1]: types.SimpleNamespace(names=names)}

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, index):
        if isinstance(index, str):
            return self._columns[index]
        return {key: column[index] for key, column in self._columns.items()}


def everything(dataset):
    return dataset.batch(range(len(dataset)))


def test_pairs_of_pictures():
    items = Pairs([Image.fromarray(image) for image in IMAGES], targets=LABELS, classes=["cat", "dog", "eel"])
    dataset = data.SequenceDataset(items)
    assert items.read == list(range(9))  # their headers; not their labels
    assert (dataset.classes, dataset.image_shape, len(dataset)) == (("cat", "dog", "eel"), (6, 8, 3), 9)
    images, labels = everything(dataset)
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.tolist() == LABELS
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.batch(np.array([4, 0]))[0], IMAGES[[4, 0]])
    assert dataset.identifier(4) == "Pairs[4]"


def test_pairs_of_arrays_without_any_names():
    dataset = data.SequenceDataset(
        [(image[..., 0], np.int64(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    )
    assert (dataset.classes, dataset.image_shape) == (("0", "1", "2"), (6, 8, 1))
    np.testing.assert_array_equal(everything(dataset)[0], IMAGES[..., :1])
    assert data.SequenceDataset([(IMAGES[0], 0)], classes=("only", "other")).classes == ("only", "other")


def test_rows_and_columns():
    for keys in (("image", "label"), ("img", "fine_label")):
        rows = Columns([Image.fromarray(image) for image in IMAGES], LABELS, ["a", "b", "c"], keys)
        dataset = data.SequenceDataset(rows, keys=keys)
        assert dataset.classes == ("a", "b", "c")
        np.testing.assert_array_equal(everything(dataset)[0], IMAGES)
        assert dataset.labels.tolist() == LABELS
    with pytest.raises(TypeError, match=r"Columns\[0\]: has no 'image', but \['img', 'fine_label'\]: say which keys"):
        data.SequenceDataset(rows)


def test_tensors_of_pixels_and_labels():
    torch = pytest.importorskip("torch")
    items = Pairs(torch.from_numpy(IMAGES), torch.tensor(LABELS), targets=torch.tensor(LABELS))
    images, labels = everything(data.SequenceDataset(items))
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


def test_pictures_are_read_as_those_in_files_are(tmp_path):
    """Orientation, transparency, 16 bits, scaling: whatever `images.decode` does."""
    rng = np.random.default_rng(1)
    made = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.fromarray(rng.integers(0, 256, (20, 30, 4), np.uint8), "RGBA")
    deep = Image.fromarray(rng.integers(0, 2**12, (20, 30), np.uint16))
    contents = [
        pictures.encode(made, "JPEG", exif=exif, quality=95),
        pictures.encode(made, "PNG", exif=exif),
        pictures.encode(clear, "PNG"),
        pictures.encode(made.convert("P"), "GIF"),
        pictures.encode(made.convert("L"), "PNG"),
        pictures.encode(deep, "PNG"),
        pictures.encode(made.convert("CMYK"), "TIFF"),
    ]
    for channels in (1, 3):
        some = contents if channels == 3 else contents[1:]  # of a file, a JPEG's grey is what it stores as brightness
        dataset = data.SequenceDataset(
            [(Image.open(io.BytesIO(one)), 0) for one in some], image_size=16, channels=channels
        )
        root = tmp_path / str(channels)
        for half in ("train", "test"):
            for label in "ab":
                pictures.write(root / half / label, {f"{i}.x": content for i, content in enumerate(some)})
        folder = data.open(root, image_size=16, channels=channels)
        np.testing.assert_array_equal(everything(dataset)[0], folder.train.batch(range(len(some)))[0])


def test_arrays_of_several_sizes_become_squares():
    items = [(np.full((40, 30, 5), 7, np.uint8), 0), (np.full((20, 50, 5), 9, np.uint8), 1)]
    dataset = data.SequenceDataset(items)
    assert dataset.image_shape == (25, 25, 5)
    assert [set(image.flat) for image in everything(dataset)[0]] == [{7}, {9}]
    with pytest.raises(zfcuda.DataError, match=r"list\[0\]: has 5 channels, where 3 are expected"):
        data.SequenceDataset(items, channels=3).batch([0])


def test_it_is_packed(tmp_path):
    halves = [data.SequenceDataset(Pairs(IMAGES[part], LABELS[part])) for part in (slice(0, 6), slice(6, 9))]
    packed = data.pack(data.Split(*halves), tmp_path / "packed")
    np.testing.assert_array_equal(everything(packed.test)[0], IMAGES[6:])
    assert packed.test.identifier(2) == "Pairs[2]"


class Broken(Pairs):
    def __getitem__(self, index):
        if index == 5:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: data.SequenceDataset(iter([])),
            TypeError,
            "items must have a length and give an item by index, got lis",
        ),
        (lambda: data.SequenceDataset([]), ValueError, "items must not be empty"),
        (
            lambda: data.SequenceDataset([IMAGES[0]]),
            TypeError,
            r"list\[0\]: must be \(image, label\) or a mapping, got nd",
        ),
        (lambda: data.SequenceDataset([(IMAGES[0], 0, 1)]), TypeError, r"list\[0\]: must be \(image, label\)"),
        (lambda: data.SequenceDataset([(IMAGES[0], "cat")]), TypeError, "labels must be 1 whole numbers, got <U3"),
        (lambda: data.SequenceDataset([(IMAGES[0], -1)]), ValueError, r"labels must be in \[0, 1,048,576\), got .* -1"),
        (
            lambda: data.SequenceDataset(Pairs(), labels=[0]),
            TypeError,
            r"labels must be 9 whole numbers, got int64 \(1,\)",
        ),
        (lambda: data.SequenceDataset(Pairs(), classes=["a"]), zfcuda.DataError, r"Pairs\[2\]: is of the class 2 of 1"),
        (
            lambda: data.SequenceDataset([(IMAGES[0] / 255, 0)]),
            TypeError,
            r"uint8 .*got float64 .* leave out transforms",
        ),
        (
            lambda: data.SequenceDataset([(np.zeros((3, 16, 18), np.uint8), 0)]),
            TypeError,
            r"list\[0\]: an image must be \(H,W,C\), and \(3, 16, 18\) looks like \(C,H,W\): transpose it",
        ),
        (lambda: data.SequenceDataset([(np.zeros((1, 16, 18), np.uint8), 0)]), TypeError, r"looks like \(C,H,W\)"),
        (lambda: data.SequenceDataset([(None, 0)]), TypeError, r"list\[0\]: an image must be one of Pillow's"),
        (
            lambda: data.SequenceDataset(Broken()),
            zfcuda.DataError,
            r"Broken\[5\]: cannot be read \(OSError: the disk is",
        ),
        (
            lambda: data.SequenceDataset(Pairs(targets=[0] * 9)).batch([3, 4]),
            zfcuda.DataError,
            r"Pairs\[4\]: has the label 1, but 0 is its label in the list of all",
        ),
        (
            lambda: data.SequenceDataset([(Image.open(io.BytesIO(pictures.png(IMAGES[0])[:80])), 0)]).batch([0]),
            zfcuda.DataError,
            r"list\[0\]: cannot be read as an image",
        ),
    ],
)
def test_what_is_no_data_set(make, error, message):
    with pytest.raises(error, match=message):
        make()
