"""Diagnosis (paper Fig. 6, P7)."""

from __future__ import annotations

from collections.abc import Mapping

from ...analysis import Diagnosis
from ...nn import Network
from ...wording import layer_words
from .. import Chart, Note, Section, Table
from ..parts import Part
from .filters import filters


def diagnosis_section(net: Network | None, result: Diagnosis, name: str = "", number: int = 1) -> Section:
    """A verdict per layer, the measures behind it, and, if there is a network, the pictures a person would look at."""
    rows = [
        [
            layer_words(layer.layer),
            f"{layer.kernel[0]} x {layer.kernel[1]}, stride {layer.stride[0]}",
            len(layer.dead),
            int(layer.dead.sum()),
            100 * float(layer.firing.mean()),
            100 * float(layer.spectrum[:, 2].mean()),
            100 * float(layer.aliased.mean()),
            int(layer.outliers.sum()),
            layer.verdict,
        ]
        for layer in result.layers
    ]
    columns = ("layer", "filters", "maps", "dead", "firing %", "high frequency %", "aliased %", "outliers", "verdict")
    unusual = [f"{layer_words(layer.layer)}: {layer.verdict}" for layer in result.layers if layer.problems]
    note = Note("; ".join(unusual), "warning") if unusual else Note("Nothing unusual in any layer.", "good")
    suffix = f"-{number}" if number > 1 else ""
    parts: list[Part] = [note, Table(columns, rows, decimals=1), Chart(f"diagnosis{suffix}", result.plot())]
    if net is not None:
        parts += filters(net, suffix)
    blurb = (
        f"Over {result.images:,} images. Dead maps never fire; high frequencies are above 1/4 cycle a pixel; aliased "
        "is what a stride folds back into false patterns; outliers are filters three times as strong as the median."
    )
    return Section(f"Diagnosis of {name}" if name else "Diagnosis", parts, blurb, result.numbers())


def comparison_section(results: Mapping[str, Diagnosis]) -> Section:
    """The first layers of several networks side by side: the paper's 11x11 stride 4 against 7x7 stride 2."""
    rows = []
    for path, result in results.items():
        first = result.layers[0]
        rows.append(
            [
                path,
                f"{first.kernel[0]} x {first.kernel[1]}, stride {first.stride[0]}",
                100 * float(first.dead.mean()),
                100 * float(first.spectrum[:, 0].mean()),
                100 * float(first.spectrum[:, 2].mean()),
                100 * float(first.aliased.mean()),
            ]
        )
    columns = ("network", "first layer", "dead %", "low frequency %", "high frequency %", "aliased %")
    return Section("First layers compared", [Table(columns, rows, decimals=1)])
