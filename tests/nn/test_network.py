"""Forward, training pass and structure of networks."""

import numpy as np
import pytest

from zfcuda import models, ops
from zfcuda.nn import Network


@pytest.fixture
def network() -> Network:
    return models.zfnet_small(5, (28, 28, 1), seed=1)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-128, 128, (3, 28, 28, 1)).astype(np.float32)


def test_fused_and_recomputed_activations_equal_the_unfused_operations(network, images):
    trace = network.forward(images)
    x = images
    for name, layer in network.layers.items():
        x = layer.forward(x)
        assert x.shape == (3, *layer.output_shape)
        np.testing.assert_allclose(trace[name], x, rtol=1e-4, atol=1e-5 * np.abs(x).max(), err_msg=name)
    np.testing.assert_array_equal(trace.output, trace["fc8"])
    np.testing.assert_array_equal(network.predict(images), ops.softmax(trace.output))


def test_training_pass_descends(network, images):
    labels = np.array([0, 1, 4], np.int32)
    losses = []
    velocity = {name: np.zeros_like(w) for name, w in network.parameters().items()}
    for step in range(20):
        loss, probabilities, gradients = network.loss_and_gradients(images, labels, dropout_seed=3, step=step)
        assert loss.shape == ()
        assert probabilities.shape == (3, 5)
        losses.append(float(loss))
        for name, w in network.parameters().items():
            ops.sgd_step(w, gradients[name], velocity[name], lr=1e-2)
    assert losses[-1] < 0.2 * losses[0]
