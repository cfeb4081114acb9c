"""Scores of estimates: people, presence, and intervals over blocks.

Neighbouring cells err alike, so a score of 20,000 cells in fifteen squares is known as well as
fifteen numbers are. A bootstrap draws the squares, not the cells: as many as there are, with
repetition. Every score here follows from sums over cells, so a draw is one matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError

SCORES = ("accuracy", "matthews", "f1", "rmse", "mae", "r2", "relative_error")
LEAST = 2  # blocks, with fewer nothing can be said


def same_shape(**arrays: Any) -> None:
    """Refuse arrays of different shapes, naming them."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} has {shape}" for name, shape in shapes.items())
        raise InputError(f"{found}, but the shapes must be the same: give arrays on one grid")


def known_cells(**arrays: Any) -> list[NDArray[np.float64]]:
    """Return the values of the cells where no array is NaN, float64 (n,), in the order given."""
    values = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    same_shape(**values)
    for name, array in values.items():
        if np.isinf(array).any():
            raise InputError(
                f"{name} has {np.isinf(array).sum()} infinite values; numbers were expected, or "
                "NaN where a cell is unknown: correct them"
            )
    known = ~np.any([np.isnan(array) for array in values.values()], axis=0)
    return [array[known] for array in values.values()]


@dataclass(frozen=True)
class CountScores:
    """How well estimated people agree with the truth, cell by cell and in total.

    Examples
    --------
    >>> import numpy as np
    >>> from popdask.metrics import count_scores
    >>> count_scores(np.array([10.0, 0.0]), np.array([8.0, 0.0])).mae
    1.0
    """

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
    rmse: float
    """Root of the mean squared error, people."""
    median_error: float
    """Median of the absolute error, people."""
    p90_error: float
    """90th percentile of the absolute error, people."""
    within_1: float
    """Share of the cells with an error of at most 1 person."""
    within_2: float
    """Share of the cells with an error of at most 2 people."""


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
    off = np.abs(error)
    median, ninth = np.quantile(off, (0.5, 0.9)) if len(off) else (float("nan"),) * 2
    # Rounding of the mean would give values that are all the same a spread of their own.
    spread = float(np.square(true - _mean(true)).sum()) if (true != true[:1]).any() else 0.0
    return CountScores(
        cells=len(true),
        mse=_mean(np.square(error)),
        mae=_mean(off),
        r2=1 - float(np.square(error).sum()) / spread if spread else float("nan"),
        people=float(estimated.sum()),
        true_people=float(true.sum()),
        relative_error=people_error(estimated, true),
        rmse=_mean(np.square(error)) ** 0.5,
        median_error=float(median),
        p90_error=float(ninth),
        within_1=_mean(off <= 1),
        within_2=_mean(off <= 2),
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


@dataclass(frozen=True)
class PresenceScores:
    """How well inhabited cells are told from empty ones.

    Examples
    --------
    >>> import numpy as np
    >>> from popdask.metrics import presence_scores
    >>> presence_scores(np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])).recall
    1.0
    """

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
    f1: float
    """Harmonic mean of precision and recall."""

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
        accuracy=ratio(tp + tn, len(people)),
        matthews=(tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
        precision=ratio(tp, tp + fp),
        recall=ratio(tp, tp + fn),
        true_positive=tp,
        false_positive=fp,
        false_negative=fn,
        true_negative=tn,
        f1=ratio(2 * tp, 2 * tp + fp + fn),
    )


def ratio(part: int, whole: int) -> float:
    """Return the share of a part; NaN where there is nothing to divide by."""
    return part / whole if whole else float("nan")


def block_intervals(
    estimate: Any,
    truth: Any,
    blocks: Any,
    *,
    presence: Any = None,
    threshold: float = 0.5,
    level: float = 0.9,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the scores of an estimate, by a bootstrap over blocks.

    Parameters
    ----------
    estimate, truth : array_like of float, (n,)
        People per cell, finite.
    blocks : array_like, (n,)
        The block of each cell, numbers or text.
    presence : array_like of float, (n,), optional
        The probability that a cell is inhabited; by default whether people are estimated there.
    threshold : float, optional
        Of the probability, excluded.
    level : float, optional
        Share of the draws within an interval, which leaves out as many below as above.
    repeats : int, optional
        Draws.
    seed : int, optional
        Of the draws.

    Returns
    -------
    dict of (float, float)
        Low and high of accuracy, matthews, f1, rmse, mae, r2 and relative_error, as
        :func:`popdask.metrics.presence_scores` and :func:`popdask.metrics.count_scores` define
        them. NaN where there are fewer than two blocks, or a score is defined in no draw.

    Raises
    ------
    InputError
        If the shapes differ, or a setting is out of its range.

    Notes
    -----
    The same whatever the order of the cells. An interval of few blocks is itself uncertain.

    References
    ----------
    Efron, B., Tibshirani, R. J. (1993). An Introduction to the Bootstrap, chapter 13.

    Examples
    --------
    >>> truth = np.arange(40.0)
    >>> low, high = block_intervals(truth * 1.1, truth, np.arange(40) // 10)["relative_error"]
    >>> round(low, 3), round(high, 3)
    (0.1, 0.1)
    """
    said, true = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    chance = (said > 0).astype(np.float64) if presence is None else np.asarray(presence, np.float64)
    limit = 0.5 if presence is None else threshold
    names, block = np.unique(np.asarray(blocks), return_inverse=True)
    if not said.shape == true.shape == chance.shape == block.shape:
        raise InputError(
            f"estimate has {said.shape}, truth {true.shape}, presence {chance.shape} and blocks "
            f"{block.shape}; expected one shape (n,): give arrays of the same cells"
        )
    if not 0 < level < 1 or repeats < 1:
        raise InputError(
            f"level is {level} and repeats {repeats}; expected a share between 0 and 1 and at "
            "least one draw, such as 0.9 and 1000; correct them"
        )
    if len(names) < LEAST:
        return {name: (float("nan"), float("nan")) for name in SCORES}
    sums = _block_sums(said, true, chance > limit, block.ravel(), len(names))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), repeats)
    scores = _scores(sums @ drawn.T)
    ends = (0.5 - level / 2, 0.5 + level / 2)
    return {name: _ends(values, ends) for name, values in scores.items()}


def _block_sums(
    said: NDArray[np.float64],
    true: NDArray[np.float64],
    called: NDArray[np.bool_],
    block: NDArray[np.int64],
    count: int,
) -> NDArray[np.float64]:
    """Add up per block (term, block) what the scores follow from, in an order of its own."""
    order = np.lexsort([called, said, true, block])
    said, true, called, block = said[order], true[order], called[order], block[order]
    error, there = said - true, true > 0
    around = true - true.mean()  # small numbers: their squares lose nothing
    terms = [np.ones_like(true), said, true, error**2, np.abs(error), around, around**2]
    terms += [called & there, called & ~there, ~called & there, ~called & ~there]
    return np.stack([np.bincount(block, term, count) for term in terms])


def _scores(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores (draw,) from sums (term, draw); NaN where one is not defined."""
    n, said, true, squares, errors, around, spread, tp, fp, fn, tn = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        spread = spread - around**2 / n
        return {
            "accuracy": (tp + tn) / n,
            "matthews": np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(product), 0.0),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "rmse": np.sqrt(squares / n),
            "mae": errors / n,
            "r2": np.where(spread > 0, 1 - squares / spread, np.nan),
            "relative_error": np.where(true > 0, (said - true) / true, np.nan),
        }


def _ends(values: NDArray[np.float64], ends: tuple[float, float]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, ends)
    return float(low), float(high)
