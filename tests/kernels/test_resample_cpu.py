"""Pictures in another size: csrc/cpu/resample.cpp, by way of zfcuda/data/scaling.py."""

import functools

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from zfcuda import backends
from zfcuda.data import scaling


def with_pillow(pixels, size):
    """Channel by channel and axis by axis: which comes first is not left to Pillow, whose versions differ in it."""
    (height, width, channels), ratio = pixels.shape, size[1] / size[0]
    covered = (height, ratio * height) if width / height >= ratio else (width / ratio, width)
    top, left = (height - covered[0]) / 2, (width - covered[1]) / 2

    def scale_columns(image):
        box = (left, 0, left + covered[1], image.height)
        return image.resize((size[1], image.height), Image.Resampling.BICUBIC, box)

    def scale_rows(image):
        box = (0, top, image.width, top + covered[0])
        return image.resize((image.width, size[0]), Image.Resampling.BICUBIC, box)

    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., channel])) for channel in range(channels)]
    if height - size[0] > max(0, 2 * (width - size[1])):
        return np.stack([scale_columns(scale_rows(plane)) for plane in planes], axis=-1)
    return np.stack([scale_rows(scale_columns(plane)) for plane in planes], axis=-1)


def made(rng, shape):
    """Noise, of which the extremes overshoot when it is scaled."""
    pixels = rng.integers(0, 256, shape, np.uint8)
    return np.where(rng.random(shape) < 0.5, pixels, 255 * (pixels > 127)).astype(np.uint8)


@pytest.mark.parametrize("number", range(150))
def test_random_sizes(number):
    rng = np.random.default_rng(number)
    shape = tuple(int(side) for side in rng.integers(1, (70, 90, 10)))
    size = tuple(int(side) for side in rng.integers(1, 50, 2))
    pixels = made(rng, shape)
    np.testing.assert_array_equal(scaling.fit(pixels, size), with_pillow(pixels, size))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((375, 500), (256, 256)),
        ((500, 333), (256, 256)),
        ((256, 257), (256, 256)),
        ((224, 224), (256, 256)),
        ((1, 1), (31, 7)),
        ((3, 700), (64, 9)),
        ((90, 1), (5, 64)),
        ((2000, 1999), (3, 5)),
        ((640, 480), (7, 1)),
        ((5, 4), (1, 1)),
        ((97, 131), (97, 131)),
    ],
)
def test_sizes_of_photographs_and_extreme_ones(shape, size, channels):
    pixels = made(np.random.default_rng(channels), (*shape, channels))
    np.testing.assert_array_equal(scaling.fit(pixels, size), with_pillow(pixels, size))


@pytest.mark.parametrize("shape", [(375, 500), (480, 640), (333, 500), (500, 500), (500, 375), (640, 480)])
def test_the_pixels_are_those_of_pillow(shape):
    pixels = made(np.random.default_rng(0), (*shape, 3))
    if shape == (500, 375) and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow's order of the axes is another before 13")
    wanted = ImageOps.fit(Image.fromarray(pixels), (256, 256), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(scaling.fit(pixels, (256, 256)), np.asarray(wanted))


def test_arrays_in_any_order():
    pixels = made(np.random.default_rng(0), (3, 41, 38)).transpose(1, 2, 0)[::-1]
    np.testing.assert_array_equal(scaling.fit(pixels, (20, 30)), with_pillow(pixels, (20, 30)))


def test_windows_outside_of_the_picture_are_refused():
    axis, x, y = scaling._axis(8, 0, 8, 4), np.zeros((8, 8, 1), np.uint8), np.empty((8, 8, 1), np.uint8)
    module = backends.get("cpu").module
    for wrong in (axis.starts - 1, axis.starts + 1):
        for call in (module.scale_rows, functools.partial(module.scale_columns, 8)):
            with pytest.raises(ValueError, match="windows must lie in the picture"):
                call(8, 1, x, *axis.weights.shape, wrong, axis.weights, y)
