"""Training: the trainer, its schedules, evaluation and checkpoints."""

from .evaluation import Evaluation, evaluate
from .schedule import Cosine, Fixed, Linear, Plateau, Schedule, Step, Warmup
from .trainer import Trainer, default_preprocess

__all__ = [
    "Cosine",
    "Evaluation",
    "Fixed",
    "Linear",
    "Plateau",
    "Schedule",
    "Step",
    "Trainer",
    "Warmup",
    "default_preprocess",
    "evaluate",
]
