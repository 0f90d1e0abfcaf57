"""Pictures, charts and the HTML report of a run."""

from .explorer import Explorer
from .gallery import Gallery, Shown, weight_tiles
from .page import Chart, Facts, Note, Picture, Report, Section, Slider, Table

__all__ = [
    "Chart",
    "Explorer",
    "Facts",
    "Gallery",
    "Note",
    "Picture",
    "Report",
    "Section",
    "Shown",
    "Slider",
    "Table",
    "weight_tiles",
]
