"""Pictures, charts and the HTML report of a run."""

from .drawing import Drawing
from .explorer import Explorer
from .gallery import Gallery, weight_tiles
from .page import Report, Section
from .parts import Chart, Facts, Note, Picture, Slider, Table
from .shown import Shown

__all__ = [
    "Chart",
    "Drawing",
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
