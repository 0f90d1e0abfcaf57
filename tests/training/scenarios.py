"""What `on_ranks.py` runs, from outside: how it is started, what it leaves, and how near that is."""

import json

import numpy as np
import pytest

from tests import mpi


def run(n, name, out, *arguments):
    """A scenario of `on_ranks.py` to its end -> the process."""
    out.mkdir(exist_ok=True)
    return mpi.run(mpi.command(n, "tests.training.on_ranks", name, out, *arguments))


def found(n, name, out, *arguments):
    """What a scenario leaves when all goes well: weights, and numbers."""
    done = run(n, name, out, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(out / "weights.npz") as arrays:
        return dict(arrays), json.loads((out / "numbers.json").read_text())


def raised_by_all(n, name, out):
    """What every rank has raised in a scenario, after which they could still talk."""
    done = run(n, name, out)
    assert done.returncode == 0, done.stderr
    said = json.loads((out / "raised.json").read_text())
    assert len(said) == n
    return said


def assert_near(arrays, expected, unlearned=()):
    """Weights to 1e-5 of their norm; velocities and biases, which are nothing but sums of gradients, to 1e-2: rounding
    moves maxima and zeros to other places."""
    assert arrays.keys() == expected.keys()
    for name in arrays.keys() - {f"{of}{name}" for name in unlearned for of in ("", "velocity of ")}:
        tolerance = 1e-2 if name.startswith("velocity") or name.endswith("bias") else 1e-5
        assert np.linalg.norm(arrays[name] - expected[name]) <= tolerance * np.linalg.norm(expected[name]), name


def bits(weights):
    return {name: array.tobytes() for name, array in weights.items()}


TIMES = ("seconds", "images_per_second")


def assert_metrics_near(history, expected):
    for metrics, wanted in zip(history, expected, strict=True):
        assert metrics.keys() == wanted.keys()
        for name in metrics.keys() - set(TIMES):
            assert metrics[name] == pytest.approx(wanted[name], abs=1e-5), name


def metrics_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
