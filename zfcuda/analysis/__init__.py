"""The paper's figures and tables as functions: what a network looks at, and what its parts are for.

What many of them take: `images`, float32 (N,H,W,C) as the net takes them or a data set, whose images the net's
preprocessing makes so (`zfcuda.analysis.source`); `layers`, by the names in `net.layers`; `batch_size`, how many images
go forward at a time; `progress`, whether a bar on standard error shows how far they are; `ranks`, of processes that
share the work (`zfcuda.analysis.progress`).

Errors: ValueError for what is not allowed or does not fit the net, also where weights or activations are not finite;
TypeError for dtypes and kinds. Each names the argument, what it was and what is allowed. Ctrl-C is
`zfcuda.Interrupted`, which has the result so far.
"""

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
