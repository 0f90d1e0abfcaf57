"""What the tests of several processes run on each of them: `mpirun -n N python -m tests.training.on_ranks NAME OUT`.

Each scenario is a function of this process's communicator (None for one alone) and of a folder; rank 0 leaves there
what the test looks at. Without mpirun the same is what one process does.
"""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np

from tests.cupy_model import Cupy, Kernels
from tests.nccl_model import Nccl
from zfcuda import backends, cli, data
from zfcuda.data import Augmentation
from zfcuda.errors import BackendError
from zfcuda.nn import Architecture, BatchNormSpec, ConvSpec, FullyConnectedSpec, MaxPoolSpec, Network, ReLUSpec, models
from zfcuda.training import Linear, Ranks, RanksDiffer, Trainer, buckets, world
from zfcuda.training.distributed import SharedStep

from . import tiny

BATCH = 64  # which three do not divide


def leave(trainer, out, **numbers):
    """What each rank has found, and that all have the same weights."""
    arrays = trainer.net.parameters() | trainer.net.state()
    arrays |= {f"velocity of {name}": array for name, array in trainer.optimizer.velocities.items()}
    arrays = {name: backends.to_host(array) for name, array in arrays.items()}
    everyone = trainer.ranks.gather({name: array.tobytes() for name, array in arrays.items()})
    assert all(other == everyone[0] for other in everyone)
    if trainer.ranks.rank == 0:
        np.savez(out / "weights.npz", **arrays)
        (out / "numbers.json").write_text(json.dumps(numbers))


def stepped(net, batches, communicator, out, **options):
    """Steps on batches of ready inputs; each loss is left."""
    trainer = Trainer(net, communicator=communicator, **options)
    xp = backends.array_module(next(iter(net.parameters().values())))
    losses = []
    for images, labels in batches:
        share = trainer.ranks.share(len(images))
        losses.append(trainer.step(xp.asarray(images[share]), xp.asarray(labels[share])))
    leave(trainer, out, losses=losses)


def small(communicator, out, gradients="fp32"):
    """20 steps of zfnet_small, at a rate at which rounding stays rounding: one process whose weights are disturbed by
    6e-8 of their size is up to 3e-6 away by then, and at a rate of 1e-2 some 1e-3."""
    images = data.open("fashion-mnist").train
    net = Network(models.zfnet_small_architecture(10, (28, 28, 1)), seed=3)
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(20):
        pictures, labels = images.batch(rng.integers(0, len(images), BATCH))
        batches.append(((pictures.astype(np.float32) - 73) / 90, labels))
    stepped(net, batches, communicator, out, lr=3e-4, max_filter_rms=0.5, seed=5, gradients=gradients)


def normalised(communicator, out, precision="fp32", place="cpu", **options):
    """Batch normalisation of every kind of stage, whose statistics go through all ranks."""
    layers = (
        ConvSpec("conv1", 4, 3, padding=1),
        BatchNormSpec("bn1"),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2", 5, 3, padding=1),
        BatchNormSpec("bn2"),
        FullyConnectedSpec("fc3", 6),
        BatchNormSpec("bn3"),
        ReLUSpec("relu3"),
        FullyConnectedSpec("fc4", 3),
    )
    batches = [tiny.batch(11, seed=step) for step in range(6)]
    net = Network(Architecture((6, 6, 1), layers, initial="lecun"), seed=1).to(place)
    stepped(net, batches, communicator, out, lr=0.05, precision=precision, **options)


def with_gpus(communicator, gpus=2):
    """A host with models of so many GPUs, of CuPy, whose arrays the emulated kernels serve, and of NCCL; one GPU is
    this rank's."""
    cupy, get = Cupy(gpus), backends.get
    backend = backends.CudaBackend(Kernels(get("emulated").module, cupy), cupy)
    backends.get = lambda name: backend if name == "cuda" else get(name)
    sys.modules["cupyx"] = type("cupyx", (), {"empty_pinned": np.empty})
    sys.modules["cupy.cuda"] = cupy.cuda
    cupy.cuda.nccl = Nccl(cupy, communicator)
    ranks = Ranks(communicator)
    ranks.take_gpu()
    assert cupy.gpu == ranks.rank % gpus
    return cupy


def on_gpu(communicator, out, exchange="auto", gradients="fp32"):
    """Dropout, and several buckets."""
    with_gpus(communicator)
    buckets._BUCKET = 64
    batches = [tiny.batch(7, seed=step) for step in range(4)]
    stepped(tiny.network().to("cuda"), batches, communicator, out, exchange=exchange, gradients=gradients)


def normalised_on_gpu(communicator, out, exchange="auto"):
    with_gpus(communicator)
    normalised(communicator, out, place="cuda", exchange=exchange)


