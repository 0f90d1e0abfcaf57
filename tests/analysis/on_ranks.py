"""What the tests of several processes run on each of them: `mpirun -n N python -m tests.analysis.on_ranks NAME OUT`."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

from zfcuda.analysis import top_activations, visualize
from zfcuda.analysis.progress import Steps
from zfcuda.training import Ranks, RanksDiffer, world

from .nets import deep_net, noise


def leave(ranks, out, found):
    """What each rank has."""
    everyone = ranks.gather(found)
    if ranks.rank == 0:
        (out / "found.json").write_text(json.dumps(everyone))


def steps(ranks, out):
    """More than there are ranks, fewer, none: what every rank gets of them, and which steps it had to compute."""
    found = []
    for total in (11, 2, 1, 0):
        own = []
        with Steps(total, 2, ranks=ranks) as steps:
            pairs = [([*step], one) for step, one in steps.map(lambda step, own=own: own.append([*step]) or sum(step))]
        found.append({"pairs": steps.finish(pairs), "done": steps.done, "own": own})
    leave(ranks, out, found)


def ranked(ranks, out):
    """A ranking in which every image has a twin later on, and its winners' projections: as alone, on every rank."""
    net, images = deep_net(), noise((12, *deep_net().input_shape))
    images = np.concatenate([images, images])
    results = []
    for own in (None, ranks):
        top = top_activations(net, images, "pool3", k=3, batch_size=5, ranks=own)
        results += [top, visualize(net, images, top, batch_size=4, ranks=own)]
    for alone, together in zip(results[:2], results[2:], strict=True):
        for name, value in vars(alone).items():
            np.testing.assert_array_equal(getattr(together, name), value)
    leave(ranks, out, results[2].indices.tolist())


def other_lengths(ranks, out):
    try:
        with Steps(8 + ranks.rank, 2, ranks=ranks) as steps:
            list(steps.map(len))
    except RanksDiffer as error:  # which all ranks raise, and could go on
        leave(ranks, out, str(error))


def raises(ranks, out, who="1"):
    """In the third step of a rank, or of all."""
    turns = itertools.count()

    def fail(step):
        if next(turns) == 2 and who in ("all", str(ranks.rank)):
            raise OSError(5, "Input/output error", "/data/7.png")

    with Steps(100, ranks=ranks) as steps:
        list(steps.map(fail))


def main(name, folder, *arguments):
    globals()[name](Ranks(world()), Path(folder), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
