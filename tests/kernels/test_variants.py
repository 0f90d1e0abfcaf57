"""Every kernel, with every combination of template arguments that a launcher dispatches to, has run in this session,
and every operation on many random shapes.

Where several processes share the tests, each leaves its launches in the folder ZFCUDA_LAUNCHES, and a session of this
file alone looks back on all of them: `tests/simt/run_checks.sh`.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import CASES
from zfcuda import backends, ops

FAMILIES = (
    "activation",
    "avg_pool",
    "batch_norm",
    "block",
    "block_tma",
    "channels",
    "conv",
    "conv_variants",
    "depthwise",
    "dgrad_patch",
    "image",
    "image_patch",
    "leaky_relu",
    "loss",
    "norm",
    "optimizer",
    "pool",
    "tma",
    "window",
)


@pytest.fixture
def emulated_items(request):
    """The emulated kernel tests of this session, if all are selected."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    items = [item for item in request.session.items if "emulated" in item.name]
    ran = {item.path.stem for item in items}
    if missing := [family for family in FAMILIES if f"test_{family}" not in ran]:
        pytest.skip(f"looks back on all emulated kernel tests; not selected: {', '.join(missing)}")
    return items


@pytest.fixture
def launches(request):
    """How often each variant was launched, by the processes that left theirs or else in this session."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("looks back on all emulated kernel tests, of which each process runs some: run pytest without -n")
    if directory := os.environ.get("ZFCUDA_LAUNCHES"):
        left = [json.loads(path.read_text()) for path in Path(directory).glob("*.json")]
        return {name: sum(launches[name] for launches in left) for name in left[0]}
    request.getfixturevalue("emulated_items")
    return backends.get("emulated").module.debug.variants()


def test_every_variant_was_launched(launches):
    assert launches
    never = [name for name, count in launches.items() if not count]
    assert not never, "never launched by a test:\n" + "\n".join(never)


def test_every_operation_meets_random_shapes(emulated_items):
    cases = Counter(item.originalname for item in emulated_items if "case" in item.fixturenames)
    few = {name: cases[f"test_{name}"] for name in ops.__all__}
    few = {name: count for name, count in few.items() if count < max(60, CASES["emulated"])}
    assert not few, few
