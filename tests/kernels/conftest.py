import ctypes
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.accuracy import ARITHMETICS
from tests.conftest import activated, parameter
from tests.kernels.plans import force, with_tile
from tests.shapes import CONV_TILES
from zfcuda import backends


@pytest.fixture(params=ARITHMETICS, ids=lambda arithmetic: arithmetic.name)
def arithmetic(request):
    """Each arithmetic of the convolutions."""
    return request.param


@pytest.fixture(params=[parameter("emulated"), parameter("cuda")])
def kernels(request):
    """A backend that has the CUDA kernels."""
    with activated(request.param) as device:
        yield device


@pytest.fixture(autouse=True)
def _guarded(guarded_memory):
    """Kernel tests always run on poisoned, guarded memory."""


@pytest.fixture
def force_plan(monkeypatch):
    """Call it to choose the plans of all convolutions of this test: see `plans.force`."""
    yield lambda choose: force(monkeypatch, choose)
    for name in ("emulated", "cuda"):
        if not backends.status()[name]:
            backends.get(name).module.clear_plans()


@pytest.fixture
def multiprocessors(kernels):
    """No more than a test can fill: the emulated device is given two."""
    if kernels.name != "emulated":
        yield 132  # an H200's
        return
    debug = backends.get("emulated").module.debug
    before = debug.configuration()
    debug.configure(multiprocessors=2)
    yield 2
    debug.configure(**before)


@pytest.fixture
def set_threads():
    """Call it with a number of threads for the CPU's operations."""
    try:
        openmp = ctypes.CDLL("libgomp.so.1")
    except OSError:
        pytest.skip("the OpenMP library is not libgomp")
    before = openmp.omp_get_max_threads()
    yield openmp.omp_set_num_threads
    openmp.omp_set_num_threads(before)


@pytest.fixture(autouse=True)
def _every_tile(request, force_plan):
    """Random cases take turns at the tiles of the convolutions: left to itself, a small problem gets a small tile."""
    if "case" in request.fixturenames:
        _, number = request.node.callspec.params["case"]
        tile = (None, *CONV_TILES)[number % (len(CONV_TILES) + 1)]
        if tile:
            force_plan(with_tile(tile))


def pytest_sessionfinish():
    """Leaves for `test_variants.py` what this process launched, where several share the tests."""
    if (directory := os.environ.get("ZFCUDA_LAUNCHES")) and not backends.status()["emulated"]:
        launches = backends.get("emulated").module.debug.variants()
        Path(directory, f"{os.getpid()}.json").write_text(json.dumps(launches))


def pytest_collection_modifyitems(config, items):
    """With ZFCUDA_EVERY=N, one in N cases of each test is run. The test that looks back on all others runs last."""
    every, number = int(os.environ.get("ZFCUDA_EVERY", 1)), Counter()
    kept, left = [], []
    for item in items:
        (left if number[item.path, item.originalname] % every else kept).append(item)
        number[item.path, item.originalname] += 1
    config.hook.pytest_deselected(items=left)
    items[:] = sorted(kept, key=lambda item: item.path.name == "test_variants.py")
