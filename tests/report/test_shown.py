"""zfcuda/report/shown.py: what classes are called."""

import numpy as np
import pytest

from zfcuda.data import ArrayDataset
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, FullyConnectedSpec
from zfcuda.report.shown import class_names


@pytest.mark.parametrize(
    ("outputs", "own", "of_data", "names"),
    [
        (3, ("x", "y", "z"), ("a", "b", "c"), ("x", "y", "z")),
        (3, None, ("a", "b", "c"), ("a", "b", "c")),
        (3, None, ("a", "b"), ("class 0", "class 1", "class 2")),
        (3, None, None, ("class 0", "class 1", "class 2")),
        (1, None, ("a", "b", "c"), ("output",)),
        (1, None, ("a",), ("output",)),
        (1, ("cat",), ("a", "b", "c"), ("cat",)),
    ],
)
def test_names_of_data_are_those_of_a_net_that_has_as_many_classes(outputs, own, of_data, names):
    net = Network(Architecture((4, 4, 1), (FullyConnectedSpec("fc1", outputs),)))
    net.classes = own
    dataset = of_data and ArrayDataset(np.zeros((1, 4, 4, 1), np.uint8), np.zeros(1, np.int32), of_data, ["0"])
    assert class_names(net, dataset) == names
