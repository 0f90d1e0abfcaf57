"""Random calls of every operation, extreme sizes among ordinary ones: `python -m tests.fuzz cpu --calls 2000`.

Each call must end in the result of the oracle, or in a ValueError or TypeError with a message. A crash takes this
process with it, which is why tests/kernels/test_fuzz.py runs it in one of its own. Seeded: the same numbers, the same
calls.

The modules here have a function for each operation, of its name: it draws the arguments, and returns the call and what
this must yield, None if it must be refused.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from tests.accuracy import assert_close
from zfcuda import backends, ops

from . import convolutions, images, layers, pools, training
from .draws import Calls, Skip

MODULES = (convolutions, images, layers, pools, training)
CALLS = {name: call for module in MODULES for name, call in vars(module).items() if name in ops.__all__}


def check(name, calls):
    """One call."""
    try:
        call, expected = CALLS[name](calls)
    except Skip:
        return
    refusal = None
    try:
        result = call()
    except (ValueError, TypeError) as error:
        refusal = str(error)
    if expected:
        assert refusal is None, f"refused: {refusal}"
        oracle = np.asarray(expected())
        if oracle.shape != result.shape or np.abs(result - oracle).max() > 1e-5:  # where terms of 1 cancel
            assert_close(result, oracle, 1e-4)
    else:
        assert refusal is not None, f"not refused: a result of shape {result.shape}"
        assert refusal
        assert "incompatible" not in refusal, refusal  # by pybind11, which names no argument


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=backends.HOST_BACKENDS)
    parser.add_argument("--calls", type=int, default=2000, help="of each operation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with backends.use(options.backend):
        for name in ops.__all__:
            calls = Calls(options.seed, name)
            for number in range(options.calls):
                try:
                    check(name, calls)
                except AssertionError as failure:
                    sys.exit(f"{name}, call {number} of seed {options.seed}: {failure}")


if __name__ == "__main__":
    main()
