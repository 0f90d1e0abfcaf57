"""The one reader of pictures: size, orientation, depth and colours of every kind of file."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

import zfcuda
from zfcuda import data
from zfcuda.data import images

from . import pictures

# ---- Files that Pillow does not write ------------------------------------------------------------------------


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png16(samples: np.ndarray, colour_type: int, *others: bytes) -> bytes:
    """A PNG of 16 bits a sample: (H,W) with type 0, (H,W,2) 4, (H,W,3) 2, (H,W,4) 6."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *others, _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _tiff(samples: bytes, width: int, height: int, order: str = "<", **tags: tuple[int, ...]) -> bytes:
    """An uncompressed TIFF with one strip; tags by their numbers (t258=...), shorts."""
    entries = {256: (width,), 257: (height,), 258: (16,), 259: (1,), 262: (1,), 277: (1,), 278: (height,)}
    entries |= {int(name[1:]): values for name, values in tags.items()} | {273: (0,), 279: (len(samples),)}
    beyond = 8 + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    place = beyond + sum(2 * len(v) for v in entries.values() if len(v) > 2)
    for tag, value in sorted(entries.items()):
        if tag in (273, 279):
            directory += struct.pack(f"{order}HHII", tag, 4, 1, place if tag == 273 else value[0])
        elif len(value) > 2:
            directory += struct.pack(f"{order}HHII", tag, 3, len(value), beyond + len(values))
            values += struct.pack(f"{order}{len(value)}H", *value)
        else:
            directory += struct.pack(f"{order}HHI2H", tag, 3, len(value), *value, *(0,) * (2 - len(value)))
    magic = b"II" if order == "<" else b"MM"
    return magic + struct.pack(f"{order}HI", 42, 8) + directory + bytes(4) + values + samples


def _read(content: bytes, shape: tuple[int, int, int], bits: int = 0) -> np.ndarray:
    return images.decode(content, "x", shape, bits)


def _grey(content: bytes, shape: tuple[int, int]) -> np.ndarray:
    return _read(content, (*shape, 1))[..., 0]


# ---- Orientation --------------------------------------------------------------------------------------------

_UPRIGHT = np.kron(np.array([[250, 20], [120, 60], [180, 90]], np.uint8), np.ones((8, 8), np.uint8))


def _stored(orientation: int) -> np.ndarray:
    """How a camera that was held so stores what a viewer shows as `_UPRIGHT`."""
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](_UPRIGHT))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_are_those_that_a_viewer_shows(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    content = pictures.encode(Image.fromarray(_stored(orientation)), kind, exif=exif, **options)
    path = tmp_path / "x"
    path.write_bytes(content)
    assert data.image_size(path) == (24, 16)
    assert images.peek(content, "x")[:2] == (24, 16)
    image = data.read_image(path, (24, 16, 3))
    assert np.abs(image.astype(int) - _UPRIGHT[..., None]).max() <= 3
    split = data.open(pictures.write(tmp_path / "set", {f"{c}/{i}.x": content for c in "ab" for i in range(2)}))
    np.testing.assert_array_equal(split.train.batch([0])[0][0], image[..., : split.train.image_shape[2]])


def test_an_orientation_behind_the_pixels_of_a_png_and_one_in_xmp_count():
    plain = pictures.png(_stored(6))
    exif = Image.Exif()
    exif[0x0112] = 6
    late = plain[:-12] + _chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    for content in (late, plain[:33] + _chunk(b"iTXt", xmp) + plain[33:]):
        assert images.peek(content, "x")[:2] == (24, 16)
        np.testing.assert_array_equal(_grey(content, (24, 16)), _UPRIGHT)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12"]
)
def test_damaged_exif_data_do_not_make_a_picture_unreadable(exif):
    content = pictures.encode(Image.fromarray(_UPRIGHT), "JPEG", exif=exif, quality=100)
    assert images.peek(content, "x")[:2] == (24, 16)
    assert np.abs(_grey(content, (24, 16)).astype(int) - _UPRIGHT).max() <= 3


def test_a_part_drawn_as_a_viewer_shows_it_is_the_part_that_is_masked(tmp_path):
    from zfcuda.commands.correspond import read_parts

    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(pictures.encode(Image.fromarray(_stored(6)), "JPEG", exif=exif, quality=100))
    box = [0, 8, 8, 8]  # of the dark square above on the right
    (tmp_path / "parts.json").write_text(json.dumps({name: {"part": box} for name in ("a.jpg", "b.jpg")}))
    preprocess = data.Preprocess(np.zeros((24, 16, 1), np.float32), (24, 16))
    paths, parts = read_parts(tmp_path / "parts.json", preprocess)
    window, image = parts["part"][0], data.read_image(paths[0], (24, 16, 1))[..., 0]
    inside = image[window.top : window.top + window.height, window.left : window.left + window.width]
    assert inside.shape == (8, 8)
    assert np.abs(inside.astype(int) - 20).max() <= 3


# ---- Depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "32-bit tiff", "colour png", "colour tiff"])
def test_samples_of_few_bits_in_16_keep_their_256_levels(kind, bits):
    ramp = (np.arange(256) << (bits - 8)).astype(np.uint16).reshape(16, 16)
    ramp[-1, -1] = 2**bits - 1
    colours = np.repeat(ramp[..., None], 3, axis=2)
    content = {
        "png": lambda: pictures.png(ramp),
        "tiff": lambda: _tiff(ramp.tobytes(), 16, 16),
        "big-endian tiff": lambda: _tiff(ramp.astype(">u2").tobytes(), 16, 16, ">"),
        "32-bit tiff": lambda: pictures.encode(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
        "colour png": lambda: _png16(colours, 2),
        "colour tiff": lambda: _tiff(colours.tobytes(), 16, 16, t258=(16, 16, 16), t262=(2,), t277=(3,)),
    }[kind]()
    channels = 3 if "colour" in kind else 1
    expected = np.arange(256).reshape(16, 16, 1).repeat(channels, axis=2)
    assert images.peek(content, "x") == (16, 16, channels, bits)
    np.testing.assert_array_equal(_read(content, (16, 16, channels)), expected)
    # In a set whose brightest picture needs more bits.
    np.testing.assert_array_equal(_read(content, (16, 16, channels), 16), expected >> (16 - bits))


def test_a_file_that_says_where_white_is_is_believed():
    dark = np.full((4, 4), 100, np.uint16)
    twelve = bytes.fromhex("064064" * 2) * 4  # 100 and 100 in 12 bits each
    pgm = b"P5 4 4 4095\n" + dark.astype(">u2").tobytes()
    floats = pictures.encode(Image.fromarray(np.full((4, 4), 100 / 4095, np.float32)), "TIFF")
    for content in (_tiff(twelve, 4, 4, t258=(12,)), _tiff(dark.tobytes(), 4, 4, t281=(4095,)), pgm, floats):
        assert images.peek(content, "x") == (4, 4, 1, 0)
        assert np.unique(_grey(content, (4, 4))).tolist() == [100 >> 4]
    # One that says what everybody says has said nothing.
    assert np.unique(_grey(_tiff(dark.tobytes(), 4, 4, t281=(65535,)), (4, 4))).tolist() == [100]


def test_greys_of_which_the_lowest_is_white():
    ramp = (np.arange(256) << 4).astype(np.uint16).reshape(16, 16)
    ramp[-1, -1] = 4095
    np.testing.assert_array_equal(_grey(_tiff(ramp.tobytes(), 16, 16, t262=(0,)), (16, 16)), 255 - (ramp >> 4))


def test_a_set_has_one_depth(tmp_path):
    """What is dark in a set stays dark, whatever its own brightest pixel."""
    files = {f"dark/{i}.png": pictures.png(np.full((4, 4), 16 * i + 16, np.uint16)) for i in range(4)}
    files |= {f"bright/{i}.png": pictures.png(np.full((4, 4), 4095 - 16 * i, np.uint16)) for i in range(4)}
    for in_memory in (True, False):
        train = data.open(pictures.write(tmp_path, files), in_memory=in_memory, hold_out=0.3).train
        batch, labels = train.batch(range(len(train)))
        assert batch[labels == 0].min() >= 252
        assert batch[labels == 1].max() <= 4


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([[-1, 5]], np.int32), r"must lie in 0\.\.65535, got -1 to 5"),
        (np.array([[0, 65536]], np.int32), r"must lie in 0\.\.65535, got 0 to 65536"),
        (np.array([[0, 2.5]], np.float32), r"must lie in 0\.\.1, got 0 to 2\.5"),
        (np.array([[-0.5, 1]], np.float32), r"must lie in 0\.\.1, got -0\.5 to 1"),
        (np.array([[0, np.nan]], np.float32), r"must lie in 0\.\.1, got nan"),
        (np.array([[0, np.inf]], np.float32), r"must lie in 0\.\.1, got 0 to inf"),
    ],
)
def test_samples_without_a_known_range_are_refused(samples, message):
    content = pictures.encode(Image.fromarray(samples), "TIFF")
    with pytest.raises(zfcuda.DataError, match=f"x: cannot be read as an image .*{message}"):
        _read(content, (1, 2, 1))


