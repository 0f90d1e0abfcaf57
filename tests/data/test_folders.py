"""Class folders, on disk and in archives."""

import os

import numpy as np
import pytest
from PIL import Image

import zfcuda
from zfcuda import data
from zfcuda.data import folders

from . import pictures


def _check_splits(split):
    assert split.train.classes == split.test.classes == ("blue", "green", "red")
    assert split.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert split.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.train.labels.dtype == np.int32
    for half, count in ((split.train, 4), (split.test, 2)):
        images, labels = half.batch([len(half) - 1, 0])
        assert labels.tolist() == [2, 0]
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[0], pictures.solid(pictures.COLOURS["red"], count - 1))
        np.testing.assert_array_equal(images[1], pictures.solid(pictures.COLOURS["blue"], 0))


def _packed(tmp_path, kind, files):
    if kind == "folder":
        return pictures.write(tmp_path / "set", files)
    if kind == "zip":
        return pictures.write_zip(tmp_path / "set.zip", files)
    return pictures.write_tar(tmp_path / f"set.tar.{kind}", files, kind.removeprefix("plain"))


KINDS = ["folder", "zip", "plain", "gz", "xz", "bz2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "outer/", "a/b/"])
def test_every_container(tmp_path, kind, prefix):
    files = pictures.splits(prefix) | {f"{prefix}README.txt": b"not an image", f"{prefix}train/.hidden": b"x"}
    path = _packed(tmp_path, kind, files)
    split = data.open(path)
    _check_splits(split)
    assert split.train.identifier(1) == f"{path}/{prefix}train/blue/1.png"
    assert split.train.skipped == ()


@pytest.mark.parametrize("kind", ["folder", "zip", "plain"])
def test_large_sets_are_read_batch_by_batch(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 100)
    split = data.open(_packed(tmp_path, kind, pictures.splits()))
    assert isinstance(split.train, data.FolderDataset)
    _check_splits(split)


def test_nothing_is_unpacked_and_names_that_climb_out_do_no_harm(tmp_path):
    files = {f"../../{name}": content for name, content in pictures.splits().items()}
    files["/train/blue/absolute.png"] = pictures.png(pictures.solid((0, 0, 250), 9))
    for path in (
        pictures.write_zip(tmp_path / "a.zip", files),
        pictures.write_tar(tmp_path / "a.tar", files, ""),
        pictures.write_tar(tmp_path / "a.tar.gz", files, "gz"),
    ):
        split = data.open(path)
        assert split.train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 4
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.gz", "a.zip"]
    assert not (tmp_path.parent / "train").exists()


def test_hold_out_is_stratified_and_reproducible(tmp_path):
    pictures.write(tmp_path, pictures.tree({"blue": 10, "red": 20}))
    split = data.open(tmp_path, hold_out=0.2, seed=3)
    assert np.bincount(split.test.labels).tolist() == [2, 4]
    assert np.bincount(split.train.labels).tolist() == [8, 16]
    names = [[half.identifier(i) for i in range(len(half))] for half in split]
    assert len({*names[0], *names[1]}) == 30
    again = data.open(tmp_path, hold_out=0.2, seed=3)
    assert names[1] == [again.test.identifier(i) for i in range(len(again.test))]
    other = data.open(tmp_path, hold_out=0.2, seed=4)
    assert names[1] != [other.test.identifier(i) for i in range(len(other.test))]


def test_folders_inside_a_class_folder_belong_to_it(tmp_path):
    files = pictures.tree({"blue": 2, "red": 2})
    files["red/more/deep/9.png"] = pictures.png(pictures.solid((250, 0, 0), 9))
    split = data.open(pictures.write(tmp_path, files), hold_out=0.3)
    assert np.bincount(np.concatenate([split.train.labels, split.test.labels])).tolist() == [2, 3]


def test_a_link_to_a_folder_above_is_not_followed_forever(tmp_path):
    pictures.write(tmp_path, pictures.splits())
    (tmp_path / "train" / "red" / "loop").symlink_to(tmp_path, target_is_directory=True)
    _check_splits(data.open(tmp_path))


# ---- Shapes and kinds of pictures -------------------------------------------------------------------------


def _one_class_of(tmp_path, pictures_by_name):
    files = {f"train/a/{name}": content for name, content in pictures_by_name.items()}
    files |= {f"train/b/{name}": content for name, content in pictures_by_name.items()}
    files |= {name.replace("train/", "test/"): content for name, content in files.items()}
    return data.open(pictures.write(tmp_path, files))


def test_small_pictures_of_one_shape_are_kept_and_grey_stays_grey(tmp_path):
    grey = np.arange(5 * 9, dtype=np.uint8).reshape(5, 9)
    split = _one_class_of(tmp_path, {"x.png": pictures.png(grey)})
    assert split.train.image_shape == (5, 9, 1)
    np.testing.assert_array_equal(split.train.batch([1])[0][0, :, :, 0], grey)


def test_large_pictures_get_their_smallest_side_to_256_and_their_centre_cropped(tmp_path):
    wide = np.zeros((300, 600, 3), np.uint8)
    wide[:, 150:450] = (10, 200, 30)  # the centre square
    split = _one_class_of(tmp_path, {"x.png": pictures.png(wide)})
    assert split.train.image_shape == (256, 256, 3)
    images, _ = split.train.batch([0])
    np.testing.assert_array_equal(images[0, :, 4:-4], np.broadcast_to([10, 200, 30], (256, 248, 3)))


def test_mixed_small_sizes_meet_at_the_median_smaller_side(tmp_path):
    sizes = {"a.png": (20, 30), "b.png": (24, 40), "c.png": (50, 28)}
    split = _one_class_of(tmp_path, {name: pictures.png(np.zeros(size, np.uint8)) for name, size in sizes.items()})
    assert split.train.image_shape == (24, 24, 1)


def test_long_pictures_of_one_shape_become_squares(tmp_path):
    for width, shape in ((1024, (9, 1024, 1)), (1025, (9, 9, 1))):
        split = _one_class_of(tmp_path / str(width), {"x.png": pictures.png(np.zeros((9, width), np.uint8))})
        assert split.train.image_shape == shape


def test_image_size_is_what_it_says(tmp_path):
    pictures.write(tmp_path, pictures.splits())
    assert data.open(tmp_path, image_size=4).train.image_shape == (4, 4, 3)
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        data.open(tmp_path, image_size=0)


def test_every_mode_becomes_rgb_in_a_mixed_folder(tmp_path):
    rgb = Image.new("RGB", (8, 8), (200, 100, 50))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    palette = rgb.quantize(4)
    grey16 = Image.fromarray(np.full((8, 8), 0x8040, np.uint16))
    expected = {
        "cmyk.jpg": (pictures.encode(rgb.convert("CMYK"), "JPEG", quality=100), (200, 100, 50)),
        "clear.png": (pictures.encode(clear, "PNG"), (255, 255, 255)),
        "grey.png": (pictures.encode(rgb.convert("L"), "PNG"), (124, 124, 124)),
        "grey16.png": (pictures.encode(grey16, "PNG"), (128, 128, 128)),
        "half.png": (pictures.encode(half, "PNG"), (127, 127, 127)),
        "one_bit.png": (pictures.encode(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255)),
        "palette.png": (pictures.encode(palette, "PNG"), (200, 100, 50)),
        "rgb.png": (pictures.encode(rgb, "PNG"), (200, 100, 50)),
    }
    split = _one_class_of(tmp_path, {name: content for name, (content, _) in expected.items()})
    assert split.train.image_shape == (8, 8, 3)
    images, _ = split.train.batch(range(len(expected)))
    for image, (name, (_, colour)) in zip(images, sorted(expected.items()), strict=True):
        assert np.abs(image.astype(int) - colour).max() <= 3, name


# ---- What is wrong with a folder ---------------------------------------------------------------------------


def _damaged():
    """A tree with a file cut short, a file that is no image, and an empty file."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    files = pictures.splits()
    files["train/green/0.png"] = pictures.png(noise)[:-40]
    files["train/red/notes.txt"] = b"not an image"
    files["test/red/empty.jpg"] = b""
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_named(tmp_path, kind):
    path = _packed(tmp_path, kind, _damaged())
    with pytest.raises(zfcuda.DataError) as error:
        data.open(path)
    assert "2 of 13 files cannot be read" in str(error.value)
    assert f"{path}/train/green/0.png" in str(error.value)
    assert f"{path}/train/red/notes.txt" in str(error.value)


@pytest.mark.parametrize("limit", [100, 10**9], ids=["batch by batch", "in memory"])
def test_damaged_files_can_be_skipped_and_are_listed(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(folders, "MEMORY_LIMIT", limit)
    split = data.open(pictures.write(tmp_path, _damaged()), on_error="skip")
    assert [item.path for item in split.train.skipped] == [
        str(tmp_path / "train/green/0.png"),
        str(tmp_path / "train/red/notes.txt"),
    ]
    assert [item.path for item in split.test.skipped] == [str(tmp_path / "test/red/empty.jpg")]
    assert all(item.reason for item in split.train.skipped)
    assert split.train.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    images, labels = split.train.batch(range(11))
    assert labels.tolist() == split.train.labels.tolist()
    np.testing.assert_array_equal(images[4], pictures.solid(pictures.COLOURS["green"], 1))


def test_a_file_that_is_left_out_is_listed_once(tmp_path):
    files = pictures.tree() | {"red/x.png": b"", "blue/y.png": b""}
    split = data.open(pictures.write(tmp_path, files), on_error="skip")
    assert [item.path for half in split for item in half.skipped] == [f"{tmp_path}/blue/y.png", f"{tmp_path}/red/x.png"]


def test_the_way_out_is_named_where_it_is_one(tmp_path):
    files = pictures.splits() | {"train/red/x.png": b""}
    with pytest.raises(data.DamagedFiles, match=r'1 of 13 .*on_error="skip" goes on without them') as error:
        data.open(pictures.write(tmp_path / "one", files))
    assert "(--skip-damaged goes on without them)" in str(error.value.advising("--skip-damaged"))
    for on_error in ("raise", "skip"):
        with pytest.raises(data.DamagedFiles, match="12 of 12 files cannot be read") as error:
            data.open(pictures.write(tmp_path / "all", dict.fromkeys(pictures.splits(), b"")), on_error=on_error)
        assert "without them" not in str(error.value.advising("--skip-damaged"))


def test_damage_in_a_large_set_shows_when_its_batch_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 100)
    split = data.open(pictures.write(tmp_path, _damaged()))
    split.train.batch([0, 1, 2, 3])
    with pytest.raises(zfcuda.DataError, match=r"green.0\.png: cannot be read as an image"):
        split.train.batch([3, 4])


def test_images_can_be_decoded_when_they_are_looked_at(tmp_path):
    pictures.write(tmp_path, pictures.splits())
    now, later = data.open(tmp_path), data.open(tmp_path, in_memory=False)
    for first, second in zip(now, later, strict=True):
        assert isinstance(second, folders.FolderDataset)
        for one, other in zip(first.batch(range(len(first))), second.batch(range(len(second))), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    pictures.write(tmp_path, pictures.splits())
    (tmp_path / "train/red/3.png").unlink()
    (tmp_path / "train/red/3.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(zfcuda.DataError, match=r"red.3\.png: cannot be read"):
        data.open(tmp_path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    files = pictures.splits() | {"train/red/bomb.png": pictures.png(np.zeros((40, 40), np.uint8))}
    with pytest.raises(zfcuda.DataError, match=r"bomb\.png: .*more than Pillow's limit of 1000"), pytest.warns():
        data.open(pictures.write(tmp_path, files))


def test_no_image_at_all_can_be_read(tmp_path):
    pictures.write(tmp_path, {"a/x.png": b"1", "b/x.png": b"2"})
    with pytest.raises(zfcuda.DataError, match="2 of 2 files cannot be read"):
        data.open(tmp_path, on_error="skip")


def test_a_class_of_which_nothing_can_be_read(tmp_path):
    files = pictures.splits() | {f"train/red/{i}.png": b"broken" for i in range(4)}
    with pytest.raises(zfcuda.DataError, match="no image of the class red can be read"):
        data.open(pictures.write(tmp_path, files), on_error="skip")


def test_on_error_is_checked(tmp_path):
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        data.open(pictures.write(tmp_path, pictures.splits()), on_error="ignore")


@pytest.mark.parametrize("half", ["train", "test"])
def test_an_empty_class_folder(tmp_path, half):
    pictures.write(tmp_path, pictures.splits())
    (tmp_path / half / "empty").mkdir()
    (tmp_path / "train" / "empty").mkdir(exist_ok=True)
    if half == "test":
        (tmp_path / "train/empty/1.png").write_bytes(pictures.png(pictures.solid((1, 2, 3), 0)))
    with pytest.raises(zfcuda.DataError, match=f"{half}.empty: the class folder is empty"):
        data.open(tmp_path)


def test_no_class_folders(tmp_path):
    pictures.write(tmp_path, {"1.png": pictures.png(pictures.solid((1, 2, 3), 0))})
    with pytest.raises(zfcuda.DataError, match="has no class folders; expected one folder per class"):
        data.open(tmp_path)


def test_no_files(tmp_path):
    (tmp_path / "red").mkdir()
    with pytest.raises(zfcuda.DataError, match="holds no files"):
        data.open(tmp_path)


def test_one_class(tmp_path):
    pictures.write(tmp_path, pictures.tree({"red": 3}))
    with pytest.raises(zfcuda.DataError, match="has one class folder, red; two are needed"):
        data.open(tmp_path)


def test_a_test_class_that_training_lacks(tmp_path):
    files = pictures.splits() | {"test/violet/1.png": pictures.png(pictures.solid((9, 0, 9), 0))}
    with pytest.raises(zfcuda.DataError, match=r"test: has classes that .*train lacks: violet"):
        data.open(pictures.write(tmp_path, files))


def test_no_class_with_two_images(tmp_path):
    pictures.write(tmp_path, pictures.tree({"blue": 1, "red": 1}))
    with pytest.raises(zfcuda.DataError, match="no class with two images"):
        data.open(tmp_path)


# ---- What is wrong with an archive ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "plain", "gz", "xz", "bz2"])
def test_an_archive_cut_short(tmp_path, kind):
    path = _packed(tmp_path, kind, pictures.splits())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(zfcuda.DataError, match=r"set\."):
        data.open(path)


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "set.zip"
    path.write_bytes(b"hello")
    with pytest.raises(zfcuda.DataError, match="neither a folder nor a zip or tar archive"):
        data.open(path)


def test_a_compressed_tar_too_large_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("zfcuda.data.files.STREAMED_LIMIT", 500)
    with pytest.raises(zfcuda.DataError, match="unpack it, or use a zip"):
        data.open(pictures.write_tar(tmp_path / "a.tar.gz", pictures.splits(), "gz"))


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    path = pictures.write_zip(tmp_path / "a.zip", pictures.splits())
    content = bytearray(path.read_bytes())
    start = content.index(b"train/red/2.png") + len("train/red/2.png")
    content[start + 5 : start + 15] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(zfcuda.DataError, match=r"train/red/2\.png"):
        data.open(path)
