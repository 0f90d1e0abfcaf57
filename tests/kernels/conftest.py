import pytest

# Names of the tiles in csrc/kernels/conv_plan.h; None leaves the choice to the plan.
CONV_TILES = (None, "128x128", "128x96", "128x64", "64x32", "256x4", "96x160")


@pytest.fixture(autouse=True)
def _guarded(guarded_memory):
    """Kernel tests always run on poisoned, guarded memory."""


@pytest.fixture(autouse=True)
def _every_tile(request, monkeypatch):
    """Random cases take turns at the tiles of the convolutions: left to itself, a small problem gets a small tile."""
    if "case" in request.fixturenames:
        name, number = request.node.callspec.params["case"]
        tile = CONV_TILES[number % len(CONV_TILES)]
        if name != "cpu" and tile:
            monkeypatch.setenv("ZFCUDA_CONV_TILE", tile)


def pytest_collection_modifyitems(items):
    """The test that looks back on all others runs last."""
    items.sort(key=lambda item: item.path.name == "test_variants.py")