def test_floating_point_pictures_from_black_to_white():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.abs(_grey(pictures.encode(Image.fromarray(ramp), "TIFF"), (16, 16)) - 255 * ramp).max() <= 1


# ---- Colours and transparency ---------------------------------------------------------------------------------


def _colour(image: Image.Image, kind: str = "PNG", **options) -> list[int]:
    pixels = _read(pictures.encode(image, kind, **options), (8, 8, 3)).reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return pixels[0].tolist()


def test_what_is_transparent_lies_on_white():
    assert _colour(Image.new("RGBA", (8, 8), (200, 0, 0, 0))) == [255, 255, 255]
    assert _colour(Image.new("LA", (8, 8), (0, 51))) == [204, 204, 204]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert _colour(palette) == [10, 20, 30]
    assert _colour(palette, transparency=1) == [255, 255, 255]
    assert _colour(palette, transparency=bytes([255, 51])) == [206, 208, 210]
    assert _colour(palette, "GIF", transparency=1) == [255, 255, 255]
    assert _colour(Image.new("L", (8, 8), 7), transparency=7) == [255, 255, 255]
    assert _colour(Image.new("1", (8, 8), 0), transparency=0) == [255, 255, 255]
    assert _colour(Image.new("RGB", (8, 8), (7, 8, 9)), transparency=(7, 8, 9)) == [255, 255, 255]
    deep = np.full((8, 8), 300, np.uint16)
    clear = _png16(deep, 0, _chunk(b"tRNS", struct.pack(">H", 300)))
    assert np.unique(_grey(clear, (8, 8))).tolist() == [255]


