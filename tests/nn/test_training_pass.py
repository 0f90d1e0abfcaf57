"""The training pass (P2): gradients of every parameter against finite differences in float64, dropout, reuse."""

import threading

import numpy as np
import pytest

from tests.accuracy import FP32, WEIGHT_GRAD, assert_close
from tests.nn.networks import TINY, Reference, randomise
from zfcuda import models, ops
from zfcuda.nn import Architecture, BatchNormSpec, ConvSpec, DropoutSpec, FullyConnectedSpec, Network, ReLUSpec

LABELS = np.array([0, 3, 1], np.int32)


@pytest.fixture
def network():
    return randomise(Network(TINY, seed=2), np.random.default_rng(1))


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(0, 2, (3, 21, 18, 3)).astype(np.float32)


def unit(array):
    return array / np.linalg.norm(array)


def assert_gradients_are_derivatives(device, network, images, labels, shares=(0, 1)):
    reference = Reference(network)
    dropout = {"dropout_seed": 9, "step": 5}
    placed = device.place(network), device.array(images), device.array(labels)
    loss, probabilities, gradients = placed[0].loss_and_gradients(*placed[1:], **dropout)
    assert loss.dtype == np.float32
    assert loss.shape == ()
    assert float(loss) == pytest.approx(reference.loss(images, labels, **dropout), rel=FP32)
    assert_close(device.numpy(probabilities).sum(axis=1), np.ones(len(images)))
    assert list(gradients) == list(network.parameters())
    rng = np.random.default_rng(3)
    step = 1e-6
    for name, gradient in gradients.items():
        gradient = device.numpy(gradient)
        # Along the gradient itself, where a wrong value shows, mixed with a random direction, where a missing one does.
        for share in shares:
            direction = (1 - share) * unit(gradient.astype(np.float64)) + share * unit(rng.normal(size=gradient.shape))
            weights = reference.weights[name]
            losses = []
            for sign in (1, -1):
                reference.weights[name] = weights + sign * step * direction
                losses.append(reference.loss(images, labels, **dropout))
            reference.weights[name] = weights
            derivative = (losses[0] - losses[1]) / (2 * step)
            size = float(np.linalg.norm(gradient))
            assert float(np.sum(gradient * direction)) == pytest.approx(derivative, abs=WEIGHT_GRAD * size), name


def test_gradients_of_every_kind_of_layer(device, network, images):
    assert_gradients_are_derivatives(device, network, images, LABELS)


def test_gradients_of_the_small_net(device):
    network = randomise(models.zfnet_small(4, (28, 28, 1), seed=1), np.random.default_rng(1))
    images = np.random.default_rng(2).uniform(-100, 100, (1, 28, 28, 1)).astype(np.float32)
    assert_gradients_are_derivatives(device, network, images, LABELS[:1], shares=(0.3,))


def test_dropout_depends_on_seed_and_step_only(network, images):
    def loss(seed, step):
        return float(network.loss_and_gradients(images, LABELS, dropout_seed=seed, step=step)[0])

    assert loss(1, 1) == loss(1, 1)
    assert len({loss(1, 1), loss(1, 2), loss(2, 1)}) == 3


def test_gradient_arrays_are_kept_and_overwritten(network, images):
    first = network.loss_and_gradients(images, LABELS, dropout_seed=1)[2]
    before = {name: gradient.copy() for name, gradient in first.items()}
    for gradient in first.values():
        gradient.fill(np.nan)
    again = network.loss_and_gradients(images, LABELS, dropout_seed=1)[2]
    for name, gradient in again.items():
        assert gradient is first[name]
        np.testing.assert_array_equal(gradient, before[name])


def test_steps_descend(network, images):
    def loss():
        return float(ops.softmax_cross_entropy(network.forward(images).output, LABELS)[0])

    before = loss()
    for step in range(30):
        gradients = network.loss_and_gradients(images, LABELS, dropout_seed=3, step=step)[2]
        for name, w in network.parameters().items():
            ops.sgd_step(w, gradients[name], np.zeros_like(w), lr=0.1)
    assert loss() < 0.9 * before


