"""How right it is told whether people live in a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from popdask.metrics._known import known_cells


@dataclass(frozen=True)
class PresenceScores:
    """How well inhabited cells are told from empty ones."""

    cells: int
    """Cells that were compared."""
    accuracy: float
    """Share of the cells that are told right."""
    matthews: float
    """Matthews correlation: 1 is perfect, 0 no better than chance; fair where most are empty."""
    precision: float
    """Share of the cells called inhabited that are."""
    recall: float
    """Share of the inhabited cells that are called so."""
    true_positive: int
    """Inhabited cells that are called inhabited."""
    false_positive: int
    """Empty cells that are called inhabited."""
    false_negative: int
    """Inhabited cells that are called empty."""
    true_negative: int
    """Empty cells that are called empty."""

    @property
    def confusion(self) -> np.ndarray:
        """Cells by truth (rows) and answer (columns), empty first, int64 (2, 2)."""
        return np.array(
            [[self.true_negative, self.false_positive], [self.false_negative, self.true_positive]]
        )


def presence_scores(presence: Any, truth: Any, *, threshold: float = 0.5) -> PresenceScores:
    """Compare where people are said to live with where they do.

    Parameters
    ----------
    presence : array_like of float or bool
        The probability that a cell is inhabited; above `threshold` it is called so.
    truth : array_like of float or bool
        People per cell, or whether there are any: a cell is inhabited where it is above 0. A cell
        that is NaN in either is left out of both.
    threshold : float, optional
        Of the probability, excluded.

    Returns
    -------
    PresenceScores
        ``matthews`` is 0 where truth or answer know one kind of cell only, as in scikit-learn;
        the other shares are NaN where there is nothing to divide by.

    Raises
    ------
    InputError
        If the shapes differ, or a value is infinite.

    References
    ----------
    Matthews, B. W. (1975). Comparison of the predicted and observed secondary structure of T4
    phage lysozyme. Biochimica et Biophysica Acta 405, 442-451.

    Examples
    --------
    >>> scores = presence_scores([0.9, 0.2, 0.7, 0.5], [12, 0, 0, 0])
    >>> scores.accuracy, scores.precision, scores.recall, round(scores.matthews, 3)
    (0.75, 0.5, 1.0, 0.577)
    >>> scores.confusion
    array([[2, 1],
           [0, 1]])
    """
    probability, people = known_cells(presence=presence, truth=truth)
    called, inhabited = probability > threshold, people > 0
    tp, fp = int((called & inhabited).sum()), int((called & ~inhabited).sum())
    fn, tn = int((~called & inhabited).sum()), int((~called & ~inhabited).sum())
    # Whole numbers of Python: the product of four counts does not fit into 64 bits.
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return PresenceScores(
        cells=len(people),
        accuracy=_ratio(tp + tn, len(people)),
        matthews=(tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        true_positive=tp,
        false_positive=fp,
        false_negative=fn,
        true_negative=tn,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
