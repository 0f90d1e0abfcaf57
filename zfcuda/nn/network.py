"""A convnet with its deconvnet: forward, projection to pixels, and the training pass (paper 2, P1 to P3)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends, ops
from ..backends import Array
from ..wording import like, listed
from . import window
from .architecture import Architecture
from .capture import Captured, identity
from .checkpoint import ORIGIN, Checkpoint, PathLike, check_head, read_checkpoint
from .layers import KINDS, PRECISIONS, RULES, Layer, Stage, build_stages, passing_stages
from .projection import Descent
from .record import Part, Record, Training
from .trace import Trace

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["Network", "load"]

_PREDICT_BATCH = 64  # images that go forward at a time in `predict`


class Network:
    """A network built from its `architecture`, with weights that a `seed` draws or that `parameters` gives.

    layers      ordered name -> layer; a conv or fc layer's `weight` and `bias` are plain arrays: writing to them, or
                putting other arrays in their place, takes effect at the next call
    blocks      the paper's layer number -> the name of the layer that ends it, before normalisation and dropout
    preprocess  how images become inputs, as the training set it; None for a network that was not trained
    classes     the names of the classes, likewise
    origin      what it was trained on and how, likewise: values that JSON knows, see `zfcuda.training.Trainer.fit`
    head        what `predict` makes of the last layer's output: "softmax", "sigmoid", or "none", the output itself;
                at first "softmax", of one output "sigmoid"
    """

    def __init__(self, architecture: Architecture, *, seed: int = 0, parameters: dict[str, Array] | None = None):
        self.architecture = architecture
        read = zip(architecture.layers, architecture.inputs(), architecture.input_shapes(), strict=True)
        self.layers: dict[str, Layer] = {
            spec.name: KINDS[spec.kind](dataclasses.replace(spec, inputs=inputs), shapes, index)
            for index, (spec, inputs, shapes) in enumerate(read)
        }
        self.stages = build_stages(list(self.layers.values()))
        self._head = "sigmoid" if self.num_classes == 1 else "softmax"
        self._precision = "fp32"
        self._places = {
            layer.name: (i, position)
            for i, stage in enumerate(self.stages)
            for position, layer in enumerate(stage.layers)
        }
        self.preprocess: Preprocess | None = None
        self.classes: tuple[str, ...] | None = None
        self.origin: dict[str, Any] = {}
        self._gradients: dict[str, Array] = {}
        self._statistics: dict[str, tuple[Array, float]] = {}
        self._learned = _learned_from(self.stages)
        self._passing = passing_stages(self.stages)
        self._last_readers = {name: i for i, stage in enumerate(self._passing) for name in stage.inputs}
        self._projection = Captured()
        if parameters is None:
            self._initialise(seed)
        else:
            self.set_parameters(parameters)

    def _initialise(self, seed: int) -> None:
        for layer in self.layers.values():
            # A stream for each name: a layer starts alike in every variant in which its shape is the same.
            layer.initialise(np.random.default_rng([seed, *layer.name.encode()]), self.architecture.initial)

    def __repr__(self) -> str:
        outputs = f"{self.num_classes:,} output{'s' if self.num_classes > 1 else ''}, {self.head}"
        numbers = sum(math.prod(shape) for layer in self.layers.values() for shape in layer.parameter_shapes.values())
        shape = " x ".join(map(str, self.input_shape))
        return f"<Network: images of {shape}, {len(self.layers)} layers, {numbers:,} parameters, {outputs}>"

    # ---- Structure and parameters ------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.architecture.input_shape

    @property
    def num_classes(self) -> int:
        """How many numbers come out for an image."""
        return math.prod(next(reversed(self.layers.values())).output_shape)

    @property
    def blocks(self) -> dict[int, str]:
        """{1: "pool1", 3: "relu3", ..., 8: "fc8"}: where the paper's layer 1, 3, ... 8 ends."""
        return self.architecture.blocks()

    @property
    def head(self) -> str:
        """What `predict` makes of the last layer's output: "softmax", "sigmoid" or "none". It may be set, but of one
        output not to "softmax"."""
        return self._head

    @head.setter
    def head(self, value: str) -> None:
        if value != self._head:
            check_head(value, self.num_classes)
        self._head = value

    @property
    def precision(self) -> str:
        """In what the network computes, forward and back; it may be set at any time, and is not saved with the weights.

        "fp32"  exact float32, the default
        "tf32"  float32, but convolutions and fully connected layers may round their factors to 11 significant bits, for
                the tensor cores of a GPU (where there are none, they do not)
        "bf16"  activations, signals and copies of the weights in bfloat16, with sums in float32: half the memory. The
                last stage, which makes the logits, is float32 as in "tf32", and so are all weights and gradients

        What goes in and comes out (images, activations of a trace, pixels, probabilities) is float32 in any case.
        """
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {value!r}")
        self._precision = value
        for stage in self.stages:
            for layer in stage.layers:
                layer.precision = "tf32" if value == "bf16" and stage is self.stages[-1] else value

    @contextlib.contextmanager
    def _holding_filters(self) -> Iterator[None]:
        """Within this context the weights do not change, and are rounded to bfloat16 once."""
        for stage in self.stages:
            stage.hold()
        try:
            yield
        finally:
            for stage in self.stages:
                stage.release()

    def parameters(self) -> dict[str, Array]:
        """ "conv1.weight", "conv1.bias", ... -> the arrays themselves, in the order of the layers."""
        return dict(self._each_parameter())

    def _each_parameter(self) -> Iterator[tuple[str, Array]]:
        for layer in self.layers.values():
            for parameter in layer.parameter_shapes:
                yield f"{layer.name}.{parameter}", getattr(layer, parameter)

    def state(self) -> dict[str, Array]:
        """What training keeps besides parameters, likewise: "bn1.running_mean", "bn1.running_var", ..."""
        return {
            f"{layer.name}.{array}": getattr(layer, array)
            for layer in self.layers.values()
            for array in layer.state_shapes
        }

    def set_parameters(self, parameters: dict[str, Array]) -> None:
        """Puts these arrays (not copies) in the place of all parameters, and of all state. ValueError if one is
        missing, unknown or of another shape, TypeError if one is not float32."""
        self.architecture.check_parameters(parameters)
        for name, array in parameters.items():
            layer, _, parameter = name.rpartition(".")
            setattr(self.layers[layer], parameter, array)

    def identity(self) -> Hashable:
        """What stays the same as long as work captured on this network may be launched again: the settings of layers,
        and the addresses of weights and gradients, but not their values."""
        layers = tuple(identity(vars(layer)) for layer in self.layers.values())
        return layers, identity(self._gradients)

    def to(self, device: str) -> Network:
        """Moves the parameters to "cuda" (CuPy's current device) or "cpu", and returns the network itself."""
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
        if device == "cuda":
            move: Any = backends.get("cuda").xp.asarray
        else:
            move = backends.to_host
        self.set_parameters({name: move(array) for name, array in (self.parameters() | self.state()).items()})
        self._gradients = {}
        self._projection = Captured()
        return self

    def save(
        self,
        path: PathLike,
        *,
        tensors: Mapping[str, Array] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Writes weights, architecture, preprocessing, classes and origin as safetensors, and what else is given with
        them (see `zfcuda.nn.checkpoint`); a file that was there stays whole until the new one is."""
        described = (self.architecture, self.parameters() | self.state(), self.preprocess, self.classes)
        origin = {ORIGIN: json.dumps(self.origin)} if self.origin else {}
        Checkpoint(*described, dict(tensors or {}), origin | dict(metadata or {}), self.head).write(path)

    def locate(self, layer: str) -> tuple[int, int]:
        """(number of the stage, position in the stage) of a layer; ValueError if there is none of this name."""
        try:
            return self._places[layer]
        except KeyError:
            names = list(self.layers)
            raise ValueError(f"layer must be one of {listed(names)}; got {layer!r}{like(str(layer), names)}") from None

    # ---- Forward -----------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Trace:
        """A test-mode forward pass (no dropout). x float32 (N,H,W,C) -> a trace with every layer's activation."""
        return Trace(self, self._forward(self._check_images("x", x), None))

    def predict(self, x: Array) -> Array:
        """x float32 (N,H,W,C) -> probabilities (N, classes), or what else `head` says; any N, a bounded number goes
        forward at a time."""
        x = self._check_images("x", x)
        xp = backends.array_module(x)
        parts = []
        with self._holding_filters():
            for start in range(0, len(x), _PREDICT_BATCH):
                parts.append(self.answer(self._output(x[start : start + _PREDICT_BATCH])))
        return parts[0] if len(parts) == 1 else xp.concatenate(parts)

    def _output(self, x: Array) -> Array:
        """The last layer's output; what no later stage reads is let go."""
        signals: dict[Hashable, Array] = {"input": x}
        for i, stage in enumerate(self._passing):
            inputs = [stage.enter(signals[name]) for name in stage.inputs]
            for name in set(stage.inputs):
                if self._last_readers[name] == i:
                    del signals[name]
            made = stage.make(inputs)
            signals |= {name: array for name, array in made.items() if self._last_readers.get(name, i) > i}
        return made[stage.name]

    def answer(self, output: Array) -> Array:
        """What `predict` says, from the last layer's output of N images: (N, classes), as `head` has it."""
        output = ops.cast(output, np.float32).reshape(len(output), -1)
        if self.head == "softmax":
            return ops.softmax(output)
        if self.head == "sigmoid":
            # Of the magnitude, which cannot overflow.
            xp: Any = backends.array_module(output)
            small = xp.exp(-xp.abs(output))
            return xp.where(output < 0, small, 1) / (1 + small)
        return output

    def _forward(self, x: Array, training: Training | None) -> list[Record]:
        records = []
        signals = {"input": x}
        for stage in self.stages:
            records.append(stage.forward([stage.enter(signals[name]) for name in stage.inputs], training))
            signals[stage.name] = records[-1]["y"]
        return records

    def _check_images(self, name: str, x: Array) -> Array:
        first, weight = next(self._each_parameter())
        _, (x, _) = backends.resolve(**{name: x, first: weight})
        if backends.not_none(name, x).dtype != np.float32:
            raise TypeError(f"{name} must be float32, got {x.dtype}")
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape or not len(x):
            expected = ", ".join(str(size) for size in self.input_shape)
            raise ValueError(
                f"{name} must have shape (N, {expected}), the input of {next(iter(self.layers))}, with N at least 1; "
                f"got {tuple(x.shape)}"
            )
        return x

    # ---- Projection ----------------------------------------------------------------------------------------------

    def project(self, trace: Trace, layer: str, activations: Array, rule: str = "deconvnet") -> Array:
        """Carries activations of a layer back to pixels (paper 2.1, P3): trace of N images, activations float32 of
        the shape of trace[layer], zero but for what is looked at -> pixels (N,H,W,C).

        Every layer from `layer` itself down to the first is undone. A pool: each value goes where its switch says. What
        is linear (conv and fc layers, averages, concatenations, sums, batch normalisation at test time): its transpose,
        without bias; where a layer is read by several, their signals add. What a rectifier and local response
        normalisation do is the rule:

        "deconvnet"  a ReLU rectifies the signal (whatever the forward activation was), as does one that clips; a leaky
                     one sends it through the same function; normalisation is skipped
        "gradient"   the derivative of sum(activations * trace[layer]) with respect to the pixels: a ReLU masks the
                     signal where its forward output is 0, normalisation gives its gradient
        "guided"     like "gradient", and a ReLU rectifies as well (Springenberg et al. 2015)

        So from "pool5" the signal is unpooled, then rectified, then filtered; from "relu5" rectified, then filtered;
        from "conv5" filtered.

        Where the activations looked at lie close together in every image, only the windows that they can reach are
        computed, with the same result. On a GPU, a projection like the last one (rule, layer, shape of the batch, size
        of the windows) is captured as a CUDA graph, which those that follow launch (`zfcuda.nn.capture.Captured`).
        """
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
        if trace.network is not self:
            raise ValueError("trace must come from this network's forward")
        stages, records = trace.upto(layer)
        backend, (activations, _) = backends.resolve(activations=activations, trace=trace.records[0]["x"])
        shape = (len(trace), *self.layers[layer].output_shape)
        if tuple(backends.not_none("activations", activations).shape) != shape:
            raise ValueError(f"activations of {layer} must have shape {shape}, got {tuple(activations.shape)}")
        if activations.dtype != np.float32:
            raise TypeError(f"activations must be float32, got {activations.dtype}")
        windows = window.find(activations) if activations.ndim == 4 else None
        signal = activations if windows is None else windows
        descent = Descent(stages, rule)
        if backend.on_host:
            return descent(signal, records)
        return descent.captured(self._projection, signal, records, self.identity)

    # ---- Training ------------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self, x: Array, labels: Array, *, dropout_seed: int = 0, step: int | Array = 0, part: Part | None = None
    ) -> tuple[Array, Array, dict[str, Array]]:
        """One training pass (P2): x float32 (N,H,W,C), labels int32 (N,) -> mean cross-entropy (float32, shape ()),
        probabilities (N, classes), and the gradients of the mean loss, keyed as `parameters()`.

        Dropout is active; its masks are a pure function of `dropout_seed`, `step` (below 2^48; a number, or a uint64
        array of shape ()) and the layer. The network keeps the arrays of gradients: the next call overwrites them. The
        gradient of the images is not computed. Batch normalisation is by the batch's statistics, which change running
        averages only by `update_state`.

        part: where x is a part of a batch. Dropout and batch normalisation are then those of the whole batch, loss and
        gradients are the part's.
        """
        x = self._check_images("x", x)
        with self._holding_filters():
            return self._loss_and_gradients(x, labels, Training(dropout_seed, step, self._gradient_arrays(), part=part))

    def _loss_and_gradients(self, x: Array, labels: Array, training: Training) -> tuple[Array, Array, dict[str, Array]]:
        records = self._forward(x, training)
        logits = records[-1]["y"].reshape(len(x), -1)
        loss, probabilities = ops.softmax_cross_entropy(logits, labels)
        signal: Any = ops.softmax_cross_entropy_grad(probabilities, labels).reshape(records[-1]["y"].shape)
        del logits
        for stage, record in zip(self.stages, records, strict=True):
            if "y" not in stage.reads("gradient"):
                record.forget("y")
        arriving = {self.stages[-1].name: signal}
        del signal
        for stage in reversed(self.stages):
            # The record dies here, and its arrays serve the next layers' gradients.
            record = records.pop()
            if stage.name not in self._learned:
                continue
            dy = stage.enter(arriving.pop(stage.name))
            if stage.overwrites and _is_shared(dy, arriving.values()):
                dy = dy.copy()
            need_dx = any(name in self._learned for name in stage.inputs)
            dxs = stage.backward(dy, record, training, need_dx)
            if training.part is not None:
                training.part.ready({name: training.gradients[name] for name in stage.parameter_names})
            for place, (name, dx) in enumerate(zip(stage.inputs, dxs, strict=need_dx)):
                if name in self._learned:
                    arriving[name] = _accumulated(arriving, name, dx, dxs[place + 1 :])
        self._statistics = training.statistics
        return loss, probabilities, training.gradients

    def update_state(self, *, guard: Array | None = None) -> None:
        """Moves the running averages towards the statistics of the batch of the last `loss_and_gradients`; not at all
        where `guard` (as in `ops.sgd_step`) is not finite. In place."""
        averages = self.state()
        for name, (found, share) in self._statistics.items():
            average = averages[name]
            # A step of gradient descent on half the squared distance.
            velocity = backends.array_module(average).zeros_like(average)
            ops.sgd_step(average, average - found, velocity, lr=share, momentum=0.0, weight_decay=0.0, guard=guard)

    def _gradient_arrays(self) -> dict[str, Array]:
        if not self._gradients:
            parameters = self.parameters()
            backend, _ = backends.resolve(**parameters)
            self._gradients = {name: backend.empty(array.shape) for name, array in parameters.items()}
        return self._gradients


