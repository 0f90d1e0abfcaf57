"""The pointing game of occlusion (P8)."""

from __future__ import annotations

import numpy as np

from ...analysis import Pointing
from .. import Chart, Facts, Section
from ..shown import outputs_only


def pointing_section(result: Pointing) -> Section:
    """How often the network's answer falls most where the object is."""
    scale, unit, decimals = (100, " points", 1) if result.followed == "probability" else (1, "", 3)
    rest = result.outside[np.isfinite(result.outside)]
    facts = [
        ("points into the object", f"{100 * result.rate:.1f} %"),
        ("a blind net would", f"{100 * result.chance:.1f} %"),
        ("mean fall, object covered", f"{scale * result.inside.mean():.{decimals}f}{unit}"),
        ("mean fall, rest covered", f"{scale * rest.mean():.{decimals}f}{unit}" if len(rest) else "-"),
        ("images", f"{len(result.hits)}"),
    ]
    if not result.one_output:
        facts.insert(1, ("of images it gets right", f"{100 * result.rate_of_right:.1f} %"))
        facts[-1] = ("images", f"{len(result.hits)}, {int(result.right.sum())} right")
    blurb = (
        f"Whether the square that lowers the {result.followed_of('the true class')} most has its centre in the "
        f"object's box.{outputs_only(result)}"
    )
    return Section("Pointing", [Facts(facts), Chart("pointing", result.plot())], blurb, result.numbers())
