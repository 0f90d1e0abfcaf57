import numpy as np
import pytest

from tests.accuracy import assert_close
from zfcuda.nn import dense


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [1, 95, 96, 130])
def test_few_rows_and_many(device, rows, relu):
    rng = np.random.default_rng(rows)
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((rows, 2, 3, 4), (7, 24), (7,)))
    expected = x.reshape(rows, -1).astype(np.float64) @ w.T.astype(np.float64) + b
    y = dense.forward(*(device.array(array) for array in (x, w, b)), relu=relu)
    assert_close(device.numpy(y), np.maximum(expected, 0) if relu else expected)
