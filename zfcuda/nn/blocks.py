"""The paper's numbers for graphs that have none: one for each size of maps, then one for each fully connected layer."""

from __future__ import annotations

import dataclasses

from .architecture import Architecture

__all__ = ["number_blocks"]


def number_blocks(architecture: Architecture) -> Architecture:
    """The architecture with a `block` for every layer, so that `Architecture.blocks` names the last layer of each size
    of maps, in the order in which the sizes first come, and after them the last one of each fully connected layer.

    Layers that others go around (in branches: beside a shortcut, in a tower of an Inception module) have the number of
    the layer in which their branches meet. So a block ends where all goes through that the network computes. A pool to
    a size at which no layer has weights ends the block before it, as the paper's pool5 does; an average over whole maps
    has the number of the fully connected layer behind it.
    """
    layers, shapes = architecture.layers, architecture.shapes()
    passages = _passages(architecture)
    stretches = [layers[before + 1 : i + 1] for before, i in zip([-1, *passages], passages, strict=False)]
    weighted = [any(layer.weighted for layer in since) for since in stretches]
    sizes = {(1, 1)} | {shapes[i][:2] for i, has in zip(passages, weighted, strict=True) if has}
    of_size: dict[tuple[int, ...], int] = {}
    number, latest = 0, 0
    bare = False  # the number is that of maps of one pixel, and no layer with weights has it yet
    blocks: list[int] = []
    for i, since, has_weights in zip(passages, stretches, weighted, strict=True):
        size = shapes[i][:2]
        if len(shapes[i]) == 3 and size in sizes:
            bare = size == (1, 1) and not has_weights and (bare or size not in of_size)
            latest = max(latest, of_size.setdefault(size, latest + 1))
            number = of_size[size]
        elif len(shapes[i]) == 1 and has_weights:
            latest += not bare
            number, bare = latest, False
        blocks += [max(1, number)] * len(since)
    numbered = [dataclasses.replace(layer, block=block) for layer, block in zip(layers, blocks, strict=True)]
    return dataclasses.replace(architecture, layers=tuple(numbered))


def _passages(architecture: Architecture) -> list[int]:
    """The places of the layers through which every way from the image to the output leads."""
    last_reader = {name: i for i, inputs in enumerate(architecture.inputs()) for name in inputs}
    found = []
    farthest = last_reader["input"]
    for i, layer in enumerate(architecture.layers):
        if farthest <= i:
            found.append(i)
        farthest = max(farthest, last_reader.get(layer.name, i))
    return found
