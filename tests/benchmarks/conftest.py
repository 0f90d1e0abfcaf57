"""What several tests of benchmarks use: the kernels of the record of machine code
(benchmarks/results/gpu-static-sm_90a.json), for those of the model, and a run of gpu.py."""

import json
import time

import gpu
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
        issued = tile.multiply_adds // tile.rows * tile.multiplied_rows
        turn = gpu_sass.Counts(pipes, 0, turns * issued // tile.warps)
        loop = gpu_sass.MainLoop(nothing, turn, (nothing,) * 2 if tile.tap_rows else ())
        codes.append(gpu_sass.Code(one["name"], one["registers"], 0, 0, 0, loop, nothing))
    kernels = gpu_model.kernels(codes, [template + "(" for template in templates])
    assert [kernel.name for kernel in kernels] == [one["name"] for one in record["kernels"]]
    return kernels


@pytest.fixture(scope="session")
def untuned(recorded):
    """Those that are taken without a tuned plan."""
    return [kernel for kernel in recorded if not kernel.tile.is_wgmma]


class ToyDevice:
    """All but the GPU."""

    @staticmethod
    def state():
        return "warm"


@pytest.fixture
def run(tmp_path):
    """A run of two parts of ZFNet in float32."""
    options = gpu.parse(["conv", "optimizer", "--families", "zfnet", "--precisions", "fp32", "--out", str(tmp_path)])
    run = gpu.Run(options, ToyDevice, time.monotonic())
    run.record.note({"name": "NVIDIA Toy 9000", "copy, GB/s": 1000.0, "float32, TFLOP/s": 50.0})
    return run
