"""Six kernels of ZFNet, each launched once between two marks, for Nsight Compute to read the hardware's counters:

ncu --profile-from-start off --clock-control none python benchmarks/gpu_counters.py
"""

from __future__ import annotations

import argparse

import cases
import gpu_device
import gpu_rehearsal
import gpu_worker

# Layer, direction, precision: one of each family, and the two that the static model likes least.
KERNELS = (
    ("conv2", "fprop", "bf16"),
    ("conv2", "wgrad", "bf16"),
    ("block1", "block", "bf16"),
    ("conv1", "image dgrad", "fp32"),
    ("pool1", "unpool", "bf16"),
    ("norm1", "norm", "bf16"),
)


def problem(layer: str, direction: str, batch: int) -> cases.Problem:
    own = [case.with_batch(batch) for case in cases.CASES if case.family == "zfnet" and case.layer == layer]
    return next(one for one in cases.problems(own) if one.direction == direction)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="small, with the emulated kernels")
    rehearse = parser.parse_args().rehearse
    if rehearse:
        gpu_rehearsal.shrink()
    device = gpu_rehearsal if rehearse else gpu_device
    device.require(tuned=False)
    with device.active():
        for layer, direction, precision in KERNELS:
            one = problem(layer, direction, 2 if rehearse else 128)
            call = gpu_worker.make(one, device.setting(precision=precision)).ours
            for _ in range(2):
                call()
            with device.profiled():
                call()
            device.clear()
            print(f"profiled: {one} {precision}", flush=True)


if __name__ == "__main__":
    main()
