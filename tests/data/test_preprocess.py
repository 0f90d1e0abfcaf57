"""From images to inputs: mean, crops, scale."""

import numpy as np
import pytest

from zfcuda import data


def _images(n=3, size=(7, 9), channels=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), dtype=np.uint8)


def _mean(images):
    return images.mean(axis=0).astype(np.float32)


def _crop(images, mean, top, left, size, flip):
    x = (images.astype(np.float32) - mean)[:, top : top + size[0], left : left + size[1]]
    return x[:, :, ::-1] if flip else x


def test_centre_crop_subtracts_the_mean_and_scales():
    images = _images()
    preprocess = data.Preprocess(_mean(images), crop=(4, 6), scale=0.5)
    x = preprocess(images)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, 0.5 * _crop(images, preprocess.mean, 1, 1, (4, 6), False))
    assert preprocess.image_shape == (7, 9, 2)


def test_the_ten_crops_are_corners_and_centre_with_and_without_a_flip():
    images = _images()
    preprocess = data.Preprocess(_mean(images), crop=(4, 6))
    crops = preprocess.ten_crops(images)
    assert crops.shape == (10, 3, 4, 6, 2)
    corners = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    expected = [
        _crop(images, preprocess.mean, top, left, (4, 6), flip) for flip in (False, True) for top, left in corners
    ]
    np.testing.assert_array_equal(crops, np.stack(expected))
    np.testing.assert_array_equal(preprocess.ten_crops(images, flip=False), np.stack(expected[:5]))


def test_ten_crops_of_256_for_224():
    preprocess = data.Preprocess(np.zeros((256, 256, 3), np.float32), crop=(224, 224))
    assert preprocess.test_corners.tolist() == [[0, 0], [0, 32], [32, 0], [32, 32], [16, 16]]


def test_crops_beyond_the_edge_read_zero():
    images = _images()
    preprocess = data.Preprocess(_mean(images), crop=(7, 9), scale=2.0)
    x = preprocess.crops(images, np.array([(-1, 2), (0, 0), (3, -4)]), np.array([False, True, False]))
    centred = 2 * (images - preprocess.mean)
    np.testing.assert_array_equal(x[0, 0], 0)
    np.testing.assert_array_equal(x[0, :, 7:], 0)
    np.testing.assert_array_equal(x[0, 1:, :7], centred[0, :6, 2:])
    np.testing.assert_array_equal(x[1], centred[1, :, ::-1])
    np.testing.assert_array_equal(x[2, :4, 4:], centred[2, 3:, :5])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mean": np.zeros((4, 4, 1))}, TypeError, "mean must be float32, got float64"),
        ({"mean": np.full((4, 4, 1), np.nan, np.float32)}, ValueError, "mean must be .* finite"),
        ({"crop": (5, 4)}, ValueError, "crop must fit into the images"),
        ({"crop": (0, 4)}, ValueError, "crop must fit into the images"),
        ({"scale": 0.0}, ValueError, "scale must be positive and finite, got 0"),
        ({"scale": float("inf")}, ValueError, "scale must be positive and finite, got inf"),
        ({"scale": (1.0, 0.0)}, ValueError, r"scale must be positive and finite, got \(1.0, 0.0\)"),
        ({"scale": (1.0, 2.0)}, ValueError, "scale must be a factor for each of 1 channels"),
    ],
)
def test_bad_preprocessing_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        data.Preprocess(**({"mean": np.zeros((4, 4, 1), np.float32), "crop": (4, 4)} | arguments))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_in_the_terms_of_other_libraries(channels):
    mean, std = np.linspace(0.4, 0.5, channels), np.linspace(0.2, 0.3, channels)
    preprocess = data.Preprocess.by_channel((4, 6), channels=channels, resize=5, mean=mean, std=std)
    assert preprocess.image_shape == (5, 8, channels)
    images = _images(size=(5, 8), channels=channels)
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(preprocess(images), expected[:, 0:4, 1:7], rtol=1e-4, atol=1e-5)
    plain = data.Preprocess.by_channel((5, 8), channels=channels, scale=1.0, mean=100.0)
    np.testing.assert_allclose(plain(images), images - 100.0)


def test_imagenet():
    preprocess = data.Preprocess.by_channel((224, 224), resize=256, **data.IMAGENET)
    assert preprocess.image_shape == (256, 256, 3)
    grey = preprocess(np.full((1, 256, 256, 3), 128, np.uint8))
    np.testing.assert_allclose(grey[0, 0, 0], [0.0741, 0.2052, 0.4265], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": (0, 4)}, r"crop must be at least 1, got \(0, 4\)"),
        ({"channels": 0}, "channels must be positive, got 0"),
        ({"resize": 3}, "resize must be at least the crop's smaller side, 4, got 3"),
        ({"scale": 0.0}, "scale must be positive and finite, got 0.0"),
        ({"mean": (1.0, 2.0)}, "mean must be one finite number, or one for each of 3 channels"),
        ({"mean": float("nan")}, "mean must be one finite number"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
    ],
)
def test_bad_terms_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.Preprocess.by_channel(**({"crop": (4, 4)} | arguments))


def test_a_square_crop():
    square = data.Preprocess.by_channel(4, resize=6)
    assert (square.crop, square.image_shape) == ((4, 4), (6, 6, 3))
    with pytest.raises(TypeError, match=r"crop must be an int or \(height, width\), got 4.5"):
        data.Preprocess.by_channel(4.5)


def test_images_of_another_shape_are_refused():
    preprocess = data.Preprocess(np.zeros((4, 4, 1), np.float32), crop=(4, 4))
    for look in (preprocess, preprocess.ten_crops):
        with pytest.raises(ValueError, match=r"images must be 4 x 4 x 1, as the network takes them, got 7 x 9 x 2"):
            look(_images())