def watched(communicator, out):
    """A step by NCCL: in which order what is launched, by each rank; the stream of sums is called 1."""
    cupy = with_gpus(communicator)
    buckets._BUCKET = 64
    trainer = Trainer(tiny.network().to("cuda"), communicator=communicator)
    shared, optimizer = trainer._shared, trainer.optimizer
    ready, update = shared.ready, optimizer.update

    def noted(gradients):
        if gradients:
            cupy.calls.append(("ready", *gradients))
        ready(gradients)

    def noted_update(*arguments, **options):
        cupy.calls.append(("update",))
        update(*arguments, **options)

    shared.ready, optimizer.update = noted, noted_update
    trainer.launch(*map(cupy.asarray, tiny.batch(5)))
    assert all(calls == cupy.calls for calls in trainer.ranks.gather(cupy.calls))
    leave(trainer, out, calls=cupy.calls)


def measured(communicator, out, gpus="2"):
    """What benchmarks/scaling.py measures on each process."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import scaling_worker as worker

    with_gpus(communicator, int(gpus))
    worker.ARCHITECTURES["tiny"] = tiny.architecture
    found = worker.together(worker.Process(worker.Job("tiny", (1,), 1, "cuda"), Ranks(communicator)))
    if rank_of(communicator) == 0:
        np.savez(out / "weights.npz")
        (out / "numbers.json").write_text(json.dumps(found))


def commanded(communicator, out, *words):
    """`zfcuda train` where each rank sees two GPUs, and has not chosen one."""
    cupy = with_gpus(communicator)
    cupy.gpu = 0
    assert cli.main(["train", "--out", str(out), "--device", "cuda", *words]) == 0
    assert cupy.gpu == rank_of(communicator)


def summed(communicator, out, gradients, place="cpu"):
    """What becomes of gradients that are anything: of so many values that there are three buckets, the last so small
    that some rank adds up nothing of it."""
    cupy = with_gpus(communicator, 3) if place == "cuda" else np
    ranks = Ranks(communicator)
    own = {name: np.random.default_rng([ranks.rank, size]).standard_normal(size, np.float32) for name, size in SUMMED}
    arrays = {name: cupy.asarray(array.copy()) for name, array in own.items()}
    stages = [types.SimpleNamespace(parameter_names=[name]) for name in reversed(own)]

    def loss_and_gradients(images, labels, *, part, **_):
        for name in arrays:
            part.ready({name: arrays[name]})
        return cupy.zeros((), np.float32), labels, arrays

    net = types.SimpleNamespace(stages=stages, parameters=lambda: arrays, loss_and_gradients=loss_and_gradients)
    images, labels = tiny.batch(1 + ranks.rank)
    with ranks.ending_together():
        SharedStep(ranks, net, gradients).loss_and_gradients(images, labels, dropout_seed=0, step=0)
    found = {name: backends.to_host(array) for name, array in arrays.items()}
    everyone = ranks.gather(found)
    for other in everyone:
        assert all(np.array_equal(other[name], found[name]) for name in found)
    shares = ranks.gather(own)
    if ranks.rank == 0:
        brought = {f"{name} of {rank}": array for rank, share in enumerate(shares) for name, array in share.items()}
        np.savez(out / "weights.npz", **found, **brought)
        (out / "numbers.json").write_text("{}")


SUMMED = (("a", 1 << 20), ("b", (1 << 20) + 7), ("c", 2))


class Watched(data.Subset):
    """Remembers which images were asked for."""

    def __init__(self, dataset):
        super().__init__(dataset, range(len(dataset)))
        self.seen = []

    def batch(self, indices):
        self.seen.append([int(index) for index in indices])
        return super().batch(indices)


def fit(trainer, out, *, epochs=4, train=None, resume=True, **options):
    options = {"batch_size": 8, "schedule": Linear(6), "progress": False} | options
    validation = tiny.dataset(20, seed=1)
    return trainer.fit(
        train or tiny.dataset(), validation, epochs=epochs, out_dir=out / "run", resume=resume, **options
    )


def fitted(communicator, out, epochs="4"):
    """An epoch's images and metrics, with dropout, shifts and flips; goes on where there is a checkpoint."""
    trainer = Trainer(tiny.network(), communicator=communicator, seed=2)
    watched = Watched(tiny.dataset())
    history = fit(trainer, out, epochs=int(epochs), train=watched)
    seen = trainer.ranks.gather(watched.seen[-6:])  # the last epoch's six batches, after what the digest has read
    together = [[index for part in parts for index in part] for parts in zip(*seen, strict=True)]
    leave(trainer, out, history=history, seen=together)


# ---- What goes wrong ----------------------------------------------------------------------------------------


def rank_of(communicator):
    return Ranks(communicator).rank


