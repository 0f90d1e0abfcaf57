"""The paper's figures and tables as functions: what a network looks at, and what its parts are for."""

from .deconvnet import TopActivations, Visualization, rank_layers, strongest_maps, top_activations, visualize
from .occlusion import Occlusion, occlusion

__all__ = [
    "Occlusion",
    "TopActivations",
    "Visualization",
    "occlusion",
    "rank_layers",
    "strongest_maps",
    "top_activations",
    "visualize",
]