def test_mean_image_and_unit_scale():
    images = _images(n=1100, channels=3)
    dataset = data.ArrayDataset(images, np.zeros(1100, np.int32), ("a", "b"))
    mean = data.mean_image(dataset)
    np.testing.assert_allclose(mean, images.mean(axis=0, dtype=np.float64), rtol=1e-6)
    preprocess = data.Preprocess(mean, crop=(7, 9), scale=data.unit_scale(dataset, mean))
    assert np.sqrt(np.square(preprocess(images)).mean()) == pytest.approx(1, rel=1e-5)


def test_unit_scale_of_equal_images():
    images = np.full((5, 3, 3, 1), 9, np.uint8)
    dataset = data.ArrayDataset(images, np.zeros(5, np.int32), ("a", "b"))
    assert data.unit_scale(dataset, data.mean_image(dataset)) == 1.0


# ---- Augmentation ---------------------------------------------------------------------------------------------


def test_an_augmentation_says_what_it_does():
    assert str(data.Augmentation()) == "crops of the corners and the centre, every other image mirrored"
    assert str(data.Augmentation(1, flip=False)) == "shifts by up to 1 pixel, none mirrored"
    assert str(data.Augmentation(2)) == "shifts by up to 2 pixels, every other image mirrored"
    assert str(data.Augmentation(0, flip=False)) == "no shifts, none mirrored"
    assert str(data.Augmentation((0, 11), flip=False)) == "shifts by up to 11 across, none mirrored"
    assert str(data.Augmentation((3, 11))) == "shifts by up to 3 down and 11 across, every other image mirrored"
    assert str(data.Augmentation((2, 2), flip=False)) == "shifts by up to 2 pixels, none mirrored"
    assert str(data.Augmentation((0, 0), flip=False)) == "no shifts, none mirrored"
    assert data.Augmentation([0, 11]) == data.Augmentation((0, 11))  # as JSON has it


@pytest.mark.parametrize(("crop", "padding"), [((32, 48), 2), ((28, 28), None)])
def test_images_are_mirrored_only_where_left_and_right_mean_nothing(crop, padding):
    preprocess = data.Preprocess(np.zeros((32, 48, 1), np.float32), crop)
    for flip in (True, False):
        augmentation = data.Augmentation.for_images(preprocess, flip=flip)
        assert augmentation == data.Augmentation(padding, flip)
        corners, flips = augmentation.draw(np.random.default_rng(0), 400, preprocess)
        assert (100 < flips.sum() < 300) if flip else not flips.any()
        assert corners.shape == (400, 2)


@pytest.mark.parametrize(("padding", "error"), [(-1, ValueError), ((0, -1), ValueError), ((1, 2, 3), TypeError)])
def test_paddings_that_are_none(padding, error):
    with pytest.raises(error, match="padding must"):
        data.Augmentation(padding)


def test_signals_are_shifted_in_time_and_not_mirrored():
    preprocess = data.Preprocess.by_channel((1, 40), channels=2)
    augmentation = data.Augmentation.for_images(preprocess)
    assert augmentation == data.Augmentation((0, 2), flip=False)
    corners, flips = augmentation.draw(np.random.default_rng(0), 400, preprocess)
    assert not flips.any()
    assert not corners[:, 0].any()
    assert set(corners[:, 1].tolist()) == {-2, -1, 0, 1, 2}
    signals = np.random.default_rng(1).integers(0, 256, (400, 1, 40, 2), np.uint8)
    x = preprocess.crops(signals, corners, flips)
    for one, signal, (_, shift) in zip(x[:9], signals, corners, strict=False):
        padded = np.pad(signal[0] / 255, ((2, 2), (0, 0)))
        np.testing.assert_allclose(one[0], padded[2 + shift : 42 + shift], atol=1e-6)
    shorter = data.Preprocess(np.zeros((1, 48, 2), np.float32), (1, 40))
    assert data.Augmentation.for_images(shorter) == data.Augmentation(None, flip=False)
    assert data.Augmentation.for_images(data.Preprocess.by_channel((2, 40), channels=2)).flip


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_become_the_images_that_they_were_made_of(channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 9, 12, channels), np.uint8)
    deviations = rng.uniform(0.1, 1, channels)
    by_channel = data.Preprocess.by_channel((6, 8), channels=channels, resize=9, mean=[0.4] * channels, std=deviations)
    by_pixel = data.Preprocess(rng.uniform(0, 255, (9, 12, channels)).astype(np.float32), (6, 8), 0.02)
    for preprocess in (by_channel, by_pixel):
        inputs = np.asarray(preprocess(images))
        np.testing.assert_array_equal(preprocess.images_of(inputs), images[:, 1:7, 2:10])
        assert preprocess.images_of(inputs * 1000).max() == 255


def test_a_digest_is_of_every_number():
    mean = np.random.default_rng(1).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    preprocess = data.Preprocess(mean, (60, 60), 0.5)
    assert preprocess.digest == data.Preprocess(np.asfortranarray(mean), (60, 60), 0.5).digest
    other = mean.copy()
    other[32, 31, 1] += 1
    different = [
        data.Preprocess(other, (60, 60), 0.5),
        data.Preprocess(mean, (60, 59), 0.5),
        data.Preprocess(mean, (60, 60), 0.25),
        data.Preprocess(mean.reshape(32, 128, 3), (30, 60), 0.5),
    ]
    assert len({preprocess.digest, *(one.digest for one in different)}) == 5
