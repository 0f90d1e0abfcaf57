import pytest

from tests.kernels.arithmetic import ARITHMETICS
from tests.shapes import CONV_TILES


@pytest.fixture(params=ARITHMETICS, ids=lambda arithmetic: arithmetic.name)
def arithmetic(request):
    """Each arithmetic of the convolutions."""
    return request.param


@pytest.fixture(autouse=True)
def _guarded(guarded_memory):
    """Kernel tests always run on poisoned, guarded memory."""


@pytest.fixture(autouse=True)
def _every_tile(request, monkeypatch):
    """Random cases take turns at the tiles of the convolutions: left to itself, a small problem gets a small tile."""
    if "case" in request.fixturenames:
        name, number = request.node.callspec.params["case"]
        tile = (None, *CONV_TILES)[number % (len(CONV_TILES) + 1)]
        if name != "cpu" and tile:
            monkeypatch.setenv("ZFCUDA_CONV_TILE", tile)


def pytest_collection_modifyitems(items):
    """The test that looks back on all others runs last."""
    items.sort(key=lambda item: item.path.name == "test_variants.py")
