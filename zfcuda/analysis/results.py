"""How results of analyses reach a disk: numbers as JSON, never half a file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import display
from ..brief import Brief
from ..files import utf8, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result(Brief):
    """What an analysis found: a dataclass, which a notebook shows as a report does."""

    def plot(self) -> Figure:
        """The result as a Matplotlib figure."""
        raise NotImplementedError

    def _repr_html_(self) -> str | None:
        return display.html(self)

    def numbers(self) -> dict[str, Any]:
        """What is worth a file: its fields, where a result does not say otherwise."""
        return vars(self)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `numbers` as JSON."""
        write_json(path, self.numbers())


@dataclass(frozen=True, repr=False)
class OfClass(Result):
    """A result that follows what the net says of a class. head: the net's; where it is "none", what is called a
    probability is the class's output as it is, a logit perhaps. one_output: whether it is all that the net says, which
    then tells no classes apart (a yes or no, a regression)."""

    head: str = field(default="softmax", kw_only=True)
    one_output: bool = field(default=False, kw_only=True)

    @property
    def followed(self) -> str:
        """What is followed: "probability" or "output"."""
        return "output" if self.head == "none" else "probability"

    def followed_of(self, whose: str) -> str:
        """What is followed, and of which class, in words; of a net with one output alone, as there is no class."""
        return self.followed if self.one_output else f"{self.followed} of {whose}"


def to_plain(value: Any) -> Any:
    """Dataclasses, arrays and NumPy scalars as what JSON knows; NaN and infinity, which it does not, as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `to_plain(value)`, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, utf8(json.dumps(to_plain(value), indent=1, ensure_ascii=False) + "\n"))
