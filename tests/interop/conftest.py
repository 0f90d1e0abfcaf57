"""The modules of `modules.py` beside what becomes of them."""

import copy

import pytest


@pytest.fixture(scope="module")
def nets():
    """Each module and the network that it becomes, once."""
    from tests.interop.modules import make  # which needs PyTorch
    from zfcuda.interop import torch as interop

    made = {}

    def of(name):
        if name not in made:
            shape, module = make(name)
            made[name] = module, interop.from_module(module, shape)
        module, net = made[name]
        return copy.deepcopy(module), net

    return of
