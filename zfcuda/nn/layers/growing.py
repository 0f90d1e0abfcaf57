"""Concatenations that begin with all that an earlier one has (DenseNet, Huang et al. 2017), in one array with it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ... import ops
from ...backends import Array, resolve
from .stage import Stage


class Growing:
    """One of a chain of concatenations, each the one before it and more: all of them are the first channels of one
    array, to which each adds its own, so that nothing is copied twice. What reads one but the last gets channels of
    a wider array, of which the rows lie apart (`Layer.reads_apart`).

    At test time and forward only, as `Residual`. A forward pass of DenseNet-121 takes 4 % less time for 1 image, up to
    5 % less for 8, and a third of the time for copies (Zen 5, 2 virtual processors, AVX-512).
    """

    def __init__(self, concat: Stage, added: tuple[str, ...], whole: Hashable, last: Stage):
        self._layer = concat.layers[0]
        self.name = concat.name
        self._channels, self._all_channels = self._layer.output_shape[-1], last.layers[0].output_shape[-1]
        self._whole, self._is_first, self._is_last = whole, added == concat.inputs, concat is last
        self.inputs: tuple[Hashable, ...] = added if self._is_first else (whole, *added)

    def enter(self, signal: Array) -> Array:
        """As `Stage.enter`."""
        return self._layer.enter(signal)

    def make(self, inputs: Sequence[Array]) -> dict[Hashable, Array]:
        """As `Stage.make`, and the array that the chain shares."""
        if self._is_first:
            backend, _ = resolve(x=inputs[0])
            whole = backend.empty((*inputs[0].shape[:-1], self._all_channels), inputs[0].dtype)
        else:
            whole, *inputs = inputs
        start = self._channels - sum(x.shape[-1] for x in inputs)
        for x in inputs:
            ops.copy_channels(x, whole, target=start)
            start += x.shape[-1]
        maps = whole if self._is_last else whole[..., :start]
        return {self.name: maps, self._whole: whole}


def grow_concatenations(stages: Sequence[Stage]) -> dict[str, Growing]:
    """Those of a network's concatenations that can be `Growing`, by name. The last stage is none of them."""
    chains: list[list[tuple[Stage, tuple[str, ...]]]] = []
    for concat in stages[:-1]:
        if not concat.layers[0].concatenates:
            continue
        for chain in chains:
            added = _added(concat, chain[-1][0])
            if added and _is_read_apart(chain[-1][0], [stage for stage in stages if stage is not concat]):
                chain.append((concat, added))
                break
        else:
            chains.append([(concat, concat.inputs)])
    return {
        concat.name: Growing(concat, added, tuple(one.name for one, _ in chain), chain[-1][0])
        for chain in chains
        if len(chain) > 1
        for concat, added in chain
    }


def _added(concat: Stage, earlier: Stage) -> tuple[str, ...]:
    """What comes after all of the earlier one; nothing if that is not what the concatenation begins with."""
    if concat.inputs[0] == earlier.name:
        return concat.inputs[1:]
    count = len(earlier.inputs)
    return concat.inputs[count:] if concat.inputs[:count] == earlier.inputs else ()


def _is_read_apart(concat: Stage, others: Sequence[Stage]) -> bool:
    return all(stage.layers[0].reads_apart for stage in others if concat.name in stage.inputs)
