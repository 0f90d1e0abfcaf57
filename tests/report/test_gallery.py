import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from zfcuda.report import Gallery, Shown, weight_tiles

from .fakes import make_shown, make_visualization


def picture(uri):
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_patches_are_what_the_frames_cut_out():
    view, shown = make_visualization(), make_shown()
    gallery = Gallery(view, shown)
    mosaic = picture(gallery.maps[1].patches)
    assert mosaic.shape == (17, 17, 3)
    rank = 5  # row 1, column 2
    tile = mosaic[6:11, 12:17]
    top, left, height, width = view.frames[1, rank]
    image = np.pad(shown[int(view.indices[1, rank])].picture, ((8, 8), (8, 8), (0, 0)), constant_values=128)
    assert (tile == image[top + 8 : top + 8 + height, left + 8 : left + 8 + width]).all()


def test_cards_count_classes_and_can_be_found():
    view = make_visualization(maps=1)
    shown = {i: Shown(np.zeros((16, 16, 3), np.uint8), "x", "cat" if i % 3 else "dog") for i in range(20)}
    card = Gallery(view, shown).maps[0]
    cats = sum(i % 3 != 0 for i in view.indices[0].tolist())
    assert f"cat {cats}" in card.summary
    assert card.find.split()[:3] == ["pool1", "map", "0"]
    assert {"cat", "dog"} & set(card.find.split())


@pytest.mark.parametrize("k", [1, 4, 9])
def test_grids_are_square_for_any_number_of_winners(k):
    gallery = Gallery(make_visualization(k=k), make_shown())
    side = round(k**0.5)
    assert picture(gallery.maps[0].projections).shape[:2] == (side * 6 - 1, side * 6 - 1)
    assert gallery.data()["maps"][0]["columns"] == side


def test_large_pictures_are_embedded_small():
    rng = np.random.default_rng(0)
    shown = {i: Shown(rng.integers(0, 256, (300, 300, 3), np.uint8), "x", "") for i in range(20)}
    view = make_visualization(maps=1, size=200)
    view.frames[..., :2] = 0
    gallery = Gallery(view, shown)
    assert max(picture(gallery.maps[0].projections).shape) <= 244
    image = next(iter(gallery.data()["images"].values()))
    assert image["size"] == [300, 300]
    assert max(picture(image["uri"]).shape) <= 128
    assert not gallery.pixels


@pytest.mark.parametrize("size", [32, 33, 75, 81, 163])
def test_a_hundred_maps_of_nine_winners_fit_a_page(size):
    """Under 15 MB, also where all is noise."""
    rng = np.random.default_rng(0)
    shown = {i: Shown(rng.integers(0, 256, (224, 224, 3), np.uint8), "x", "") for i in range(20)}
    view = make_visualization(maps=2, size=size)
    view.frames[..., :2] = 0
    gallery = Gallery(view, shown)
    tiles = sum(len(card.projections) + len(card.patches) for card in gallery.maps)
    images = sum(len(image["uri"]) for image in gallery.data()["images"].values())
    assert 50 * tiles + 45 * images < 15e6  # two maps and twenty images stand for a hundred and nine hundred


def test_filters_are_shown_strongest_first():
    weight = np.zeros((4, 2, 2, 1), np.float32)
    for i, strength in enumerate((1, 4, 2, 3)):
        weight[i, i // 2, i % 2] = strength
    tiles = weight_tiles(weight, columns=4)
    places = [np.argwhere(tiles[:, 3 * c : 3 * c + 2, 0] == 255)[0].tolist() for c in range(4)]
    assert places == [[0, 1], [1, 1], [1, 0], [0, 0]]
