"""What tests of several ranks share."""

import pytest

import zfcuda


@pytest.fixture
def gpus():
    if reason := zfcuda.backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
