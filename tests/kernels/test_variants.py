"""Every kernel, with every combination of template arguments that a launcher dispatches to, has run in this session."""

import pytest

from zfcuda import backends

FAMILIES = ("activation", "block", "conv", "conv_variants", "image", "loss", "norm", "optimizer", "pool")


def test_every_variant_was_launched(request):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    ran = {item.path.stem for item in request.session.items if "emulated" in item.name}
    if missing := [family for family in FAMILIES if f"test_{family}" not in ran]:
        pytest.skip(f"looks back on all emulated kernel tests; not selected: {', '.join(missing)}")
    variants = backends.get("emulated").module.debug.variants()
    assert variants
    never = [name for name, launches in variants.items() if not launches]
    assert not never, "never launched by a test:\n" + "\n".join(never)
