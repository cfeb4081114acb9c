"""The search for better settings of a training."""

from popdask.imagery.tuning.search import Tuning, tune

__all__ = [
    "Tuning",
    "tune",
]