@pytest.mark.parametrize("pixels", [100, 2**22])
def test_large_pictures_are_converted_in_bands(monkeypatch, pixels):
    monkeypatch.setattr(images, "_BAND", pixels)
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (31, 17, 4), dtype=np.uint8)
    alpha = samples[..., 3:].astype(float) / 255
    expected = samples[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(_read(pictures.png(samples), (31, 17, 3)) - expected).max() <= 1
    deep = rng.integers(0, 4096, (31, 17), dtype=np.uint16)
    deep[0, 0] = 4095
    np.testing.assert_array_equal(_grey(pictures.png(deep), (31, 17)), deep >> 4)


def test_dark_pictures_of_16_bits_a_pixel_are_not_of_16_bits_a_colour():
    header = struct.pack("<2sIHHI", b"BM", 54 + 64, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 4, 8, 1, 16, *[0] * 6)
    assert _read(header + struct.pack("<H", 0x0421) * 32, (8, 4, 3))[0, 0].tolist() == [8, 8, 8]


def test_greys_of_few_bits_with_transparency_are_refused():
    samples = np.full((8, 8, 2), 65535, np.uint16)
    assert np.unique(_read(_png16(samples, 4), (8, 8, 3))).tolist() == [255]
    samples[..., 0] = 4095
    with pytest.raises(zfcuda.DataError, match="16 bits, of which not all are used"):
        _read(_png16(samples, 4), (8, 8, 3))


def test_deep_colours_keep_their_transparency():
    samples = np.full((8, 8, 4), 4095, np.uint16)
    samples[..., 1:3] = 0
    samples[..., 3] = 65535
    assert _read(_png16(samples, 6), (8, 8, 3))[0, 0].tolist() == [255, 0, 0]
    samples[..., 3] = 0
    assert _read(_png16(samples, 6), (8, 8, 3))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_greys_of_every_mode_have_one_channel(mode):
    assert images.peek(pictures.encode(Image.new(mode, (8, 8)), "PNG"), "x") == (8, 8, 1, 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_pictures_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    assert _colour(frames[0], kind, save_all=True, append_images=frames[1:], **options) == [255, 0, 0]


def test_cmyk_and_other_spaces_of_colour():
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    for mode, kind in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG")):
        options = {"quality": 100} if kind == "JPEG" else {}
        found = _colour(red.convert(mode), kind, **options)
        assert np.abs(np.subtract(found, [200, 30, 40])).max() <= 3, (mode, kind)


# ---- What cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_pictures_cut_short(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = pictures.encode(Image.fromarray(noise), kind)
    with pytest.raises(zfcuda.DataError, match=r"^x: cannot be read as an image"):
        _read(content[: int(share * len(content))], (64, 64, 3))


def test_pictures_without_pixels_and_pictures_of_too_many():
    for content in (b"P5 0 0 255\n", b"P5 0 7 255\n", _png16(np.zeros((0, 5)), 0), b"GIF89a" + bytes(10)):
        with pytest.raises(zfcuda.DataError, match="cannot be read as an image"):
            images.peek(content, "x")
    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    vast = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"0"))
    with pytest.raises(zfcuda.DataError, match=r"cannot be read as an image .*pixels"):
        images.peek(vast, "x")


def test_programs_are_not_run():
    with pytest.raises(zfcuda.DataError, match="no picture in a format that is read"):
        images.peek(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", "x")


def test_single_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").write_bytes(b"")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    reasons = {
        "fifo": "is a FIFO, not a file",
        ".": "is a folder, not a file",
        "large": "holds 1,099,511,627,776 bytes",
    }
    for name, reason in (reasons | {"empty": "no picture in a format that is read"}).items():
        for read in (data.image_size, lambda path: data.read_image(path, (8, 8, 3))):
            with pytest.raises(zfcuda.DataError, match=reason) as error:
                read(tmp_path / name)
            assert str(error.value).startswith(f"{tmp_path / name}: ")
    with pytest.raises(FileNotFoundError):
        data.image_size(tmp_path / "nowhere")


def test_what_threads_decode_at_a_time_is_bounded(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(images, "_BYTES", 2**20)  # so that a picture of 16 x 16 takes half of what there is
    most = 0
    whole = images._upright

    def watched(image, content):
        nonlocal most
        most = max(most, images._HELD - images._memory._free)
        return whole(image, content)

    monkeypatch.setattr(images, "_upright", watched)
    content = pictures.png(np.zeros((16, 16, 3), np.uint8))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _read(content, (16, 16, 3)), range(40)))
    assert 2**28 <= most <= 2**29
    assert images._memory._free == images._HELD


def test_ordinary_pictures_are_opened_once_to_look_and_once_to_read(tmp_path, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file, *rest: opened.append(1) or real(file, *rest))
    picture = Image.fromarray(pictures.solid((1, 2, 3), 0))
    for kind in ("PNG", "JPEG"):
        files = {f"{label}/{i}": pictures.encode(picture, kind) for label in "ab" for i in range(5)}
        opened.clear()
        data.open(pictures.write(tmp_path / kind, files))
        assert len(opened) == 20
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("a header is enough"))
    images.peek(pictures.encode(picture, "PNG"), "x")
