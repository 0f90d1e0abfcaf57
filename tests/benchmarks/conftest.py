"""The kernels of the record of machine code (benchmarks/results/gpu-static-sm_90a.json), for the tests of the model."""

import json

import gpu_model
import gpu_sass
import gpu_static
import gpu_tile
import pytest


@pytest.fixture(scope="session")
def record():
    return json.loads((gpu_static.RESULTS / "gpu-static-sm_90a.json").read_text())


@pytest.fixture(scope="session")
def recorded(record):
    """The kernels of the record, their main loops as counted then."""
    codes, templates = [], {one["template"]: one for one in record["kernels"]}  # one may serve two directions
    for template, one in templates.items():
        tile = gpu_tile.Tile.parse(template.partition("<")[2])
        # Of the loop over taps: a patch's k-tile is recorded with as many columns of them.
        turns = max(1, tile.tap_rows)
        pipes = {pipe: one["pipes"].get(pipe, 0) // turns for pipe in gpu_sass.PIPES}
        nothing = gpu_sass.Counts(dict.fromkeys(gpu_sass.PIPES, 0))
        turn = gpu_sass.Counts(pipes, 0, turns * tile.multiply_adds // tile.warps)
        loop = gpu_sass.MainLoop(nothing, turn, (nothing,) * 2 if tile.tap_rows else ())
        codes.append(gpu_sass.Code(one["name"], one["registers"], 0, 0, 0, loop, nothing))
    kernels = gpu_model.kernels(codes, [template + "(" for template in templates])
    assert [kernel.name for kernel in kernels] == [one["name"] for one in record["kernels"]]
    return kernels


@pytest.fixture(scope="session")
def untuned(recorded):
    """Those that are taken without a tuned plan."""
    return [kernel for kernel in recorded if not kernel.tile.is_wgmma]
