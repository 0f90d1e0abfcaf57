"""The paper's figures and tables as functions: what a network looks at, and what its parts are for."""

from .ablation import Ablation, Budget, ablation, table3
from .deconvnet import TopActivations, Visualization, rank_layers, strongest_maps, top_activations, visualize
from .occlusion import Occlusion, occlusion

__all__ = [
    "Ablation",
    "Budget",
    "Occlusion",
    "TopActivations",
    "Visualization",
    "ablation",
    "occlusion",
    "rank_layers",
    "strongest_maps",
    "table3",
    "top_activations",
    "visualize",
]
