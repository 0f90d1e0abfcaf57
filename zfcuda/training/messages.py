"""What a training says of itself on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import CHECKPOINT


def of_epoch(metrics: Mapping[str, Any], epochs: int) -> str:
    """One line, of `epochs` epochs."""
    shown = [f"epoch {metrics['epoch']}/{epochs}", f"loss {metrics['train_loss']:.3f}"]
    shown.append(f"training {100 * metrics['train_top1']:.1f} %")
    if "validation_top1" in metrics:
        shown.append(f"validation {100 * metrics['validation_top1']:.1f} %")
    return ", ".join([*shown, f"{metrics['images_per_second']:.0f} images/s"])


def of_interruption(done: int, out: Path | None) -> str:
    """Where to go on, after so many whole epochs whose checkpoints are in `out`."""
    where = f"Interrupted in epoch {done + 1}"
    if out is None:
        return f"{where}; nothing was written, as there is no out_dir."
    if done == 0:
        return f"{where}, before the first checkpoint."
    return f"{where}; the checkpoint of epoch {done} is whole, and resume goes on from it: {out / CHECKPOINT}"
