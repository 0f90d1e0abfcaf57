"""Training: the trainer, its schedules, evaluation, checkpoints, and several processes that train together."""

from .evaluation import Evaluation, evaluate
from .inputs import default_preprocess
from .ranks import Ranks, RanksDiffer, world
from .schedule import Cosine, Fixed, Linear, Plateau, Schedule, Step, Warmup
from .trainer import Trainer

__all__ = [
    "Cosine",
    "Evaluation",
    "Fixed",
    "Linear",
    "Plateau",
    "Ranks",
    "RanksDiffer",
    "Schedule",
    "Step",
    "Trainer",
    "Warmup",
    "default_preprocess",
    "evaluate",
    "world",
]
