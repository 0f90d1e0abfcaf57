"""Results and reports where their user sits: in a notebook's cell, or in the browser."""

from __future__ import annotations

import html
import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..analysis import (
    Ablation,
    Correspondence,
    Diagnosis,
    Evolution,
    Faithfulness,
    FeatureAnalysis,
    Invariance,
    Occlusion,
    Occlusions,
    Pointing,
    Sanity,
    TopActivations,
    Visualization,
)
from ..analysis.results import Result
from .page import PAGE, Report, Section
from .sections.ablation import ablation_section
from .sections.correspondence import correspondence_section
from .sections.diagnosis import diagnosis_section
from .sections.evolution import evolution_section
from .sections.faithfulness import faithfulness_section
from .sections.features import features_section
from .sections.invariance import invariance_section
from .sections.occlusion import occlusion_section, occlusions_section
from .sections.pointing import pointing_section
from .sections.sanity import sanity_section
from .sections.visualization import top_section, winners_section

SECTIONS: Mapping[type[Result], Callable[[Any], Section]] = {
    Ablation: ablation_section,
    Correspondence: correspondence_section,
    Diagnosis: lambda result: diagnosis_section(None, result),
    Evolution: evolution_section,
    Faithfulness: lambda result: faithfulness_section({"map": result}),
    FeatureAnalysis: features_section,
    Invariance: invariance_section,
    Occlusion: occlusion_section,
    Occlusions: occlusions_section,
    Pointing: pointing_section,
    Sanity: sanity_section,
    TopActivations: top_section,
    Visualization: winners_section,
}
_HEIGHT = 620  # pixels of a cell, until the page in it says how high it is

Shown = str | os.PathLike | Result | Report


def result_html(result: Any) -> str | None:
    """The section of a report that shows the result, as a frame for a notebook's cell; None if there is no section."""
    page = _page_of(result)
    return None if page is None else _frame(page)


def open_report(shown: Shown) -> Any:
    """See `zfcuda.open_report`."""
    path: Path | None = None
    if isinstance(shown, (str, os.PathLike)):
        path = Path(shown)
        path = path / PAGE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no report at {path}")
        page: str | None = path.read_text(encoding="utf-8")
    else:
        page = shown.html() if isinstance(shown, Report) else _page_of(shown)
    if page is None:
        raise TypeError(f"a report is a path, a Report or the result of an analysis, got {type(shown).__name__}")
    if (display := _notebook()) is not None:
        return display.HTML(_frame(page))
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="zfcuda-")) / PAGE
        path.write_text(page, encoding="utf-8", errors="replace")
    address = path.resolve().as_uri()
    if not webbrowser.open(address):
        print(f"no browser to open; the report is {address}", file=sys.stderr)
    return None


def _page_of(result: Any) -> str | None:
    """The page of one section that shows the result, if there is such a section."""
    section = next((SECTIONS[kind] for kind in type(result).__mro__ if kind in SECTIONS), None)
    return None if section is None else Report("zfcuda", sections=[section(result)]).html("embedded.html.j2")


def _frame(page: str) -> str:
    """A page with styles and scripts of its own inside another one, as high as it is."""
    fit = "this.style.height=this.contentDocument.documentElement.scrollHeight+'px'"
    style = f"width:100%;height:{_HEIGHT}px;border:0"
    return f'<iframe title="zfcuda" srcdoc="{html.escape(page)}" style="{style}" onload="{fit}"></iframe>'


def _notebook() -> Any:
    """IPython's `display` module if a notebook's kernel runs this, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    import IPython.display

    return IPython.display
