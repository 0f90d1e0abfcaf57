"""Training a network from scratch (P2)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from .._version import __version__
from ..backends import Array, array_module, resolve
from ..data import Augmentation, Dataset, Drawn, Preprocess, load_crops, shuffled
from ..files import write_atomically
from ..nn import Network, read_checkpoint
from ..nn.capture import Captured, identity
from ..nn.finite import check_weights
from ..numbers import check_at_least, check_number, check_whole
from ..ops.loss import check_label_range
from .checkpoint import CHECKPOINT, METRICS, Progress, load_training, save_training
from .distributed import SharedStep, check_options, exchange_for
from .divergence import describe_divergence
from .evaluation import evaluate, fitting, rank_of_label
from .inputs import default_preprocess
from .messages import of_epoch, of_interruption
from .optimizer import SGD
from .origin import Origin, augmentation_of, changes, check_resumable, data_of, describe
from .ranks import Communicator, Ranks, RanksDiffer
from .schedule import Fixed, Schedule

Metrics = dict[str, Any]
Callback = Callable[["Trainer", Metrics], None]
Item = TypeVar("Item")


class _Launched(NamedTuple):
    """A step that is on its way on a GPU, or done on a CPU. probabilities: until the next step; loss: a call that waits
    for it."""

    step: int
    lr: float
    images: Array
    labels: Array
    probabilities: Array
    loss: Callable[[], np.ndarray]


class Trainer:
    """Stochastic gradient descent on the cross-entropy of a network, as the paper trains (P2).

    net             trained in place, on the device where it is
    lr, momentum    v = momentum * v - lr * (gradient + weight_decay * w); w = w + v
    weight_decay    of the weights; biases and factors of normalisation do not decay
    max_filter_rms  after each step, conv filters of a larger root mean square are scaled back to it (the paper's 1e-1;
                    with inputs in [-128, 128] and weights that start at 1e-2); None leaves them
    precision       sets `net.precision`: "fp32", "tf32" or "bf16"; None leaves it. Weights, their gradients and the
                    optimiser are float32 in each
    seed            of dropout, crops, flips and the order of the images. The same seed gives the same bits
    communicator    of mpi4py, where several processes train one network: each makes a trainer with the same arguments,
                    and calls it as the others do
    gradients       "fp32", or "bf16": rounded where they travel between processes, which is half as much
    exchange        how they travel: "nccl", from GPU to GPU; "mpi", through the host's memory; "auto", by NCCL where
                    the network is on a GPU, else by MPI
    cuda_graphs     whether steps on a GPU become CUDA graphs, as below

    `lr` may be set at any time, as the paper does by hand; a schedule of `fit` multiplies it. ValueError for values
    that are not allowed.

    On a GPU a step is captured as a CUDA graph when a second one of the same shape follows the first, and from then on
    launched as a whole, until the shape, an array or a setting changes (`zfcuda.nn.capture.Captured`). Values written
    into the parameters take effect at the next step, and the bits are those of plain launches. The graph holds the
    memory of a step as long as the trainer lives; without `cuda_graphs` every operation is launched by itself.

    With a communicator every process (rank) computes its share of each batch, and all make the same step: that of one
    process on the whole batch, but for rounding. All start from rank 0's weights. For the same number of processes the
    bits are the same from run to run. `RanksDiffer` where networks, options or versions are not the same; what only
    one rank raises ends all of them (MPI_Abort), in `fit` and in a `with trainer.ranks.ending_together():`. No CUDA
    graphs are captured.

    NCCL wants a GPU for each rank (`Ranks.take_gpu`, before the network moves there); `BackendError` where two have
    one, or one has no NCCL: nothing falls back to MPI unasked. Its bits are the same from run to run on the same
    machine, but its sums are in another order than MPI's (`zfcuda.training.by_nccl`). Not run on a GPU yet.
    """

    def __init__(
        self,
        net: Network,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        max_filter_rms: float | None = None,
        *,
        precision: str | None = None,
        seed: int = 0,
        communicator: Communicator | None = None,
        gradients: str = "fp32",
        exchange: str = "auto",
        cuda_graphs: bool = True,
    ):
        check_options(gradients, exchange)
        lr, seed = check_number("lr", lr), check_whole("seed", seed)
        if not 0 < lr < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {lr}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {seed}")
        if net.num_classes == 1:
            raise ValueError(
                "net must have an output for each class to be trained by cross-entropy, two or more; got 1"
            )
        if net.head != "softmax":
            raise ValueError(
                f"net must end with a softmax to be trained by cross-entropy, but its head is {net.head!r}"
            )
        if precision is not None:
            net.precision = precision
        self.net = net
        self.lr = lr
        self.seed = seed
        self.optimizer = SGD(
            net.parameters(), momentum=momentum, weight_decay=weight_decay, max_filter_rms=max_filter_rms
        )
        self.steps = 0
        self.history: list[Metrics] = []
        self._guard = array_module(next(iter(net.parameters().values()))).zeros((), np.float32)
        self._captured = Captured() if cuda_graphs else None
        self.ranks = Ranks(communicator)
        made_of = {"version": __version__, "architecture": net.architecture.to_dict(), "precision": net.precision}
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "max_filter_rms": max_filter_rms}
        self._shared: SharedStep | None = None
        self._of_ranks: dict[str, Any] = {}
        if self.ranks.size > 1:
            travel = {"gradients": gradients, "exchange": exchange_for(net, exchange)}
            self.ranks.check_same({**made_of, **options, "seed": seed, **travel})
            self._shared = SharedStep(self.ranks, net, **travel)
            self._of_ranks = {"processes": self.ranks.size, **travel}
            self._take_weights()

    # ---- One step ------------------------------------------------------------------------------------------

    def step(self, images: Array, labels: Array) -> float:
        """One update from ready inputs: images float32 (N,H,W,C), labels int32 (N,), where the network is -> mean loss.
        On several processes: of this one's part of the batch, one image or more -> the mean loss of the whole batch.

        FloatingPointError where the loss is NaN or infinite, with the number of the step (from 0) and the first layer
        with weights or activations that are not finite; the weights are then those from before the step. ValueError
        for labels out of range, likewise.
        """
        return self.launch(images, labels)()

    def launch(self, images: Array, labels: Array) -> Callable[[], float]:
        """One update as by `step`, for which the host does not wait: on a GPU it joins the stream, and the next one may
        be launched behind it.

        Returns a call that waits for it (and for no later one), and returns the loss or raises what `step` raises. From
        a loss that is not finite on, no update changes the weights until that call has been made.
        """
        launched = self._launch(images, labels, 1.0)
        return lambda: self._finish(launched)

    def _launch(self, images: Array, labels: Array, lr_factor: float) -> _Launched:
        lr = self.lr * lr_factor
        backend, _ = resolve(guard=self._guard)
        arrays = {
            "images": images,
            "labels": labels,
            "lr": backend.number(lr, np.float32),
            "step": backend.number(self.steps, np.uint64),
        }
        if self._captured is None or self._shared is not None:
            loss, probabilities = self._update(**arrays)
        else:
            loss, probabilities = self._captured(self._update, key=self._identity, **arrays)
        launched = _Launched(self.steps, lr, images, labels, probabilities, backend.read_later(loss))
        self.steps += 1
        return launched

    def _update(self, images: Array, labels: Array, lr: Array, step: Array) -> tuple[Array, Array]:
        """The step itself, all of it on the device: loss and probabilities."""
        made_by = self._shared or self.net
        loss, probabilities, gradients = made_by.loss_and_gradients(images, labels, dropout_seed=self.seed, step=step)
        with np.errstate(invalid="ignore"):
            # NaN from the first loss on that is not finite. The weights then stay as they are, until the host knows.
            self._guard += 0 * loss
        self.optimizer.update(self.net.parameters(), gradients, lr, guard=self._guard)
        self.net.update_state(guard=self._guard)
        return loss, probabilities

    def _identity(self) -> Hashable:
        """All that a step depends on but the values in arrays."""
        return self.net.identity(), identity(vars(self.optimizer)), identity(self._guard), self.seed

    def _finish(self, launched: _Launched) -> float:
        """Waits for the step, and for no later one -> its loss. Raises as `step` says."""
        loss = float(launched.loss())
        if np.isfinite(loss):
            return loss
        self._guard.fill(0)
        self.steps = launched.step
        check_label_range(launched.labels, self.net.num_classes)
        raise FloatingPointError(
            f"the loss is {loss} in step {launched.step}: {describe_divergence(self.net, launched.images)}; "
            f"a smaller learning rate than {launched.lr:g} may help"
        )

    # ---- Many epochs ------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        *,
        epochs: int,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        augmentation: Augmentation | None = None,
        preprocess: Preprocess | None = None,
        out_dir: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        about: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> list[Metrics]:
        """Trains until `epochs` epochs are done, and returns the metrics of each.

        Every epoch visits the images in an order of its own, `batch_size` at a time (those left over wait for the next
        epoch), cropped and flipped by `augmentation`, then classifies `validation` by centre crops. Batches are read
        in another thread, ahead of their use.

        preprocess    by default `default_preprocess(net, train)`; kept in `net.preprocess`
        augmentation  by default P2's crops where images are larger than the network's input, else shifts; with flips.
                      A training that resumes goes on with its own
        schedule      factors on `lr`, epoch by epoch (`zfcuda.training.Fixed`, `Step`, `Linear`, `Cosine`, `Plateau`,
                      `Warmup`)
        out_dir       gets checkpoint.safetensors after every epoch, and metrics.jsonl, a JSON object per epoch
        resume        goes on from the checkpoint in `out_dir`, on the same data, bit for bit as if it had never
                      stopped; starts anew where there is none yet
        callbacks     called as callback(trainer, metrics) after every epoch, before its checkpoint is written
        about         what else `net.origin` is to say, such as where the data are; values that JSON knows. The rest is
                      in `zfcuda.training.origin.describe`

        Metrics: epoch (from 1), step, lr, train_loss and train_top1 (of the augmented images, while they were trained
        on), validation_loss, validation_top1, validation_top5 (shares, 0..1), seconds, images_per_second.

        On several processes every one calls it with the same arguments and the same data, and gets the same metrics.
        `batch_size` is that of the whole batch; in which order and how images come does not depend on how many
        processes there are, and a training may go on with another number. Rank 0 alone writes files and progress;
        callbacks are called by every rank. `RanksDiffer` before the first step where arguments or data differ.

        Ctrl-C leaves the checkpoint of the last whole epoch and says so. ValueError for arguments that are not allowed
        or do not fit the network, FloatingPointError as in `step`, `CheckpointError` for one that cannot be resumed.
        """
        with self.ranks.ending_together(but=(RanksDiffer, FloatingPointError)):
            epochs = check_at_least("epochs", epochs, 1)
            batch_size = check_at_least("batch_size", batch_size, 1)
            if resume and out_dir is None:
                raise ValueError("resume needs out_dir, where the checkpoint is")
            out = Path(out_dir) if out_dir is not None else None
            data = data_of(train, validation, saved=out is not None or self.ranks.size > 1)
            options = {"epochs": epochs, "batch_size": batch_size, "resume": resume}
            crops = {"augmentation": str(augmentation), "preprocess": preprocess and preprocess.digest}
            self.ranks.check_same({"classes": tuple(train.classes), **data, **options, **crops})
            saved, preprocess = self._begin(train, preprocess, augmentation, data, out, resume)
            train = fitting(self.net, train, preprocess)
            if validation is not None:
                validation = fitting(self.net, validation, preprocess)
            augmentation = augmentation or augmentation_of(saved) or Augmentation.for_images(preprocess)
            schedule = schedule or Fixed()
            batch_size = min(batch_size, len(train))
            if batch_size < self.ranks.size:
                raise ValueError(f"batch_size must be at least {self.ranks.size}, the processes; got {batch_size}")
            now = describe(self.net, data, augmentation, self._settings(batch_size, schedule), about or {})
            self.net.origin = {**saved, **now, "training": saved.get("training", now["training"])}

            progress = progress and self.ranks.rank == 0
            per_epoch = len(train) // batch_size * batch_size
            with tqdm(
                total=epochs * per_epoch,
                initial=min(len(self.history), epochs) * per_epoch,
                unit=" images",
                disable=None if progress else True,
                dynamic_ncols=True,
            ) as bar:
                if progress and (changed := changes(saved, now)):
                    bar.write(f"resumed with {', '.join(changed)}", file=sys.stderr)
                try:
                    while len(self.history) < epochs:
                        metrics = self._epoch(train, batch_size, schedule, augmentation, bar)
                        self._check_weights()
                        if validation is not None:
                            result = evaluate(self.net, validation, batch_size=batch_size, ranks=self.ranks)
                            metrics |= {f"validation_{name}": value for name, value in result._asdict().items()}
                        metrics = self.ranks.broadcast(metrics)  # times differ
                        self.history.append(metrics)
                        for callback in callbacks:
                            callback(self, metrics)
                        if out is not None and self.ranks.rank == 0:
                            self._save(out)
                        if progress:
                            bar.write(of_epoch(metrics, epochs), file=sys.stderr)
                    self.ranks.meet()
                except KeyboardInterrupt as error:
                    if self.ranks.size > 1:  # one of them says so
                        raise KeyboardInterrupt(of_interruption(len(self.history), out)) from error
                    bar.write(of_interruption(len(self.history), out), file=sys.stderr)
                    raise
        return self.history

    def _begin(
        self,
        train: Dataset,
        preprocess: Preprocess | None,
        augmentation: Augmentation | None,
        data: Origin,
        out: Path | None,
        resume: bool,
    ) -> tuple[Origin, Preprocess]:
        """Where the training stands, on all ranks as on rank 0, which alone looks into files -> the origin that the
        checkpoint has, {} where there is none, and how images become inputs."""
        saved: Origin = {}
        if self.ranks.rank == 0:
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
            if resume and out is not None and (out / CHECKPOINT).exists():
                saved = read_checkpoint(out / CHECKPOINT, others=False).origin
                check_resumable(out / CHECKPOINT, saved, data, augmentation)
                self._restore(out / CHECKPOINT)
            else:
                self.net.preprocess = preprocess or default_preprocess(self.net, train)
                self.net.classes = tuple(train.classes)
        state = self.seed, self.steps, self.history, self.net.preprocess, self.net.classes, saved
        self.seed, self.steps, self.history, self.net.preprocess, self.net.classes, saved = self.ranks.broadcast(state)
        assert self.net.preprocess is not None
        return saved, self.net.preprocess

    def _settings(self, batch_size: int, schedule: Schedule) -> dict[str, Any]:
        """What else the weights depend on, as JSON knows it."""
        preprocess, optimizer = self.net.preprocess, self.optimizer
        assert preprocess is not None
        return {
            "lr": self.lr,
            "momentum": optimizer.momentum,
            "weight_decay": optimizer.weight_decay,
            "max_filter_rms": optimizer.max_filter_rms,
            "batch_size": batch_size,
            "schedule": repr(schedule),
            "precision": self.net.precision,
            "scale": preprocess.scale,
            "seed": self.seed,
            **self._of_ranks,  # on which rounding depends
        }

    def _epoch(
        self, train: Dataset, batch_size: int, schedule: Schedule, augmentation: Augmentation, bar: tqdm
    ) -> Metrics:
        epoch = len(self.history)
        errors = [1 - past["validation_top1" if "validation_top1" in past else "train_top1"] for past in self.history]
        factor = schedule(epoch, errors)
        self.ranks.check_same({"learning rate": self.lr * factor})
        self._take_weights()
        rng = np.random.default_rng([self.seed, epoch])
        count = len(train) // batch_size
        order = shuffled(train, rng)[: count * batch_size].reshape(count, batch_size)
        bar.set_description(f"epoch {epoch + 1}")
        started = time.perf_counter()
        losses, right = [], 0
        inputs = self._inputs(train, order, rng, augmentation)
        for launched, count_right in _one_late(self._launch_all(inputs, factor)):
            losses.append(self._finish(launched))
            right += int(count_right())
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            bar.update(batch_size)
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "step": self.steps,
            "lr": self.lr * factor,
            "train_loss": float(np.mean(losses)),
            "train_top1": sum(self.ranks.gather(right)) / order.size,
            "seconds": round(seconds, 3),
            "images_per_second": round(order.size / seconds, 1),
        }

    def _take_weights(self) -> None:
        """Rank 0's: those of ranks on other processors may have come to differ by rounding."""
        for arrays in (self.net.parameters(), self.net.state(), self.optimizer.velocities):
            for array in arrays.values():
                self.ranks.broadcast_array(array)

    def _check_weights(self) -> None:
        """No epoch ends with weights that are not finite: the last step's are in no loss."""
        try:
            check_weights(self.net)
        except ValueError as error:
            raise FloatingPointError(f"{error} after step {self.steps - 1}; a smaller learning rate may help") from None

    def _launch_all(
        self, inputs: Iterable[tuple[Array, Array]], factor: float
    ) -> Iterator[tuple[_Launched, Callable[[], np.ndarray]]]:
        """Each batch's step, and a call for the number of its images that were classified right."""
        for images, labels in inputs:
            launched = self._launch(images, labels, factor)
            right = (rank_of_label(launched.probabilities, labels) < 1).sum()
            backend, _ = resolve(labels=labels)
            yield launched, backend.read_later(right)

    def _inputs(
        self, train: Dataset, order: np.ndarray, rng: np.random.Generator, augmentation: Augmentation
    ) -> Iterator[tuple[Array, Array]]:
        """This rank's share of the epoch's batches, cropped, on the network's device."""
        preprocess = self.net.preprocess
        assert preprocess is not None
        xp = array_module(next(iter(self.net.parameters().values())))
        batch_size = order.shape[1]
        share = self.ranks.share(batch_size)

        def draw(indices: np.ndarray) -> Drawn:
            corners, flips = augmentation.draw(rng, batch_size, preprocess)
            return Drawn(indices[share], corners[share], flips[share])

        return load_crops(train, preprocess, map(draw, order), xp)

    # ---- Files --------------------------------------------------------------------------------------------------

    def _save(self, out: Path) -> None:
        progress = Progress(self.seed, self.steps, self.history)
        self.net.origin["epochs"] = len(self.history)
        save_training(out / CHECKPOINT, self.net, self.optimizer.velocities, progress)
        lines = "".join(json.dumps(metrics) + "\n" for metrics in self.history)
        write_atomically(out / METRICS, lines.encode())

    def _restore(self, path: Path) -> None:
        progress = load_training(path, self.net, self.optimizer.velocities)
        self.seed, self.steps, self.history = progress.seed, progress.step, progress.history


def _one_late(items: Iterable[Item]) -> Iterator[Item]:
    """Each item when the next one has been made: a GPU has work to do while the host waits for a result."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting
