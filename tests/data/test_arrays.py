"""Images of any number of channels in .npy files."""

import io

import numpy as np
import pytest
from PIL import Image

from zfcuda import DataError, data


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def images(channels, size=(9, 12)):
    rng = np.random.default_rng(channels)
    return rng.integers(0, 256, (4, *size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_class_folders_of_arrays(tmp_path, channels):
    made = images(channels)
    files = {f"{name}/{i}.npy": npy(made[2 * k + i]) for k, name in enumerate("ab") for i in range(2)}
    split = data.open(write(tmp_path, files), hold_out=0.4)
    assert split.train.image_shape == (9, 12, channels)
    found, labels = split.train.batch([0, 1])
    assert labels.tolist() == [0, 1]
    for image, label in zip(found, labels, strict=True):
        assert any(np.array_equal(image, one) for one in made[2 * label : 2 * label + 2])
    small = data.open(tmp_path, image_size=(4, 6), hold_out=0.4).train
    assert small.image_shape == (4, 6, channels)
    assert small.batch([0])[0].std() > 0


def test_arrays_are_scaled_as_pictures_are(tmp_path):
    image = images(3, (40, 60))[0]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    write(tmp_path, {"a/1.npy": npy(image), "a/2.png": file.getvalue(), "b/1.npy": npy(image), "b/2.npy": npy(image)})
    found = data.open(tmp_path, image_size=(10, 12), hold_out=0.4)
    pictures = [found.train.batch([0])[0][0], found.test.batch([0])[0][0]]
    np.testing.assert_array_equal(*pictures)


def test_pictures_with_as_many_channels_as_are_asked_for(tmp_path):
    grey = io.BytesIO()
    Image.fromarray(images(1)[0, ..., 0]).save(grey, "PNG")
    write(tmp_path, {f"{name}/{i}.png": grey.getvalue() for name in "ab" for i in range(2)})
    assert data.open(tmp_path, hold_out=0.4).train.image_shape == (9, 12, 1)
    train = data.open(tmp_path, channels=3, hold_out=0.4).train
    assert train.image_shape == (9, 12, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros((4, 4, 3), np.float32)), "an array must be uint8"),
        (npy(np.zeros((4,), np.uint8)), "an array must be uint8"),
        (npy(np.zeros((4, 4, 0), np.uint8)), "an array must be uint8"),
        (npy(np.array([{}], object), allow_pickle=True), "an array must be uint8"),
        (npy(images(3)[0])[:-1], "must be whole"),
        (npy(images(3)[0])[:20], "cannot be read as an image"),
        (npy(np.zeros((2, 2), np.uint8)).replace(b"(2, 2)", b"(99999999, 99999)"), "cannot be read as an image"),
        (b"\x93NUMPY\x09\x00" + bytes(100), r"version \(9, 0\) of the .npy format is not read"),
    ],
)
def test_files_that_are_no_images(tmp_path, content, message):
    write(tmp_path, {"a/1.npy": content, "a/2.npy": npy(images(3)[0]), "b/1.npy": npy(images(3)[1])})
    with pytest.raises(DataError, match=f"(?s)1.npy: .*{message}"):
        data.open(tmp_path, hold_out=0.4)


def test_another_number_of_channels(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(images(3)[0]).save(picture, "PNG")
    write(
        tmp_path / "mixed", {"a/1.png": picture.getvalue(), "a/2.npy": npy(images(4)[0]), "b/1.npy": npy(images(4)[1])}
    )
    with pytest.raises(DataError, match=r"1.png: .*a picture has 1 or 3 channels, where 4 are expected"):
        data.open(tmp_path / "mixed", hold_out=0.4)
    tmp_path = tmp_path / "arrays"
    write(tmp_path, {"a/1.npy": npy(images(3)[0]), "a/2.npy": npy(images(4)[0]), "b/1.npy": npy(images(4)[1])})
    with pytest.raises(DataError, match="has 3 channels, where 4 are expected"):
        data.open(tmp_path, hold_out=0.4)
