"""The page of transformed images (paper Fig. 5)."""

import numpy as np

from tests.analysis.nets import box_net
from zfcuda.analysis import invariance
from zfcuda.data import Preprocess
from zfcuda.report import Picture
from zfcuda.report.pictures import enlarge
from zfcuda.report.sections.invariance import invariance_section


def test_pictures_are_of_the_images_not_of_what_the_network_computes_on():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8)
    preprocess = Preprocess.by_channel((16, 16), channels=1, mean=0.2, std=0.1)
    inputs = np.asarray(preprocess(images))
    result = invariance(box_net((4, 4, 8, 8)), inputs, [1, 1], amounts={"translation": [0.0]})
    section = invariance_section(result, inputs, (), preprocess)
    (picture,) = (part.picture for part in section.parts if isinstance(part, Picture))
    expected = enlarge(np.repeat(images[0], 3, axis=-1), 64)
    np.testing.assert_array_equal(picture[: len(expected), : expected.shape[1]], expected)
