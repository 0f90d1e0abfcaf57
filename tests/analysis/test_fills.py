import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from zfcuda.analysis.fills import FILLS, check_fill, filled

from .nets import noise

SHAPE = (29, 26, 3)


def blurred(image):
    height, width, _ = image.shape
    deviation = (width if height == 1 else min(height, width)) / 22
    for axis in (0, 1):
        image = gaussian_filter1d(
            image.astype(np.float64), deviation, axis, mode="nearest", radius=int(np.ceil(3 * deviation))
        )
    return image


FILLED = {
    0.5: lambda image: np.full_like(image, 0.5),
    "mean": lambda image: np.broadcast_to(image.mean(axis=(0, 1), dtype=np.float64), image.shape),
    "blur": blurred,
    "noise": lambda image: (
        np.random.default_rng(7).standard_normal(image.shape) * image.astype(np.float64).std(axis=(0, 1))
        + image.mean(axis=(0, 1), dtype=np.float64)
    ),
}


@pytest.mark.parametrize("fill", FILLED)
@pytest.mark.parametrize("shape", [SHAPE, (4, 41, 1), (1, 70, 2), (1, 1, 3)])
def test_every_fill(fill, shape):
    image = 1 + 2 * noise(shape)
    before = image.copy()
    found = filled(image, fill, seed=7)
    assert found.dtype == np.float32
    assert found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found, FILLED[fill](image), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_there_is_one_of_each():
    assert set(FILLS) == {name for name in FILLED if isinstance(name, str)}


def test_noise_is_like_the_image_and_as_the_seed_says():
    image = np.array([3.0, -1.0, 0.5], np.float32) + noise((200, 180, 3)) * np.array([1.0, 0.1, 0.0], np.float32)
    found = filled(image, "noise", seed=3)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), [3, -1, 0.5], atol=0.02)
    np.testing.assert_allclose(found.std(axis=(0, 1)), [1, 0.1, 0], atol=0.01)
    np.testing.assert_array_equal(filled(image, "noise", seed=3), found)
    assert (filled(image, "noise", seed=4)[..., 0] != found[..., 0]).mean() > 0.99
    one, other = ((found - found.mean(axis=(0, 1)))[..., channel].ravel() for channel in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03  # a draw for each channel


@pytest.mark.parametrize("fill", [0, 1.5, np.float32(0.25), np.int64(-2), *FILLS])
def test_what_is_a_fill(fill):
    assert check_fill(fill) == fill
    assert type(check_fill(fill)) in (float, str)


@pytest.mark.parametrize(
    ("fill", "error", "message"),
    [
        ("grey", ValueError, "fill must be a number or one of mean, blur, noise; got 'grey'"),
        (np.nan, ValueError, "fill must be finite, got nan"),
        (-np.inf, ValueError, "fill must be finite, got -inf"),
        (None, TypeError, "fill must be a number or one of mean, blur, noise; got NoneType"),
        ([0.5, 0.5, 0.5], TypeError, "fill must be a number or one of mean, blur, noise; got list"),
    ],
)
def test_what_is_none(fill, error, message):
    with pytest.raises(error, match=message):
        check_fill(fill)
