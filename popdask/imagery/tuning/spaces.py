"""What a search proposes for each kind of model: the settings and their ranges.

The classifier's are those that Sellebjerg et al. searched through; of their regressor they searched
the architecture and the rates. A space takes an Optuna trial and the pixels along a cell's side,
and gives settings as `popdask.imagery.training.TrainingConfig` has them.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Space = Callable[["BaseTrial", int], Mapping[str, Any]]

#: How many settings are tried by default: as many as of the published classifier and regressor.
TRIALS = {"presence": 40, "count": 100, "weighted": 100, "transformer": 100}


def presence_space(trial: "BaseTrial", pixels: int) -> dict[str, Any]:
    """Propose rate, dropout, batch, weight decay and optimiser, as for the published classifier."""
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw"]),
        "network": {"dropout": trial.suggest_float("dropout", 0.0, 0.5)},
    }


def count_space(trial: "BaseTrial", pixels: int) -> dict[str, Any]:
    """Propose the architecture of the regressor, and its rates."""
    most = max(1, min(6, int(np.log2(pixels))))
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32, 64]),
        "network": {
            "blocks": trial.suggest_int("blocks", min(3, most), most),
            "base": trial.suggest_categorical("base", [16, 32, 64]),
            "scale": trial.suggest_categorical("scale", [1.5, 2.0]),
            "double": trial.suggest_categorical("double", [True, False]),
            "hidden": trial.suggest_categorical("hidden", [128, 256, 512]),
            "extra": trial.suggest_categorical("extra", [True, False]),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        },
    }


def transformer_space(trial: "BaseTrial", pixels: int) -> dict[str, Any]:
    """Propose the size of the transformer, and its rates; the patches stay."""
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
        "network": {
            "width": trial.suggest_categorical("width", [96, 192]),
            "layers": trial.suggest_int("layers", 2, 8),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        },
    }


SPACES: dict[str, Space] = {
    "presence": presence_space,
    "count": count_space,
    "weighted": count_space,
    "transformer": transformer_space,
}
