"""Parts of the commands that the commands' own tests do not pin down."""

from argparse import Namespace

import numpy as np
import pytest

from zfcuda.commands.common import output
from zfcuda.commands.correspond import _mapped
from zfcuda.data import Preprocess
from zfcuda.data.images import decode
from zfcuda.report.shown import seen


def test_a_directory_for_a_report(tmp_path):
    assert output(Namespace(out=tmp_path / "new" / "deep")).is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="not a directory"):
            output(Namespace(out=path))


def test_boxes_follow_the_images_pixels(tmp_path):
    """A white rectangle in a file is where its mapped box says, in what the network sees."""
    from PIL import Image

    preprocess = Preprocess(np.zeros((60, 60, 3), np.float32), crop=(48, 48))
    for height, width in ((120, 200), (200, 120), (60, 60), (31, 45)):
        box = [height // 3, width // 3, height // 4, width // 5]
        picture = np.zeros((height, width, 3), np.uint8)
        picture[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 255
        path = tmp_path / "x.png"
        Image.fromarray(picture).save(path)
        image = seen(decode(path.read_bytes(), "x", preprocess.image_shape)[None], preprocess)[0]
        window = _mapped("x", box, (height, width), preprocess)
        bright = np.argwhere(image[..., 0] > 127)
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        edges = (window.top, window.left, window.top + window.height, window.left + window.width)
        assert edges == pytest.approx((top, left, bottom, right), abs=1)
