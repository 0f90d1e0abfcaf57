"""A trainer whose steps are CUDA graphs has the bits of one without, on a model of CuPy and emulated kernels."""

import numpy as np
import pytest

from zfcuda import backends
from zfcuda.training import Trainer
from zfcuda.training.optimizer import SGD

from . import tiny

OPTIONS = {"lr": 0.05, "max_filter_rms": 0.2, "seed": 4}


class Pair:
    """The same training twice: on the model, and on the emulator without a graph."""

    def __init__(self, gpu, **options):
        self.gpu = gpu
        self.captured = Trainer(tiny.network().to("cuda"), **OPTIONS, **options)
        self.plain = Trainer(tiny.network(), **OPTIONS, **options)

    def both(self, change):
        for trainer in (self.captured, self.plain):
            change(trainer)

    def step(self, seed, n=16):
        """-> the loss, after it and the weights have been found equal."""
        images, labels = tiny.batch(n, seed=seed)
        loss = self.captured.step(self.gpu.asarray(images), self.gpu.asarray(labels))
        with backends.use("emulated"):
            assert loss == self.plain.step(images, labels)
        assert bits(self.captured.net) == bits(self.plain.net)
        return loss

    def graphs(self):
        return self.gpu.captures, self.gpu.launches


def bits(net):
    return {name: backends.to_host(array).tobytes() for name, array in net.parameters().items()}


@pytest.fixture(params=["fp32", "tf32", "bf16"])
def pair(gpu, request):
    return Pair(gpu, precision=request.param)


def test_captured_steps_have_the_bits_of_plain_ones(pair):
    seen = []
    for step in range(5):
        pair.both(lambda trainer, step=step: setattr(trainer, "lr", 0.05 / (step + 1)))
        pair.step(seed=step)
        seen.append(pair.graphs())
    assert seen == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert pair.captured.steps == 5


def test_without_graphs_every_operation_is_launched_by_itself(gpu):
    pair = Pair(gpu, cuda_graphs=False)
    for step in range(3):
        pair.step(seed=step)
    assert pair.graphs() == (0, 0)


def test_the_host_does_no_more_than_fill_in_the_batch_and_launch(gpu):
    pair = Pair(gpu)
    for step in range(2):
        pair.step(seed=step)
    images, labels = (gpu.asarray(array) for array in tiny.batch())
    plain, launches = gpu.plain, gpu.launches
    for _ in range(3):
        pair.captured.launch(images, labels)
    # lr and step are made, then both and the batch copied.
    assert (gpu.plain - plain, gpu.launches - launches) == (3 * 6, 3)


def test_weights_edited_in_place_take_effect(pair):
    for step in range(3):
        pair.step(seed=step)

    def edit(trainer):
        trainer.net.layers["conv2"].weight *= 0.5
        trainer.net.layers["fc8"].bias[...] = 1.5

    pair.both(edit)
    pair.step(seed=3)
    assert pair.graphs() == (1, 3)


def replaced(trainer):
    layer = trainer.net.layers["conv2"]
    layer.weight = 2 * layer.weight


def moved(trainer):
    """To where it is: its gradients get new arrays."""
    trainer.net.to("cpu" if isinstance(trainer.net.layers["conv1"].weight, np.ndarray) else "cuda")


CHANGES = {
    "a parameter's array": replaced,
    "the gradients' arrays": moved,
    "the precision": lambda trainer: setattr(trainer.net, "precision", "tf32"),
    "dropout": lambda trainer: setattr(trainer.net.layers["drop6"], "probability", 0.5),
    "momentum": lambda trainer: setattr(trainer.optimizer, "momentum", 0.5),
    "weight decay": lambda trainer: setattr(trainer.optimizer, "weight_decay", 0.1),
    "renormalisation": lambda trainer: setattr(trainer.optimizer, "max_filter_rms", 0.05),
    "the seed": lambda trainer: setattr(trainer, "seed", 5),
    "the optimizer": lambda trainer: setattr(trainer, "optimizer", SGD(trainer.net.parameters())),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_captured_anew(gpu, change):
    pair = Pair(gpu)
    for step in range(3):
        pair.step(seed=step)
    assert pair.graphs() == (1, 2)
    pair.both(change)
    for step, graphs in ((3, (1, 2)), (4, (2, 3)), (5, (2, 4))):
        pair.step(seed=step)
        assert pair.graphs() == graphs


def test_batches_of_another_size_are_launched_plainly(gpu):
    pair = Pair(gpu)
    for step, n in enumerate((16, 16, 16, 5, 16, 16)):
        pair.step(seed=step, n=n)
    assert pair.graphs() == (2, 3)


def test_a_bad_loss_is_met_in_a_graph_as_elsewhere(gpu):
    pair = Pair(gpu)
    for step in range(3):
        pair.step(seed=step)
    before = bits(pair.captured.net)
    images, labels = tiny.batch()
    bad = images.copy()
    bad[3, 2, 2] = np.inf
    launched = [pair.captured.launch(gpu.asarray(x), gpu.asarray(labels)) for x in (bad, images)]
    assert bits(pair.captured.net) == before
    with pytest.raises(FloatingPointError, match="in step 3: the images are not finite"):
        launched[0]()
    assert pair.captured.steps == 3
    labels[5] = 7
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got values from 0 to 7"):
        pair.captured.step(gpu.asarray(images), gpu.asarray(labels))
    pair.step(seed=3)


def test_a_resumed_training_ends_with_the_same_bits(gpu, tmp_path):
    data, fit = tiny.dataset(), {"batch_size": 16, "progress": False}

    def train(epochs, out=None, **options):
        net = tiny.network().to("cuda") if out is None or out.name != "host" else tiny.network()
        Trainer(net, **OPTIONS).fit(data, epochs=epochs, out_dir=out, **fit, **options)
        return bits(net)

    whole = train(4)
    assert gpu.captures > 0
    train(2, tmp_path / "halves")
    assert train(4, tmp_path / "halves", resume=True) == whole
    with backends.use("emulated"):
        assert train(4, tmp_path / "host") == whole


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_on_a_gpu(precision):
    cupy = backends.get("cuda").xp
    captured, plain = (
        Trainer(tiny.network().to("cuda"), **OPTIONS, precision=precision, cuda_graphs=graphs)
        for graphs in (True, False)
    )
    for step in range(5):
        images, labels = (cupy.asarray(array) for array in tiny.batch(seed=step))
        captured.lr = plain.lr = 0.05 / (step + 1)
        assert captured.step(images, labels) == plain.step(images, labels)
        assert bits(captured.net) == bits(plain.net)
    assert captured._captured._graph is not None
