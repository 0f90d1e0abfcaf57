"""The paper's figures and tables as functions: what a network looks at, and what its parts are for."""

from .ablation import Ablation, Budget, ablation, table3
from .correspondence import Correspondence, correspondence
from .deconvnet import (
    TopActivations,
    Visualization,
    block_layers,
    rank_layers,
    strongest_maps,
    top_activations,
    visualize,
)
from .diagnosis import Diagnosis, diagnosis
from .evolution import Evolution, Tracker, evolution, load_evolution
from .faithfulness import Faithfulness, faithfulness
from .features import FeatureAnalysis, feature_analysis
from .invariance import Invariance, invariance
from .occlusion import Occlusion, Occlusions, occlusion
from .pointing import Cluttered, Pointing, pointing
from .sanity import Sanity, randomised, sanity

__all__ = [
    "Ablation",
    "Budget",
    "Cluttered",
    "Correspondence",
    "Diagnosis",
    "Evolution",
    "Faithfulness",
    "FeatureAnalysis",
    "Invariance",
    "Occlusion",
    "Occlusions",
    "Pointing",
    "Sanity",
    "TopActivations",
    "Tracker",
    "Visualization",
    "ablation",
    "block_layers",
    "correspondence",
    "diagnosis",
    "evolution",
    "faithfulness",
    "feature_analysis",
    "invariance",
    "load_evolution",
    "occlusion",
    "pointing",
    "randomised",
    "rank_layers",
    "sanity",
    "strongest_maps",
    "table3",
    "top_activations",
    "visualize",
]
