"""The pointing game of occlusion (P8)."""

from __future__ import annotations

from ...analysis import Pointing
from .. import Chart, Facts, Section


def pointing_section(result: Pointing) -> Section:
    """How often the network's answer falls most where the object is."""
    facts = [
        ("points into the object", f"{100 * result.rate:.1f} %"),
        ("of images it gets right", f"{100 * result.rate_of_right:.1f} %"),
        ("a blind net would", f"{100 * result.chance:.1f} %"),
        ("mean fall, object covered", f"{100 * result.inside.mean():.1f} points"),
        ("mean fall, rest covered", f"{100 * result.outside.mean():.1f} points"),
        ("images", f"{len(result.hits)}, {int(result.right.sum())} right"),
    ]
    blurb = "Whether the square that lowers the true class's probability most has its centre in the object's box."
    return Section("Pointing", [Facts(facts), Chart("pointing", result.plot())], blurb, result.numbers())
