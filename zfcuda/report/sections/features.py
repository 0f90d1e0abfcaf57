"""Frozen features (paper Table 7, P11 and P12)."""

from __future__ import annotations

from ...analysis import FeatureAnalysis
from ...analysis.features import SCRATCH
from ...wording import layer_words
from .. import Chart, Section, Table

_KIND_NAMES = {"softmax": "softmax", "svm": "linear SVM"}


def features_section(result: FeatureAnalysis) -> Section:
    """Table 7's form: a row per layer, a column per number of images."""
    rows = [
        [layer_words(layer), *(result.score(layer, count).accuracy for count in result.counts)]
        for layer in result.layers
    ]
    columns = ("features of", *(f"{count} per class, %" for count in result.counts))
    most = result.counts[-1]
    frozen = [layer for layer in result.layers if layer != SCRATCH]
    best = max(frozen, key=lambda layer: result.score(layer, most).accuracy)
    blurb = (
        f"A linear classifier ({_KIND_NAMES[result.kind]}) on the features of each layer, the network itself "
        f"unchanged. Best with {most} images per class: {best}, {result.score(best, most).accuracy:.1f} %. "
    )
    if SCRATCH in result.layers:
        blurb += f"The same network from scratch on these images: {result.score(SCRATCH, most).accuracy:.1f} %. "
    blurb += f"Chance is {100 / result.classes:.1f} %."
    parts = [Table(columns, rows), Chart(f"features-{result.kind}", result.plot())]
    return Section(f"Frozen features, {_KIND_NAMES[result.kind]}", parts, blurb, result.numbers())