def test_bad_arguments(network, images):
    with pytest.raises(
        ValueError, match=r"x must have shape \(N, 21, 18, 3\), the input of conv1.*got \(3, 18, 21, 3\)"
    ):
        network.loss_and_gradients(images.transpose(0, 2, 1, 3), LABELS)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)"):
        network.loss_and_gradients(images, LABELS + 1)
    with pytest.raises(TypeError, match="labels must be int32, got int64"):
        network.loss_and_gradients(images, LABELS.astype(np.int64))


# ---- Parts of a batch -----------------------------------------------------------------------------------------------

NORMALISED = Architecture(
    (5, 4, 2),
    (
        ConvSpec("conv1", 4, kernel=3),
        BatchNormSpec("bn1", momentum=0.3),
        ReLUSpec("relu1"),
        DropoutSpec("drop1", 0.3),
        FullyConnectedSpec("fc2", 5),
        BatchNormSpec("bn2"),
        FullyConnectedSpec("fc3", 3),
    ),
    initial="lecun",
)


class Parts:
    """A batch in parts, each with a thread, which share what `zfcuda.nn.record.Part` has them share."""

    def __init__(self, counts):
        self.counts = counts
        self.barrier = threading.Barrier(len(counts), timeout=60)
        self.arrays = [None] * len(counts)

    def run(self, function):
        """function(number of the part, part) of each -> their results."""
        results = [None] * len(self.counts)

        def work(number):
            try:
                results[number] = function(number, Part(self, number))
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(self.counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class Part:
    def __init__(self, parts, number):
        self.parts, self.number = parts, number
        self.first, self.size = sum(parts.counts[:number]), sum(parts.counts)
        self.seen = []

    def mean(self, array):
        self.parts.arrays[self.number] = array
        self.parts.barrier.wait()
        mean = np.average(self.parts.arrays, axis=0, weights=self.parts.counts).astype(np.float32)
        self.parts.barrier.wait()
        return mean

    def ready(self, gradients):
        self.seen.append({name: gradient.copy() for name, gradient in gradients.items()})


@pytest.mark.parametrize("architecture", [TINY, NORMALISED], ids=["tiny", "normalised"])
@pytest.mark.parametrize("counts", [(2, 5), (3, 1, 3)])
def test_parts_of_a_batch_make_up_the_whole(architecture, counts):
    def made():
        return randomise(Network(architecture, seed=2), np.random.default_rng(1))

    rng = np.random.default_rng(2)
    images = rng.normal(0, 2, (sum(counts), *architecture.input_shape)).astype(np.float32)
    labels = rng.integers(0, 3, len(images), np.int32)
    whole = made()
    loss, probabilities, gradients = whole.loss_and_gradients(images, labels, dropout_seed=9, step=5)
    whole.update_state()

    def one(number, part):
        rows = slice(part.first, part.first + counts[number])
        network = made()
        found = network.loss_and_gradients(images[rows], labels[rows], dropout_seed=9, step=5, part=part)
        network.update_state()
        # Those of the last layers come first, and are then what they will be.
        seen = {name: gradient for ready in part.seen for name, gradient in ready.items()}
        assert next(iter(seen)).startswith(next(reversed(network.layers)))
        assert seen.keys() == found[2].keys()
        assert all(np.array_equal(gradient, found[2][name]) for name, gradient in seen.items())
        return *found, network.state()

    losses, parts, of_parts, states = zip(*Parts(counts).run(one), strict=True)
    assert np.average(losses, weights=counts) == pytest.approx(float(loss), rel=FP32)
    assert_close(np.concatenate(parts), probabilities)
    for name, gradient in gradients.items():
        if name not in ("conv1.bias", "fc2.bias") or architecture is TINY:  # batch normalisation takes these away
            assert_close(np.average([found[name] for found in of_parts], axis=0, weights=counts), gradient, WEIGHT_GRAD)
    for state in states:
        for name, array in whole.state().items():
            assert_close(state[name], array)