def other_data(communicator, out):
    dataset = tiny.dataset()
    if rank_of(communicator) == 1:
        dataset.images[7, 0, 0] ^= 1
    fit(Trainer(tiny.network(), communicator=communicator), out, train=dataset)


def fewer_images(communicator, out):
    fit(Trainer(tiny.network(), communicator=communicator), out, train=tiny.dataset(50 - rank_of(communicator)))


def other_classes(communicator, out):
    dataset = tiny.dataset()
    if rank_of(communicator) == 1:
        dataset = data.ArrayDataset(dataset.images, dataset.labels, ("left", "centre", "right"))
    fit(Trainer(tiny.network(), communicator=communicator), out, train=dataset)


def other_network(communicator, out):
    Trainer(tiny.network(units=8 + rank_of(communicator)), communicator=communicator)


def other_rate(communicator, out):
    Trainer(tiny.network(), lr=0.1 * (1 + rank_of(communicator)), communicator=communicator)


def other_gradients(communicator, out):
    Trainer(tiny.network(), gradients=("fp32", "bf16")[rank_of(communicator)], communicator=communicator)


def other_exchange(communicator, out):
    with_gpus(communicator)
    exchange = ("auto", "mpi")[rank_of(communicator)]
    Trainer(tiny.network().to("cuda"), exchange=exchange, communicator=communicator)


def no_nccl(communicator, out):
    cupy = with_gpus(communicator)
    cupy.cuda.nccl.available = rank_of(communicator) != 1
    Trainer(tiny.network().to("cuda"), communicator=communicator)


def one_gpu(communicator, out):
    with_gpus(communicator, 1)
    Trainer(tiny.network().to("cuda"), communicator=communicator)


def nccl_fails(communicator, out, where):
    """On rank 1, for which rank 0 waits; or on rank 0, before it knows what rank 1 waits for."""
    cupy = with_gpus(communicator)
    if rank_of(communicator) == {"get_unique_id": 0, "NcclCommunicator": 1}[where]:
        setattr(cupy.cuda.nccl, where, cupy.cuda.nccl.fails)
    Trainer(tiny.network().to("cuda"), communicator=communicator)


def other_augmentation(communicator, out):
    flip = rank_of(communicator) != 1
    fit(Trainer(tiny.network(), communicator=communicator), out, augmentation=Augmentation(1, flip=flip))


def other_version(communicator, out):
    if rank_of(communicator) == 1:
        sys.modules["zfcuda.training.trainer"].__version__ = "0.0.9"
    Trainer(tiny.network(), communicator=communicator)


def rate_set_by_hand(communicator, out):
    """By a callback that forgets the other ranks."""

    def fall(trainer, metrics):
        if metrics["epoch"] == 2 and trainer.ranks.rank == 1:
            trainer.lr /= 10

    fit(Trainer(tiny.network(), communicator=communicator), out, callbacks=[fall])


def few_images(communicator, out):
    fit(Trainer(tiny.network(), communicator=communicator), out, batch_size=1)


def no_images(communicator, out):
    trainer = Trainer(tiny.network(), communicator=communicator)
    images, labels = tiny.batch(3)
    last = trainer.ranks.rank == 1
    trainer.step(images[3 * last :], labels[3 * last :])


class Failing(data.Subset):
    """Cannot be read any more from some batch on."""

    def __init__(self, dataset, error, after):
        super().__init__(dataset, range(len(dataset)))
        self.error, self.after = error, after

    def batch(self, indices):
        self.after -= 1
        if self.after < 0:
            raise self.error
        return super().batch(indices)


def raises(communicator, out, who="1", kind="OSError"):
    """In the second epoch, on one rank or on all."""
    error = {"OSError": OSError(5, "Input/output error", "/data/7.png"), "KeyError": KeyError("kept")}[kind]
    dataset = Failing(tiny.dataset(), error, 10)
    fails = who in ("all", str(rank_of(communicator)))
    fit(Trainer(tiny.network(), communicator=communicator), out, train=dataset if fails else tiny.dataset())


def diverges(communicator, out):
    fit(Trainer(tiny.network(), lr=1e30, communicator=communicator), out)


def disk_full(communicator, out):
    if rank_of(communicator) == 0:
        replace = os.replace

        def full(source, target):
            if (out / "run" / "metrics.jsonl").exists():
                raise OSError(28, "No space left on device")
            replace(source, target)

        os.replace = full
    fit(Trainer(tiny.network(), communicator=communicator), out)


def main(name, folder, *arguments):
    communicator, out = world(), Path(folder)
    try:
        globals()[name](communicator, out, *arguments)
    except (RanksDiffer, FloatingPointError, BackendError) as error:  # which all ranks raise, and could go on
        ranks = Ranks(communicator)
        said = ranks.gather(str(error))
        if ranks.rank == 0:
            (out / "raised.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
