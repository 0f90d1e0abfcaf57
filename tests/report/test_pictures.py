import io

import numpy as np
import pytest
from PIL import Image

from zfcuda.report import pictures


def test_projection_zero_is_grey_and_scale_is_symmetric():
    picture = pictures.from_projection(np.array([[[-2.0]], [[0.0]], [[1.0]]]))
    assert picture.shape == (3, 1, 3)
    assert picture[:, 0, 0].tolist() == [1, 128, 192]


def test_a_few_strong_pixels_do_not_leave_the_others_grey():
    projection = np.zeros((20, 20, 3), np.float32)
    projection[:10] = np.linspace(-1, 1, 600).reshape(10, 20, 3)
    projection[0, 0, :2] = 100, -100
    picture = pictures.from_projection(projection)
    assert picture[0, 0, :2].tolist() == [255, 0]
    np.testing.assert_allclose(picture[1:10], 128 + 127 * projection[1:10], atol=2)
    assert (picture[10:] == 128).all()


def test_projection_of_nothing_is_grey():
    assert (pictures.from_projection(np.zeros((2, 2, 3))) == 128).all()


def test_projection_with_a_common_scale_clips():
    assert pictures.from_projection(np.array([[[5.0]], [[1.0]]]), scale=2.0)[:, 0, 0].tolist() == [255, 192]


def test_range_is_linear_and_flat_images_are_grey():
    assert pictures.from_range(np.array([[[0.0]], [[1.0]], [[2.0]]]))[:, 0, 1].tolist() == [0, 128, 255]
    assert (pictures.from_range(np.full((2, 2, 1), 7.0)) == 128).all()


def test_uint8_images_pass_unchanged():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (pictures.from_range(image) == image).all()


def test_each_filter_has_its_own_scale():
    weight = np.zeros((2, 2, 1, 1), np.float32)
    weight[:, 0, 0, 0] = [1.0, 100.0]
    first, second = pictures.from_filters(weight)
    assert (first == second).all()
    assert first[0, 0, 0] == 255


@pytest.mark.parametrize("shape", [(2, 3, 3, 2), (3, 3, 3)])
def test_filters_that_have_no_colours_are_refused(shape):
    with pytest.raises(ValueError, match="filters must have shape"):
        pictures.from_filters(np.zeros(shape))


def test_heat_runs_from_dark_to_bright():
    picture = pictures.heat(np.array([[0.0, 0.5, 1.0, np.nan]])).astype(int)
    brightness = picture[0, :3].sum(axis=-1)
    assert (np.diff(brightness) > 0).all()
    assert picture[0, 3].tolist() == [128, 128, 128]


def test_one_row_is_a_strip():
    values = np.random.default_rng(0).random((1, 9))
    picture = pictures.heat(values)
    assert picture.shape == (4, 9, 3)
    assert (picture == pictures.heat(np.repeat(values, 2, axis=0))[0]).all()
    assert pictures.heat(values[:, :1]).shape == (1, 1, 3)
    classes = pictures.from_classes(np.arange(8)[None])
    assert classes.shape == (4, 8, 3)
    assert (classes == classes[0]).all()


def test_heat_of_a_flat_or_empty_map():
    assert np.ptp(pictures.heat(np.full((2, 2), 3.0)), axis=(0, 1)).tolist() == [0, 0, 0]
    assert (pictures.heat(np.full((2, 2), np.nan)) == 128).all()


def test_heat_of_what_hardly_changes_has_no_contrast():
    """Rounding, at full contrast, would look like a finding; a hundredth of the magnitude is one."""
    noise = np.random.default_rng(0).uniform(-1, 1, (9, 9))
    faint, clear = (pictures.heat(0.5 + amount * noise).astype(int) for amount in (1e-6, 0.01))
    assert np.ptp(faint, axis=(0, 1)).max() <= 1
    assert np.ptp(clear.sum(axis=2)) > 350
    assert np.ptp(pictures.heat(1e-9 * (2 + noise)).astype(int).sum(axis=2)) > 350  # small, but not for its size


def test_classes_have_colours_that_differ():
    colors = pictures.from_classes(np.arange(10)[None])[0]
    assert len({tuple(c) for c in colors.tolist()}) == 10


def test_tiles_are_in_reading_order_with_gaps():
    ones = [np.full((2, 2, 3), value, np.uint8) for value in (1, 2, 3)]
    picture = pictures.tile(ones, columns=2, gap=1, color=(9, 9, 9))
    assert picture[..., 0].tolist() == [
        [1, 1, 9, 2, 2],
        [1, 1, 9, 2, 2],
        [9, 9, 9, 9, 9],
        [3, 3, 9, 9, 9],
        [3, 3, 9, 9, 9],
    ]


def test_tiles_of_different_sizes_share_a_cell_size():
    picture = pictures.tile([np.zeros((1, 3, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)], columns=2, gap=0)
    assert picture.shape == (2, 6, 3)


@pytest.mark.parametrize(("arguments", "message"), [(([], 2), "empty"), (([np.zeros((1, 1, 3))], 0), "columns")])
def test_nothing_to_tile(arguments, message):
    with pytest.raises(ValueError, match=message):
        pictures.tile(*arguments)


def test_enlarging_repeats_pixels_by_a_whole_factor():
    picture = pictures.enlarge(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 5)
    assert picture.shape == (6, 6, 3)
    assert (picture[:3, :3] == picture[0, 0]).all()


def test_resizing_repeats_pixels_or_takes_their_means():
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert (pictures.resized(picture, 8, 18) == picture.repeat(2, axis=0).repeat(3, axis=1)).all()
    spot = np.zeros((40, 40, 3), np.uint8)
    spot[20, 20] = 255
    assert pictures.resized(spot, 8, 10).any()


@pytest.mark.parametrize("photo", [False, True])
def test_what_is_encoded_can_be_read(photo):
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    noise = np.random.default_rng(0).integers(0, 40, (64, 64, 1), np.uint8)
    picture = np.clip(ramp.astype(int) + noise, 0, 255).astype(np.uint8)
    media_type, data = pictures.encode(picture, photo)
    assert media_type == ("image/jpeg" if photo else "image/png")
    back = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(back - picture).mean() < (8 if photo else 1e-9)


def test_save_leaves_a_whole_file_alone(tmp_path):
    pictures.save_png(tmp_path / "deep" / "a.png", np.zeros((2, 2, 3), np.uint8), least=10)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
    assert Image.open(tmp_path / "deep" / "a.png").size == (10, 10)


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_what_is_seen_of_other_channels(channels, shown):
    image = np.arange(4 * channels, dtype=np.uint8).reshape(2, 2, channels)
    np.testing.assert_array_equal(pictures.from_range(image), image[..., shown])
    assert pictures.from_projection(image).shape == (2, 2, 3)


def test_shapes_that_are_no_pictures_are_refused():
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        pictures.from_projection(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        pictures.from_range(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="rows, columns"):
        pictures.heat(np.zeros(3))