def _learned_from(stages: Sequence[Stage]) -> set[str]:
    """The stages at or before which there are parameters: a gradient goes no further down than to these."""
    learned: set[str] = set()
    for stage in stages:
        if any(layer.parameter_shapes for layer in stage.layers) or not learned.isdisjoint(stage.inputs):
            learned.add(stage.name)
    return learned


def _is_shared(array: Array, others: Iterable[Array]) -> bool:
    """Whether the memory of an array may be that of others, too: layers pass signals on as they are, or reshaped."""
    xp: Any = backends.array_module(array)
    return any(xp.may_share_memory(array, other) for other in others)


def _accumulated(arriving: Mapping[str, Array], name: str, part: Array, others: Sequence[Array]) -> Array:
    """The gradient that arrives at a layer with one more part of it, in the memory of that part if it is nobody
    else's, neither of what arrives nor of the others, which are still to."""
    if name not in arriving:
        return part
    there = arriving[name]
    if there.dtype != part.dtype:
        there, part = ops.cast(there, np.float32), ops.cast(part, np.float32)
    return ops.add(part, there, out=None if _is_shared(part, [*arriving.values(), *others]) else part)


def load(path: PathLike) -> Network:
    """The network of a checkpoint, on the CPU.

    FileNotFoundError if there is no such file; CheckpointError, naming the path, if it is damaged, cut short, not
    made by zfcuda, or if its weights are not those of its architecture.
    """
    saved = read_checkpoint(path, others=False)
    network = Network(saved.architecture, parameters=saved.parameters)
    network.preprocess, network.classes = saved.preprocess, saved.classes
    network.origin, network._head = saved.origin, saved.head
    return network
