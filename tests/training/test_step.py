"""One step of the trainer against the same step in float64."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import FP32, NETWORK, WEIGHT_GRAD, assert_close
from zfcuda import backends
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, ReLUSpec
from zfcuda.training import Trainer

from . import tiny


def _reference_gradients(p, x, labels):
    """The gradients of conv1, relu1, fc8 in float64."""
    y = oracles.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=(1, 1), relu=True)
    flat = y.reshape(len(x), -1)
    logits = flat @ p["fc8.weight"].T + p["fc8.bias"]
    d_logits = oracles.softmax_cross_entropy_grad(oracles.softmax(logits), labels)
    d_y = (d_logits @ p["fc8.weight"]).reshape(y.shape) * (y > 0)
    gradients = {
        "conv1.weight": oracles.conv2d_weight_grad(x, d_y, kernel_size=(3, 3), padding=(1, 1)),
        "conv1.bias": d_y.sum((0, 1, 2)),
        "fc8.weight": d_logits.T @ flat,
        "fc8.bias": d_logits.sum(0),
    }
    return oracles.cross_entropy(logits, labels), gradients


@pytest.mark.parametrize("max_filter_rms", [None, 0.3])
def test_steps_are_momentum_decay_and_renormalisation(device, max_filter_rms):
    layers = (ConvSpec("conv1", 4, 3, padding=1), ReLUSpec("relu1"), FullyConnectedSpec("fc8", 3))
    net = Network(Architecture((6, 6, 1), layers, initial="lecun"), seed=2)
    p = {name: array.astype(np.float64) for name, array in net.parameters().items()}
    v = {name: np.zeros_like(array) for name, array in p.items()}
    trainer = Trainer(device.place(net), lr=0.1, momentum=0.8, weight_decay=0.05, max_filter_rms=max_filter_rms)
    renormalised = 0
    for seed in range(4):
        images, labels = tiny.batch(seed=seed)
        expected_loss, gradients = _reference_gradients(p, images, labels)
        for name in p:
            decay = 0.05 if name.endswith("weight") else 0.0
            p[name], v[name] = oracles.sgd_step(
                p[name], gradients[name], v[name], lr=0.1, momentum=0.8, weight_decay=decay
            )
        if max_filter_rms is not None:
            before = p["conv1.weight"]
            p["conv1.weight"] = oracles.renormalize_filters(before, max_rms=max_filter_rms)
            renormalised += int((p["conv1.weight"] != before).any((1, 2, 3)).sum())
        loss = trainer.step(device.array(images), device.array(labels))
        assert loss == pytest.approx(expected_loss, rel=FP32)
        for name, array in net.parameters().items():
            assert_close(array, p[name], WEIGHT_GRAD, name)
    assert trainer.steps == 4
    # Some filters are scaled back, and not all of them: both sides of the rule are tested.
    assert max_filter_rms is None or 0 < renormalised < 16


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    def train(seed):
        net = tiny.network()
        trainer = Trainer(net, lr=0.05, seed=seed)
        losses = [trainer.step(*tiny.batch(seed=i)) for i in range(3)]
        return losses, tiny.bits(net)

    assert train(5) == train(5)
    assert train(5) != train(6)  # dropout


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_steps_of_every_precision_agree_with_float32(device, precision):
    """Loss and weights of a whole small network with dropout, before a ReLU opens in one precision only."""
    trainers = {}
    for name in ("fp32", precision):
        trainers[name] = Trainer(device.place(tiny.network()), lr=0.05, precision=name)
    start = {name: array.copy() for name, array in tiny.network().parameters().items()}
    for seed in range(2):
        images, labels = (device.array(array) for array in tiny.batch(seed=seed))
        exact, loss = (trainer.step(images, labels) for trainer in trainers.values())
        assert loss == pytest.approx(exact, rel=NETWORK[precision])
    exact, rounded = (trainer.net.parameters() for trainer in trainers.values())
    for name, before in start.items():
        assert rounded[name].dtype == np.float32
        moved, expected = (device.numpy(arrays[name]) - before for arrays in (rounded, exact))
        assert_close(moved, expected, NETWORK[precision], name)


def test_precision_is_the_network_s():
    net = tiny.network()
    net.precision = "tf32"
    assert Trainer(net).net.precision == "tf32"
    assert Trainer(net, precision="bf16").net.precision == "bf16"
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16; got 'half'"):
        Trainer(net, precision="half")


def test_training_lowers_the_loss():
    net = tiny.network(dropout=0.0)
    trainer = Trainer(net, lr=0.05)
    images, labels = tiny.batch()
    losses = [trainer.step(images, labels) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_the_learning_rate_may_be_changed_by_hand():
    net = tiny.network()
    trainer = Trainer(net, momentum=0.0, weight_decay=0.0)
    before = {name: array.copy() for name, array in net.parameters().items()}
    trainer.lr = 1e-30
    trainer.step(*tiny.batch())
    for name, array in net.parameters().items():
        np.testing.assert_allclose(array, before[name], atol=1e-25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr must be positive and finite, got 0"),
        ({"lr": float("nan")}, "lr must be positive and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"max_filter_rms": 0.0}, "max_filter_rms must be positive or None, got 0"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trainer(tiny.network(), **arguments)


def test_nets_that_cross_entropy_cannot_train_are_refused():
    one = Network(Architecture((2, 2, 1), (FullyConnectedSpec("fc", 1),)))
    with pytest.raises(ValueError, match=r"net must have an output for each class .* two or more; got 1"):
        Trainer(one)
    two = Network(Architecture((2, 2, 1), (FullyConnectedSpec("fc", 2),)))
    two.head = "none"
    with pytest.raises(ValueError, match=r"net must end with a softmax .* its head is 'none'"):
        Trainer(two)


def test_labels_out_of_range_are_refused_and_nothing_changes():
    net = tiny.network()
    trainer = Trainer(net)
    before = tiny.bits(net)
    images, labels = tiny.batch()
    for wrong in (-1, 3):
        labels[5] = wrong
        with pytest.raises(ValueError, match=r"labels must be in \[0, 3\)"):
            trainer.step(images, labels)
    assert tiny.bits(net) == before
    assert trainer.steps == 0


def test_images_and_labels_of_other_kinds_are_refused():
    trainer = Trainer(tiny.network())
    images, labels = tiny.batch()
    with pytest.raises(TypeError, match="int64"):
        trainer.step(images, labels.astype(np.int64))
    with pytest.raises(TypeError, match="uint8"):
        trainer.step(images.astype(np.uint8), labels)
    with pytest.raises(ValueError, match="conv1"):
        trainer.step(images[:, :5], labels)
    with pytest.raises(ValueError, match="labels"):
        trainer.step(images, labels[:-1])


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ("conv2.weight", r"conv2\.weight is not finite"),
        ("fc6.bias", r"fc6\.bias is not finite"),
        ("images", "the images are not finite"),
    ],
)
def test_a_loss_that_is_nan_names_the_step_and_the_layer(poison, message):
    net = tiny.network()
    trainer = Trainer(net)
    trainer.step(*tiny.batch())
    images, labels = tiny.batch()
    target = images if poison == "images" else net.parameters()[poison]
    target.reshape(-1)[0] = np.nan
    before = tiny.bits(net)
    with pytest.raises(FloatingPointError, match=f"the loss is nan in step 1: {message}"):
        trainer.step(images, labels)
    assert tiny.bits(net) == before
    assert trainer.steps == 1


class Unread(np.ndarray):
    """A stand-in for an array on a GPU: the host must not ask for its values."""

    def _read(self, *_):
        raise AssertionError("the host reads an array, for which it would have to wait")

    __float__ = __int__ = __bool__ = __index__ = __array__ = item = tolist = tobytes = _read


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("max_filter_rms", [None, 0.1])
def test_a_step_reads_nothing_back_until_it_is_asked(monkeypatch, precision, max_filter_rms):
    """All that the operations make, and all that goes in, is such that the host cannot look at it."""
    make = backends.HostBackend.empty

    def unread(array):
        return array.view(Unread)

    monkeypatch.setattr(backends.HostBackend, "empty", lambda self, *args: unread(make(self, *args)))
    monkeypatch.setattr(backends.HostBackend, "on_host", False)
    asked = []

    def read_later(self, array):
        values = np.array(array.view(np.ndarray))
        return lambda: asked.append(values) or values

    monkeypatch.setattr(backends.HostBackend, "read_later", read_later)
    net = tiny.network()
    trainer = Trainer(net, lr=0.05, max_filter_rms=max_filter_rms, precision=precision)
    net.set_parameters({name: unread(array) for name, array in net.parameters().items()})
    trainer._guard = unread(trainer._guard)
    images, labels = tiny.batch()
    launched = [trainer.launch(unread(images), unread(labels)) for _ in range(3)]
    assert not asked
    losses = [finish() for finish in launched]
    assert len(asked) == 3
    monkeypatch.undo()
    plain = Trainer(tiny.network(), lr=0.05, max_filter_rms=max_filter_rms, precision=precision)
    assert losses == [plain.step(images, labels) for _ in range(3)]


def test_steps_after_one_that_failed_change_nothing_until_it_is_known():
    """As on a GPU, where the host hears of a loss when later steps are on their way."""
    net = tiny.network()
    trainer = Trainer(net)
    images, labels = tiny.batch()
    trainer.step(images, labels)
    before, velocities = tiny.bits(net), {name: v.copy() for name, v in trainer.optimizer.velocities.items()}
    bad = images.copy()
    bad[3, 2, 2] = np.inf
    launched = [trainer.launch(x, labels) for x in (bad, images, images)]
    assert tiny.bits(net) == before
    for name, v in trainer.optimizer.velocities.items():
        np.testing.assert_array_equal(v, velocities[name])
    with pytest.raises(FloatingPointError, match="in step 1: the images are not finite"):
        launched[0]()
    assert trainer.steps == 1
    # And goes on as if nothing had been.
    other = Trainer(tiny.network())
    other.step(images, labels)
    assert trainer.step(images, labels) == other.step(images, labels)
    assert tiny.bits(net) == tiny.bits(other.net)


def test_labels_that_no_host_has_checked_are_refused_and_nothing_changes(monkeypatch):
    """On a GPU a label out of range makes the loss NaN."""
    monkeypatch.setattr(backends.HostBackend, "on_host", False)
    net = tiny.network()
    trainer = Trainer(net)
    before = tiny.bits(net)
    images, labels = tiny.batch()
    labels[5] = 3
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got values from 0 to 3"):
        trainer.step(images, labels)
    assert tiny.bits(net) == before
    assert trainer.steps == 0


@pytest.mark.filterwarnings("ignore:.*encountered in matmul")
def test_activations_that_overflow_name_their_layer():
    net = tiny.network()
    net.layers["conv2"].weight *= 1e30
    net.layers["fc6"].weight *= 1e30
    with pytest.raises(FloatingPointError, match="step 0: the activations of fc6 are not finite"):
        Trainer(net).step(*tiny.batch())
