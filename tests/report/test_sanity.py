"""zfcuda/report/sections/sanity.py: the maps of an image, a column for each net."""

import io
import itertools

import numpy as np
import pytest

from zfcuda.analysis.sanity import METHODS, Sanity
from zfcuda.report.sections.sanity import _grid


@pytest.mark.parametrize(
    "names", [("fc8", "conv1"), tuple(f"layer2.{n}.downsample.0" for n in range(9)), ("fc", "a" * 30)]
)
def test_names_above_the_tiles_can_be_read(names):
    rng = np.random.default_rng(0)
    maps = {method: [rng.standard_normal((len(names) + 1, 20, 30, 3))] for method in METHODS}
    windows = np.array([[0, 0, 20, 30]])
    one = np.zeros(1, np.int64)
    figure = _grid(Sanity("l", one, windows, one, names, 0, {}, maps), 0, None)
    figure.savefig(io.BytesIO())
    (axis,) = figure.axes
    labels = axis.get_xticklabels()
    assert [label.get_text() for label in labels] == ["as learned", *names]
    for label in labels:
        box = label.get_window_extent()
        assert box.y1 <= figure.bbox.height
        assert box.x1 <= figure.bbox.width
    for one, other in itertools.pairwise(labels):
        # Beside each other, or slanted and so apart by more than their height.
        apart = other.get_window_extent().x0 - one.get_window_extent().x0
        assert one.get_window_extent().x1 <= other.get_window_extent().x0 or (
            one.get_rotation() == 30 and apart * np.sin(np.radians(30)) > 1.2 * one.get_fontsize() * figure.dpi / 72
        )
