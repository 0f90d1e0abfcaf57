"""How well a network classifies a data set (P2, P10)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from ..backends import Array, array_module, to_host
from ..data import Dataset, Preprocess, load_batches, relabelled
from ..nn import Network
from ..nn.finite import check_activations, check_weights
from ..numbers import check_at_least
from .origin import augmentation_of
from .ranks import Ranks


class Evaluation(NamedTuple):
    """Means over a data set. top1, top5: the share of images whose class is the likeliest, or among the five likeliest,
    0..1. loss: cross-entropy."""

    top1: float
    top5: float
    loss: float


def evaluate(
    net: Network,
    dataset: Dataset,
    *,
    ten_crop: bool = False,
    batch_size: int = 128,
    preprocess: Preprocess | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Classifies every image, by its centre crop or by the mean probability of its ten crops (P2), of the five
    that are not mirrored where the network was trained without mirrored images.

    preprocess: what was trained with; by default the network's own. ranks: of processes that all evaluate the same,
    each its share of the batches. Classes are matched by name, see `zfcuda.data.relabelled`. ValueError where the
    network has no preprocessing and none is given, where the data set does not fit the network, or where weights or
    probabilities are not finite.
    """
    preprocess = preprocess or net.preprocess
    if preprocess is None:
        raise ValueError("preprocess must be given: this network was not trained with zfcuda and has none of its own")
    dataset = fitting(net, dataset, preprocess)
    batch_size = check_at_least("batch_size", batch_size, 1)
    check_weights(net)
    augmentation = augmentation_of(net.origin)
    mirrored = augmentation.flip if augmentation else preprocess.image_shape[0] > 1  # signals have a direction
    xp = array_module(next(iter(net.parameters().values())))
    batches = np.split(np.arange(len(dataset)), range(batch_size, len(dataset), batch_size))
    places, losses = [], []
    processes = ranks or Ranks()
    batches = batches[processes.share(len(batches))]
    for indices, (images, labels) in zip(batches, load_batches(dataset, batches), strict=True):
        images, labels = xp.asarray(images), xp.asarray(labels)
        crops = preprocess.ten_crops(images, flip=mirrored) if ten_crop else preprocess(images)[None]
        probabilities = sum(net.predict(x) for x in crops) / len(crops)
        check_activations(probabilities, "output", int(indices[0]))
        places.append(rank_of_label(probabilities, labels))
        of_label = probabilities[xp.arange(len(labels)), labels]
        losses.append(-xp.log(xp.maximum(of_label, np.finfo(np.float32).tiny)))
    found = processes.gather([(to_host(place), to_host(loss)) for place, loss in zip(places, losses, strict=True)])
    place, loss = (np.concatenate(arrays) for arrays in zip(*itertools.chain(*found), strict=True))
    return Evaluation(float((place < 1).mean()), float((place < 5).mean()), float(loss.mean(dtype=np.float64)))


def rank_of_label(probabilities: Array, labels: Array) -> Array:
    """How many classes come before the true one: probabilities (N, classes), labels (N,) -> int (N,).

    Of two classes with equal probability the one with the smaller number comes first, as in argmax. NaN comes before
    everything: it is never right.
    """
    xp = array_module(probabilities)
    of_label = probabilities[xp.arange(len(labels)), labels][:, None]
    earlier = xp.arange(probabilities.shape[1]) < labels[:, None]
    before = ~(probabilities <= of_label) | ((probabilities == of_label) & earlier)
    return before.sum(axis=1)


def fitting(net: Network, dataset: Dataset, preprocess: Preprocess) -> Dataset:
    """The data set with labels that count in the network's classes (`zfcuda.data.relabelled`); ValueError where its
    images or its classes do not fit the network."""
    if dataset.image_shape != preprocess.image_shape:
        raise ValueError(f"images must have shape {preprocess.image_shape}, as trained, got {dataset.image_shape}")
    crop = (*preprocess.crop, preprocess.image_shape[2])
    if crop != tuple(net.input_shape):
        raise ValueError(f"the network takes images of {tuple(net.input_shape)}, got crops of {crop}")
    return relabelled(dataset, net.classes, net.num_classes)
