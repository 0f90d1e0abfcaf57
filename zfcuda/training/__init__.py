"""Training: the trainer, its schedules, evaluation and checkpoints."""

from .evaluation import Evaluation, evaluate
from .schedule import Fixed, Linear, Plateau, Schedule, Step
from .trainer import Trainer, default_preprocess

__all__ = ["Evaluation", "Fixed", "Linear", "Plateau", "Schedule", "Step", "Trainer", "default_preprocess", "evaluate"]
