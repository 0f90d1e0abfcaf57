"""`zfcuda tune`: finds the fastest plan of each layer's products on this GPU, and keeps it for later runs."""

from __future__ import annotations

import argparse
import math

from .. import tuning
from ..nn import load
from ..nn.layers import PRECISIONS
from ..plans import Plan
from . import common
from .common import Commands
from .numbers import BATCH
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="find the fastest kernels for a network on this GPU",
        description=(
            "Times every plan (tile, splits) of each convolution and fully connected layer of a network, forward and "
            "back, on this GPU, and saves the fastest for all later runs, in $XDG_CACHE_HOME/zfcuda (~/.cache/zfcuda). "
            "A tuned run may differ from an untuned one in the last bits of its results; delete the file to go back. "
            "Nothing else should use the GPU meanwhile."
        ),
    )
    parser.set_defaults(run=run)
    common.add_checkpoint(parser)
    parser.add_argument(
        "--batch-size", type=BATCH, nargs="+", default=[128], metavar="N", help="plans are for these (default: 128)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, nargs="+", default=["fp32"], help="and for these (default: fp32)"
    )


@alone
def run(arguments: argparse.Namespace) -> int:
    network = load(arguments.checkpoint)
    wanted = []
    for precision in arguments.precision:
        network.precision = precision
        for batch_size in arguments.batch_size:
            wanted += tuning.problems(network, batch_size)
    found = tuning.tune(wanted, report=_report)
    path = tuning.save(found)
    gain = math.exp(sum(math.log(plan.gain) for plan in found) / len(found))
    print(f"{len(found)} plans, {gain:.2f} times as fast as untuned (geometric mean), saved: {path}")
    return 0


def _report(plan: Plan) -> None:
    splits = f", {plan.splits} splits" if plan.splits > 1 else ""
    times = f"{plan.ms:.4g} ms, untuned {plan.untuned_ms:.4g} ({plan.gain:.2f} times as fast)"
    print(f"{plan.problem}: {plan.kernel}{splits}: {times}", flush=True)
