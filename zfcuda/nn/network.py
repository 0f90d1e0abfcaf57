"""A convnet with its deconvnet: forward, projection to pixels, and the training pass (paper 2, P1 to P3)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends, ops
from ..backends import Array
from . import window
from .architecture import Architecture
from .capture import Captured, identity
from .checkpoint import ORIGIN, Checkpoint, PathLike, read_checkpoint
from .layers import KINDS, PRECISIONS, RULES, Layer, build_stages
from .projection import Descent
from .record import Record, Training
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
    """

    def __init__(self, architecture: Architecture, *, seed: int = 0, parameters: dict[str, Array] | None = None):
        self.architecture = architecture
        self.layers: dict[str, Layer] = {
            spec.name: KINDS[spec.kind](spec, shape, index) for index, (spec, shape) in enumerate(architecture.inputs())
        }
        self.stages = build_stages(list(self.layers.values()))
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
        self._projection = Captured()
        if parameters is None:
            self._initialise(seed)
        else:
            self.set_parameters(parameters)

    def _initialise(self, seed: int) -> None:
        for layer in self.layers.values():
            # A stream for each name: a layer starts alike in every variant in which its shape is the same.
            layer.initialise(np.random.default_rng([seed, *layer.name.encode()]), self.architecture.initial)

    # ---- Structure and parameters ------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.architecture.input_shape

    @property
    def num_classes(self) -> int:
        return next(reversed(self.layers.values())).output_shape[-1]

    @property
    def blocks(self) -> dict[int, str]:
        """{1: "pool1", 3: "relu3", ..., 8: "fc8"}: where the paper's layer 1, 3, ... 8 ends."""
        return self.architecture.blocks()

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
        for layer in self.layers.values():
            layer.hold()
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.release()

    def parameters(self) -> dict[str, Array]:
        """ "conv1.weight", "conv1.bias", ... -> the arrays themselves, in the order of the layers."""
        return {
            f"{layer.name}.{parameter}": getattr(layer, parameter)
            for layer in self.layers.values()
            for parameter in layer.parameter_shapes
        }

    def set_parameters(self, parameters: dict[str, Array]) -> None:
        """Puts these arrays (not copies) in the place of all parameters. ValueError if one is missing, unknown or of
        another shape, TypeError if one is not float32."""
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
        self.set_parameters({name: move(array) for name, array in self.parameters().items()})
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
        described = (self.architecture, self.parameters(), self.preprocess, self.classes)
        origin = {ORIGIN: json.dumps(self.origin)} if self.origin else {}
        Checkpoint(*described, dict(tensors or {}), origin | dict(metadata or {})).write(path)

    def locate(self, layer: str) -> tuple[int, int]:
        """(number of the stage, position in the stage) of a layer; ValueError if there is none of this name."""
        try:
            return self._places[layer]
        except KeyError:
            raise ValueError(f"layer must be one of {', '.join(self.layers)}; got {layer!r}") from None

    # ---- Forward -----------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Trace:
        """A test-mode forward pass (no dropout). x float32 (N,H,W,C) -> a trace with every layer's activation."""
        return Trace(self, self._forward(self._check_images("x", x), None))

    def predict(self, x: Array) -> Array:
        """x float32 (N,H,W,C) -> softmax probabilities (N, classes); any N, a bounded number goes forward at a time."""
        x = self._check_images("x", x)
        xp = backends.array_module(x)
        parts = []
        with self._holding_filters():
            for start in range(0, len(x), _PREDICT_BATCH):
                signal = x[start : start + _PREDICT_BATCH]
                for stage in self.stages:
                    signal = stage.forward(stage.enter(signal))["y"]
                parts.append(ops.softmax(signal))
        return parts[0] if len(parts) == 1 else xp.concatenate(parts)

    def _forward(self, x: Array, training: Training | None) -> list[Record]:
        records = []
        for stage in self.stages:
            records.append(stage.forward(stage.enter(x), training))
            x = records[-1]["y"]
        return records

    def _check_images(self, name: str, x: Array) -> Array:
        first = next(iter(self.parameters()))
        _, (x, _) = backends.resolve(**{name: x, first: self.parameters()[first]})
        if x.dtype != np.float32:
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

        Every layer from `layer` itself down to the first is undone. A pool: each value goes where its switch says. A
        conv or fc layer: its transpose, without bias. What a ReLU and a normalisation do is the rule:

        "deconvnet"  a ReLU rectifies the signal (whatever the forward activation was), normalisation is skipped
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
        if tuple(activations.shape) != shape:
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
        self, x: Array, labels: Array, *, dropout_seed: int = 0, step: int | Array = 0
    ) -> tuple[Array, Array, dict[str, Array]]:
        """One training pass (P2): x float32 (N,H,W,C), labels int32 (N,) -> mean cross-entropy (float32, shape ()),
        probabilities (N, classes), and the gradients of the mean loss, keyed as `parameters()`.

        Dropout is active; its masks are a pure function of `dropout_seed`, `step` (below 2^48; a number, or a uint64
        array of shape ()) and the layer. The network keeps the arrays of gradients: the next call overwrites them. The
        gradient of the images is not computed.
        """
        x = self._check_images("x", x)
        with self._holding_filters():
            return self._loss_and_gradients(x, labels, Training(dropout_seed, step, self._gradient_arrays()))

    def _loss_and_gradients(self, x: Array, labels: Array, training: Training) -> tuple[Array, Array, dict[str, Array]]:
        records = self._forward(x, training)
        loss, probabilities = ops.softmax_cross_entropy(records[-1]["y"], labels)
        signal: Any = ops.softmax_cross_entropy_grad(probabilities, labels)
        first = next(i for i, stage in enumerate(self.stages) if any(layer.parameter_shapes for layer in stage.layers))
        for stage, record in zip(self.stages, records, strict=True):
            if "y" not in stage.reads("gradient"):
                record.forget("y")
        for i in range(len(self.stages) - 1, first - 1, -1):
            # The record dies here, and its arrays serve the next layers' gradients.
            record = records.pop()
            signal = self.stages[i].enter(signal)
            signal = self.stages[i].backward(signal, record, training, need_dx=i > first)
        return loss, probabilities, training.gradients

    def _gradient_arrays(self) -> dict[str, Array]:
        parameters = self.parameters()
        if not self._gradients:
            backend, _ = backends.resolve(**parameters)
            self._gradients = {name: backend.empty(array.shape) for name, array in parameters.items()}
        return self._gradients


def load(path: PathLike) -> Network:
    """The network of a checkpoint, on the CPU.

    FileNotFoundError if there is no such file; CheckpointError, naming the path, if it is damaged, cut short, not
    made by zfcuda, or if its weights are not those of its architecture.
    """
    saved = read_checkpoint(path)
    network = Network(saved.architecture, parameters=saved.parameters)
    network.preprocess, network.classes, network.origin = saved.preprocess, saved.classes, saved.origin
    return network
