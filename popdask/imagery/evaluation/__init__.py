"""Estimates scored beside each other, and what models have to beat."""

from popdask.imagery.evaluation.baselines import Baseline, fit_baselines
from popdask.imagery.evaluation.predictions import (
    on_common_cells,
    prediction_table,
    read_predictions,
)
from popdask.imagery.evaluation.scoring import evaluate, scores_by_density, write_scores

__all__ = [
    "Baseline",
    "evaluate",
    "fit_baselines",
    "on_common_cells",
    "prediction_table",
    "read_predictions",
    "scores_by_density",
    "write_scores",
]
