"""From labelled cells to a trained model."""

from popdask.imagery.training.checkpoint import StaleCheckpointError, StaleCheckpointWarning
from popdask.imagery.training.learning import Progress, train
from popdask.imagery.training.recipe import TrainingConfig
from popdask.imagery.training.trainer import BatchHalvedWarning, TrainingError

__all__ = [
    "BatchHalvedWarning",
    "Progress",
    "StaleCheckpointError",
    "StaleCheckpointWarning",
    "TrainingConfig",
    "TrainingError",
    "train",
]
