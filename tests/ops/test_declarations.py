"""An operation has one name, from zfcuda/ops down to the kernel: where it is looked for, it is found."""

import re
from pathlib import Path

import pytest

from zfcuda import ops

ROOT = Path(__file__).parents[2]
PLACES = {
    "csrc/ops.h": r"^void {}\(",
    "csrc/bindings.cpp": r'\bbind\(\w+, "{}\w*", {}[<)]',
    "csrc/kernels/**/*": r"^void {}\(",
    "csrc/cpu/**/*": r"^void {}\(",
    "zfcuda/ops/*.py": r"^def {}\(",
    "tests/kernels/*.py": r"^def test_{}\(",
    "tests/oracles.py": r"\b{}\b",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_operation_is_found_by_its_name(place):
    text = "\n".join(path.read_text() for path in sorted(ROOT.glob(place)) if path.is_file())
    names = set(ops.__all__) - ({"cast"} if place.startswith("csrc/cpu") else set())  # which NumPy does there
    missing = {name for name in names if not re.search(PLACES[place].replace("{}", name), text, re.MULTILINE)}
    assert not missing


def test_every_operation_is_declared_once():
    declared = re.findall(PLACES["csrc/ops.h"].replace("{}", r"(\w+)"), (ROOT / "csrc/ops.h").read_text(), re.MULTILINE)
    assert sorted(declared) == sorted(ops.__all__)
