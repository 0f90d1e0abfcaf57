"""Softmax and cross-entropy: csrc/kernels/loss.cuh and csrc/cpu/loss.cpp."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import FP32, assert_close
from zfcuda import ops


def random_logits(rng):
    n, classes = int(rng.integers(1, 70)), int(rng.choice([1, 2, 3, 10, 31, 32, 33, 100, 1000]))
    scale = float(rng.choice([0.1, 1, 30, 1000]))
    logits = scale * rng.standard_normal((n, classes), dtype=np.float32)
    return logits, rng.integers(0, classes, n).astype(np.int32)


def test_softmax(case):
    logits, _ = random_logits(case.rng)
    probabilities = case.device.numpy(ops.softmax(case.device.array(logits)))
    assert_close(probabilities, oracles.softmax(logits))


def test_softmax_cross_entropy(case):
    logits, labels = random_logits(case.rng)
    loss, probabilities = ops.softmax_cross_entropy(case.device.array(logits), case.device.array(labels))
    loss, probabilities = case.device.numpy(loss), case.device.numpy(probabilities)
    assert loss.shape == ()
    assert loss.dtype == np.float32
    n = np.arange(len(labels))
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    expected = (np.log(np.exp(shifted).sum(1)) - shifted[n, labels]).mean()  # finite where the softmax underflows
    assert abs(loss - expected) <= FP32 * max(1.0, abs(expected))
    assert_close(probabilities, oracles.softmax(logits))


def test_softmax_cross_entropy_grad(case):
    logits, labels = random_logits(case.rng)
    probabilities = oracles.softmax(logits).astype(np.float32)
    dlogits = ops.softmax_cross_entropy_grad(case.device.array(probabilities), case.device.array(labels))
    expected = oracles.softmax_cross_entropy_grad(probabilities, labels)
    error = np.abs(case.device.numpy(dlogits) - expected).max() * len(labels)
    assert error < 1e-6


def test_rows_longer_than_a_warp_takes(device):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 2100), dtype=np.float32)
    labels = np.array([0, 2099, 7], np.int32)
    loss, probabilities = ops.softmax_cross_entropy(device.array(logits), device.array(labels))
    expected = oracles.softmax(logits)
    assert_close(device.numpy(probabilities), expected)
    assert abs(device.numpy(loss) + np.log(expected[range(3), labels]).mean()) < FP32
    dlogits = device.numpy(ops.softmax_cross_entropy_grad(probabilities, device.array(labels)))
    assert_close(dlogits, oracles.softmax_cross_entropy_grad(expected, labels))


def test_nan_reaches_the_loss(device):
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = np.nan
    loss, _ = ops.softmax_cross_entropy(device.array(logits), device.array(np.zeros(3, np.int32)))
    assert np.isnan(device.numpy(loss))


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_that_nobody_refused_makes_the_loss_nan(device, monkeypatch, label):
    monkeypatch.setattr("zfcuda.ops.loss.check_label_range", lambda labels, classes: None)  # as on a GPU
    labels = np.array([0, label, 2], np.int32)
    loss, _ = ops.softmax_cross_entropy(device.array(np.zeros((3, 4), np.float32)), device.array(labels))
    assert np.isnan(device.numpy(loss))


LOGITS, LABELS = np.zeros((3, 4), np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "logits must have 2", lambda: ops.softmax(LOGITS[0])),
        (TypeError, "logits must be float32", lambda: ops.softmax(LOGITS.astype(float))),
        (TypeError, "labels must be int32, got int64", lambda: ops.softmax_cross_entropy(LOGITS, LABELS.astype(int))),
        (ValueError, r"labels must have shape \(3,\)", lambda: ops.softmax_cross_entropy(LOGITS, LABELS[:2])),
        (ValueError, r"labels must be in \[0, 4\)", lambda: ops.softmax_cross_entropy(LOGITS, LABELS + 4)),
        (ValueError, "got values from -1 to -1", lambda: ops.softmax_cross_entropy(LOGITS, LABELS - 1)),
        (ValueError, "labels must be in", lambda: ops.softmax_cross_entropy_grad(LOGITS, LABELS + 4)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
