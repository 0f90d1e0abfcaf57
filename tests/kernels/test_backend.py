"""csrc/kernels/backend.cu and csrc/cpu/backend.cpp: what a backend says of itself."""

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
