"""Ablation (paper Table 3, P10)."""

from __future__ import annotations

from ...analysis import Ablation
from .. import Chart, Section, Table


def ablation_section(result: Ablation) -> Section:
    """Table 3's form, and a chart."""
    rows = result.rows
    columns = ["variant", "train top-1 error %", "test top-1 error %", "test top-5 error %"]
    several = max(row.seeds for row in rows) > 1
    table = [
        [row.variant, row.train_error, row.validation_error, row.validation_top5_error]
        + ([row.deviation] if several else [])
        + [row.parameters, row.seconds]
        for row in rows
    ]
    columns += (["deviation"] if several else []) + ["parameters", "seconds"]
    best = min(rows, key=lambda row: row.validation_error)
    blurb = (
        f"{len(rows)} networks, each trained from scratch with the same {result.epochs} epochs. "
        f"Lowest test error: {best.variant}, {best.validation_error:.2f} %."
    )
    return Section("Ablation", [Table(columns, table), Chart("ablation", result.plot())], blurb, result.numbers())
