"""Layers from their descriptions in JSON, which are written by hand, too: all that is wrong is told at once."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..wording import check_none, like
from .layers import KINDS, LayerSpec

KEYS = ("input_shape", "initial", "layers")  # of a network


def read_layers(description: Any) -> tuple[LayerSpec, ...]:
    """The layers that a network's description lists. ValueError that names all layers which cannot be read, and what is
    wrong with them: their kinds, keys, and values of another type."""
    found: list[LayerSpec] = []
    check_none(_read_into(found, description))
    if not any("block" in one for one in description):
        found = _numbered_by_name(found)
    return tuple(found)


def _read_into(found: list[LayerSpec], description: Any) -> Iterator[str]:
    """What is wrong with those layers that cannot be read."""
    for place, one in enumerate(description, start=1):
        try:
            found.append(_layer(one, place))
        except ValueError as error:
            yield str(error)


def check_keys(description: dict[str, Any]) -> None:
    """ValueError where a network's description has not the keys of one."""
    faults = [f"it has no {key!r}" for key in KEYS if key not in description]
    faults += [f"unknown key {key!r}{like(str(key), KEYS)}" for key in description if key not in KEYS]
    if faults:
        raise ValueError(f"not the description of a network: {'; '.join(faults)} (keys: {', '.join(KEYS)})")


def _layer(description: Any, place: int) -> LayerSpec:
    if not isinstance(description, dict):
        raise ValueError(f"layer {place} must be described by its kind, name and what else it has, got {description!r}")
    fields = {field: value for field, value in description.items() if field != "kind"}
    kind, name = description.get("kind"), description.get("name")
    what = f"layer {name!r}" if "name" in description else f"layer {place}"
    if not isinstance(kind, str) or kind not in KINDS:
        near = like(kind, KINDS) if isinstance(kind, str) else ""
        raise ValueError(f"{what} is of unknown kind {kind!r}{near}; known: {', '.join(KINDS)}")
    spec: Any = KINDS[kind].spec_type
    faults = list(_of_keys(spec, fields))
    if faults:
        raise ValueError(f"{what} ({kind}): {'; '.join(faults)}")
    return spec(**{field: tuple(v) if isinstance(v, list) else v for field, v in fields.items()})


def _of_keys(spec: type[LayerSpec], fields: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the keys of a layer's description, and which keys there are."""
    known = {field.name: field for field in dataclasses.fields(spec) if field.init}
    needed = [field for field in known if known[field].default is known[field].default_factory is dataclasses.MISSING]
    missing = [field for field in needed if field not in fields]
    unknown = [field for field in fields if field not in known]
    if missing:
        yield f"it has no {' and no '.join(map(repr, missing))}"
    for field in unknown:
        yield f"unknown key {field!r}{like(str(field), known)}"
    if missing or unknown:
        yield f"it needs {', '.join(needed)}, and may have {', '.join(key for key in known if key not in needed)}"


def _numbered_by_name(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    found = [re.findall("[0-9]+$", layer.name) for layer in layers if layer.weighted]
    numbers = [int(digits[0]) for digits in found if digits]
    if len(numbers) < len(found) or any(second <= first for first, second in itertools.pairwise(numbers)):
        return list(layers)
    following, number, numbered = iter(numbers), None, []
    for layer in layers:
        number = next(following) if layer.weighted else number
        numbered.append(dataclasses.replace(layer, block=number))
    return numbered
