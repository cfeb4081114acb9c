"""How right estimated people are: errors by cell, and of the total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from popdask.metrics._known import known_cells


@dataclass(frozen=True)
class CountScores:
    """How well estimated people agree with the truth, cell by cell and in total."""

    cells: int
    """Cells that were compared."""
    mse: float
    """Mean squared error, people²."""
    mae: float
    """Mean absolute error, people."""
    r2: float
    """Coefficient of determination: 1 is perfect, 0 no better than the mean of the truth."""
    people: float
    """Estimated people in all cells."""
    true_people: float
    """True people in all cells."""
    relative_error: float
    """(people − true people) / true people."""


def count_scores(estimate: Any, truth: Any) -> CountScores:
    """Compare estimated people with true ones.

    Parameters
    ----------
    estimate, truth : array_like of float
        People per cell, of one shape; a cell that is NaN in either is left out of both.

    Returns
    -------
    CountScores
        Computed in float64. ``r2`` is NaN where all true values are the same (scikit-learn calls
        it 0 or 1 there), ``relative_error`` where nobody is in truth, and the errors where no
        cell is known.

    Raises
    ------
    InputError
        If the shapes differ, or a value is infinite.

    Examples
    --------
    >>> scores = count_scores([0.0, 4.0, 7.0, 1.0], [0.0, 5.0, 7.0, float("nan")])
    >>> scores.cells, round(scores.mae, 3), round(scores.r2, 3), scores.relative_error
    (3, 0.333, 0.962, -0.08333333333333333)
    """
    estimated, true = known_cells(estimate=estimate, truth=truth)
    error = estimated - true
    # Rounding of the mean would give values that are all the same a spread of their own.
    spread = float(np.square(true - _mean(true)).sum()) if (true != true[:1]).any() else 0.0
    return CountScores(
        cells=len(true),
        mse=_mean(np.square(error)),
        mae=_mean(np.abs(error)),
        r2=1 - float(np.square(error).sum()) / spread if spread else float("nan"),
        people=float(estimated.sum()),
        true_people=float(true.sum()),
        relative_error=people_error(estimated, true),
    )


def people_error(estimate: Any, truth: Any) -> float:
    """Return the relative error of the total number of people.

    Parameters
    ----------
    estimate, truth : array_like of float
        People per cell, arrays of one shape; a cell that is NaN in either is left out of both.

    Returns
    -------
    float
        (sum of the estimate - sum of the truth) / sum of the truth, summed in float64; NaN where
        there is nobody in truth.

    Raises
    ------
    InputError
        If the shapes differ, or a value is infinite.

    Examples
    --------
    >>> people_error([110.0, np.nan], [100.0, 50.0])
    0.1
    """
    estimated, true = known_cells(estimate=estimate, truth=truth)
    total = true.sum()
    return float((estimated.sum() - total) / total) if total else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
