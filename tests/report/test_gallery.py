import dataclasses
import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from zfcuda.analysis.figures import full_swing
from zfcuda.analysis.results import to_plain
from zfcuda.report import Gallery, Report, Section, Shown, weight_tiles

from .fakes import make_shown, make_visualization


def picture(uri):
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_patches_are_what_the_frames_cut_out():
    view, shown = make_visualization(), make_shown()
    mosaic = picture(Gallery(view, shown).shown()["maps"][1]["patches"])
    assert mosaic.shape == (17, 17, 3)
    rank = 5  # row 1, column 2
    tile = mosaic[6:11, 12:17]
    top, left, height, width = view.frames[1, rank]
    image = np.pad(shown[int(view.indices[1, rank])].picture, ((8, 8), (8, 8), (0, 0)), constant_values=128)
    assert (tile == image[top + 8 : top + 8 + height, left + 8 : left + 8 + width]).all()


def test_winners_say_what_their_projection_is_drawn_to():
    view, shown = make_visualization(), make_shown()
    gallery = Gallery(view, shown)
    gallery.add(Gallery(dataclasses.replace(view, projections=1000 * view.projections), shown))
    maps = gallery.shown()["data"]["maps"]
    for of_map, projections in zip(maps, [*view.projections, *(1000 * view.projections)], strict=True):
        assert of_map["swings"] == pytest.approx(list(map(full_swing, projections)), rel=0.06)


def test_cards_count_classes_and_can_be_found():
    view = make_visualization(maps=1)
    shown = {i: Shown(np.zeros((16, 16, 3), np.uint8), "x", "cat" if i % 3 else "dog") for i in range(20)}
    card = Gallery(view, shown).shown()["maps"][0]
    cats = sum(i % 3 != 0 for i in view.indices[0].tolist())
    assert f"cat {cats}" in card["summary"]
    assert card["find"].split()[:3] == ["pool1", "map", "0"]
    assert {"cat", "dog"} & set(card["find"].split())


@pytest.mark.parametrize("k", [1, 4, 9])
def test_grids_are_square_for_any_number_of_winners(k):
    gallery = Gallery(make_visualization(k=k), make_shown()).shown()
    side = round(k**0.5)
    assert picture(gallery["maps"][0]["projections"]).shape[:2] == (side * 6 - 1, side * 6 - 1)
    assert gallery["data"]["maps"][0]["columns"] == side


def test_large_pictures_are_embedded_small():
    rng = np.random.default_rng(0)
    shown = {i: Shown(rng.integers(0, 256, (300, 300, 3), np.uint8), "x", "") for i in range(20)}
    view = make_visualization(maps=1, size=200)
    view.frames[..., :2] = 0
    gallery = Gallery(view, shown).shown()
    assert max(picture(gallery["maps"][0]["projections"]).shape) == 3 * 112 + 2
    image = next(iter(gallery["data"]["images"].values()))
    assert image["size"] == [300, 300]
    assert max(picture(image["uri"]).shape) <= 128
    assert not gallery["pixels"]


def noise_gallery(maps, size, side=224):
    """As many maps as given of nine winners each, all in images of their own, all noise: nothing compresses less."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, side, side, 3), np.uint8)
    view = make_visualization(maps=maps, size=size)
    view.indices[...] = np.arange(maps * 9).reshape(maps, 9)
    view.frames[..., :2] = rng.integers(0, side - size + 1, (maps, 9, 2))
    shown = {i: Shown(noise[i % 4], f"class/{i:05d}.jpg", "class") for i in range(maps * 9)}
    return Gallery(view, shown)


@pytest.mark.parametrize(("maps", "size"), [(100, 11), (100, 32), (100, 75), (384, 32)])
def test_a_page_of_a_gallery_is_below_15_mb(maps, size):
    report = Report("Maps", sections=[Section("Maps", [noise_gallery(maps, size)])])
    assert len(report.html().encode()) < 15e6


def test_few_maps_are_shown_larger_than_many():
    longest = lambda maps: max(picture(noise_gallery(maps, 75, 75).shown()["maps"][0]["patches"]).shape)  # noqa: E731
    assert longest(4) == 3 * 75 + 2
    assert longest(100) == 3 * 70 + 2


def test_maps_come_in_groups():
    """One gallery of two visualisations is one of both."""
    whole, shown = make_visualization(maps=4), make_shown()
    of = lambda rows: dataclasses.replace(  # noqa: E731
        whole, **{name: value[rows] for name, value in vars(whole).items() if name != "layer"}
    )
    gallery = Gallery(of(slice(3)), shown)
    gallery.add(Gallery(of(slice(3, 4)), shown))
    assert gallery.shown() == Gallery(whole, shown).shown()
    assert to_plain(gallery.numbers()) == to_plain(whole.numbers())


def test_filters_are_shown_strongest_first():
    weight = np.zeros((4, 2, 2, 1), np.float32)
    for i, strength in enumerate((1, 4, 2, 3)):
        weight[i, i // 2, i % 2] = strength
    tiles = weight_tiles(weight, columns=4)
    places = [np.argwhere(tiles[:, 3 * c : 3 * c + 2, 0] == 255)[0].tolist() for c in range(4)]
    assert places == [[0, 1], [1, 1], [1, 0], [0, 0]]
