"""Charts on a page: Matplotlib figures as SVG that takes the page's text colour, and as PNG on white."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#123457"  # a colour nobody else uses, which stands for the page's own


def to_png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element for a page: no background, text and axes in `currentColor`.

    `name` keeps the identifiers of several charts on a page apart.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        _set_ink(figure, _INK)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        _set_ink(figure, "black")
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: [^;\"]*'[^;\"]*", lambda match: _without_family(match.group()), svg)
    return svg.replace(_INK, "currentColor")


def _without_family(font: str) -> str:
    """`font: 10px 'DejaVu Sans', ...` -> `font: 10px sans-serif`: the page has no fonts of its own."""
    return font.split("'")[0] + "sans-serif"


def _set_ink(figure: Figure, color: str) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(color)
    for axis in figure.axes:
        axis.tick_params(colors=color, which="both")
        for spine in axis.spines.values():
            spine.set_edgecolor(color)
