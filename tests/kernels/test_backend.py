"""csrc/kernels/backend.cu, csrc/cpu/backend.cpp: what a backend says of itself; csrc/binding.h: what it is passed."""

import numpy as np
import pytest

from zfcuda import backends


def test_description(device):
    assert backends.get(device.name).module.description()


def test_cuda_says_why_it_cannot_run():
    """Where the CUDA backend is built but cannot run, the reason names a remedy."""
    module = pytest.importorskip("zfcuda._cuda", reason="the CUDA backend is not built", exc_type=ImportError)
    reason = module.unavailable_reason()
    if not reason:
        pytest.skip("the CUDA backend runs here")
    assert any(
        remedy in reason
        for remedy in ("install one that supports CUDA", "update the driver", "check nvidia-smi", "or newer")
    )
    assert backends.status()["cuda"] == f"the CUDA backend cannot run: {reason}"


@pytest.mark.parametrize("name", backends.HOST_BACKENDS)
def test_an_array_is_passed_as_such_or_by_its_address(name):
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    module = backends.get(name).module
    x, y = np.array([-1, 2], np.float32), np.empty(2, np.float32)
    for array in (x, x[1:], x.ctypes.data):
        assert module.address(array) == (array if isinstance(array, int) else array.ctypes.data)
    assert module.address(None) == 0
    module.fp32.relu(2, x, y.ctypes.data, None)
    assert y.tolist() == [0, 2]
    for other in ("x", 1.5, -1, 2**64, [1.0]):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            module.fp32.relu(2, other, y, None)
