"""What every kind of layer says of itself.

A kind is a pair of classes in one file. The specification is a value: it compares, goes into JSON, and one of it makes
many networks. The layer is state: settings and weights on a device, in one network, and what it does with arrays.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ... import ops
from ..._devices import BFLOAT16, FLOAT32, Array
from ..record import Record, Training
from ..span import Shape, Span
from ..window import Windows

RULES = ("deconvnet", "gradient", "guided")
PRECISIONS = ("fp32", "tf32", "bf16")

Spec = TypeVar("Spec", bound="LayerSpec")


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) < 2**31


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not np.isnan(float(value))


# What a field of a specification may be, by its type; sizes and paddings are checked with what they are for.
_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_whole, "a whole number below 2^31"),
    "float": (_is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "tuple[int, ...]": (lambda value: isinstance(value, tuple) and all(map(_is_whole, value)), "whole numbers"),
    "tuple[str, ...]": (
        lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value),
        "names of layers",
    ),
}


@dataclass(frozen=True)
class LayerSpec:
    """A layer without its arrays. name: any string that a module path can be, such as "conv1" or "layer1.0.conv1";
    inputs: the names of the layers that it reads, "input" being the image, or nothing for the layer before it; block:
    the paper's number of the layer, None if it is that of the layer before it (`Architecture.numbers`)."""

    kind: ClassVar[str]
    weighted: ClassVar[bool] = False  # one of those that the paper counts as its layers
    ends_block: ClassVar[bool] = True  # its output may stand for the block (normalisation and dropout come after)
    joins: ClassVar[bool] = False  # reads several layers, two or more

    name: str
    inputs: tuple[str, ...] = field(default=(), kw_only=True)
    block: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """ValueError, naming layer and fields, where one is of another type: descriptions are written by hand, too."""
        faults: list[str] = []
        for one in dataclasses.fields(self):
            is_allowed, words = _ALLOWED.get(str(one.type), (None, ""))
            value = getattr(self, one.name)
            if is_allowed is not None and not is_allowed(value):
                faults.append(f"{one.name} must be {words}, got {value!r}")
        if faults:
            raise ValueError(f"{self.name}: {'; '.join(faults)}")

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """As `output_shape`, from the shapes of all inputs."""
        (shape,) = shapes
        return self.output_shape(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Of one image, from its input's. ValueError, naming the layer, if there is none."""
        return shape

    def spans(self, shape: Shape) -> tuple[Span, Span]:
        """The inputs that an output sees, down and across: here the one at its own place."""
        height, width = shape[:2] if len(shape) == 3 else (1, 1)
        return Span(height), Span(width)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """What is learned, by the name of the layer's attribute."""
        return {}

    def state_shapes(self, shape: Shape) -> dict[str, Shape]:
        """What training keeps besides, such as running averages, likewise."""
        return {}

    def scaled(self: Spec, factor: float) -> Spec:
        """With so many times the maps or units, if their number is the specification's to say."""
        return self


def require_flat_or_map(name: str, shape: Shape) -> None:
    if len(shape) not in (1, 3):
        raise ValueError(f"{name} needs an input of shape (H, W, C) or (units,), got {shape}")


def require_positive(name: str, field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: {field} must be at least 1, got {value}")


class Product(NamedTuple):
    """The convolution that a layer is, of one image: x (H,W,C), filters (K,R,S,C)."""

    x: Shape
    filters: Shape
    stride: tuple[int, int]
    padding: tuple[int, int]


class Layer:
    """A layer in a network: the fields of its specification are its attributes, `index` is its place among the layers.

    What it is given has the dtype of its precision (`enter`), which the network sets. A kind must say `forward` and
    `undo` (one that joins layers, `run` and `distribute`); one that says nothing else has no parameters, and runs by
    itself and on whole maps only.
    """

    spec_type: ClassVar[type[LayerSpec]]

    on_windows: ClassVar[bool] = False
    """Whether `undo_windows` and `forward_padded` hold: an output sees a window of the input, the same everywhere."""
    border: ClassVar[float] = 0.0
    """What lies in the padding of the input."""
    fusions: ClassVar[Mapping[tuple[str, ...], Any]] = {}
    """The kinds that may follow in one stage, the longest run first -> the class of that `Stage`."""
    sums: ClassVar[bool] = False
    """Whether it is the sum of its inputs."""
    concatenates: ClassVar[bool] = False
    """Whether it is the channels of its inputs, one after the other."""
    reads_apart: ClassVar[bool] = False
    """Whether at test time it reads the channels of a wider array where they lie."""
    overwrites: ClassVar[bool] = False
    """Whether `backward` may write over the `dy` that it is given."""

    name: str
    inputs: tuple[str, ...]
    block: int | None
    precision = "fp32"

    def __init__(self, spec: LayerSpec, input_shapes: Sequence[Shape], index: int):
        vars(self).update({field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)})
        self.index = index
        self.input_shapes = tuple(input_shapes)
        self.input_shape = self.input_shapes[0]
        self.output_shape = spec.joined_shape(input_shapes)
        self.spans = spec.spans(self.input_shape)
        self.parameter_shapes = spec.parameter_shapes(self.input_shape)
        self.state_shapes = spec.state_shapes(self.input_shape)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.input_shape} -> {self.output_shape}>"

    @property
    def kind(self) -> str:
        return self.spec_type.kind

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input map."""
        return self.spans[0].size, self.spans[1].size

    @property
    def adds(self) -> bool:
        """Whether `forward` takes an array `add` of the output's shape and dtype, which comes to the result before
        `relu`."""
        return False

    @property
    def writes_apart(self) -> bool:
        """Whether `forward` takes an array `out`, which may be channels of a wider one."""
        return False

    @property
    def product(self) -> Product | None:
        """The layer as a convolution, if it is one."""
        return None

    # ---- Precision and parameters --------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype:
        """Of the layer's input, output and signals."""
        return BFLOAT16 if self.precision == "bf16" else FLOAT32

    def enter(self, signal: Array) -> Array:
        """The signal in the layer's dtype."""
        dtype = self.dtype
        return signal if signal.dtype == dtype else ops.cast(signal, dtype)

    def initialise(self, rng: np.random.Generator, initial: str) -> None:
        """Gives the parameters the values that training starts from, as `Architecture.initial` says."""

    def hold(self) -> None:
        """Until `release` the parameters do not change: what is made of them may be made once."""

    def release(self) -> None:
        pass

    # ---- Forward ---------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """The test-time operation on a batch."""
        raise NotImplementedError

    def forward_padded(self, x: Array) -> Array:
        """The same on an x, or on patches of it, with the padding (of `border`) already around it."""
        return self.forward(x)

    def run(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        """The operation with all that the way back may read: "x", "y", and what the kind adds. `training` is None at
        test time."""
        (x,) = inputs
        return {"x": x, "y": self.forward(x)}

    def run_rectified(self, inputs: Sequence[Array], training: Training | None) -> dict[str, Array]:
        """The same, and the ReLU behind it, of the kinds that a `Rectified` stage may begin with."""
        raise NotImplementedError

    # ---- Back ------------------------------------------------------------------------------------------------

    def reads(self, rule: str) -> set[str]:
        """Which arrays ("x", "y", and those that `run` adds) `undo` looks at under this rule."""
        return set()

    def undo(self, signal: Array, rule: str, record: Record) -> Array:
        """Carries a signal from the layer's output to its input (`Network.project` says how, by each rule)."""
        raise NotImplementedError

    def distribute(self, signal: Array, rule: str, record: Record) -> list[Array]:
        """The same to each of the layer's inputs."""
        return [self.undo(signal, rule, record)]

    def undo_windows(self, windows: Windows, rule: str, record: Record) -> Windows:
        """The same on windows; the record is of what lies in them. As it stands here for layers that keep each value at
        its place, and each zero."""
        return dataclasses.replace(windows, signal=self.undo(windows.signal, rule, record))

    def distribute_windows(self, windows: Windows, rule: str, record: Record) -> list[Windows]:
        return [self.undo_windows(windows, rule, record)]

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        """The training pass: writes the gradients of the parameters and returns those of the inputs, none if they are
        not needed. What the record forgets serves others, and where the kind `overwrites`, so does `dy`."""
        return self.distribute(dy, "gradient", record) if need_dx else ()
