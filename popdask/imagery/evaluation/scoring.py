"""Estimates of several models beside each other, scored on the same cells.

Estimates are plain tables (:mod:`popdask.imagery.evaluation.predictions`). All models are compared
on the cells that all of them predict: on more of them, or fewer, scores would not be comparable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from popdask.errors import InputError
from popdask.imagery.evaluation.predictions import Path_, on_common_cells
from popdask.metrics import count_scores, presence_scores
from popdask.whole import write_text


def evaluate(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame], *, threshold: float = 0.5
) -> pd.DataFrame:
    """Score estimates side by side.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        One row per cell: ``cell``, ``prediction``, ``truth``, perhaps ``presence``; by the name of
        the model where there are several.
    threshold : float, optional
        A cell is called inhabited where ``presence`` is above it; without that column, where the
        prediction is above 0.

    Returns
    -------
    pandas.DataFrame
        One row per model, on the cells that all models predict: the fields of
        :class:`popdask.metrics.PresenceScores` (cells, accuracy, matthews, precision, recall, and
        the four counts of the confusion matrix) and of :class:`popdask.metrics.CountScores` (mse,
        mae, r2, people, true_people, relative_error). NaN where a score is not defined.

    Raises
    ------
    InputError
        If a column is missing, a cell comes twice, a number is missing, infinite or, as a truth,
        negative; if two models are told different truths of a cell, or share no cell.

    Examples
    --------
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [0, 4, 9], "truth": [0, 5, 7]})
    >>> mean = table.assign(prediction=4.0)
    >>> evaluate({"model": table, "mean": mean})[["matthews", "mae", "r2", "relative_error"]]
           matthews       mae        r2  relative_error
    model
    model       1.0  1.000000  0.807692        0.083333
    mean        0.0  2.666667  0.000000        0.000000
    """
    rows = {}
    for name, table in on_common_cells(predictions).items():
        presence, limit = _presence(table, threshold)
        scores = asdict(presence_scores(presence, table["truth"], threshold=limit))
        rows[name] = scores | asdict(count_scores(table["prediction"], table["truth"]))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def scores_by_density(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    edges: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Score estimates by how many people truly live in a cell.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        As for `evaluate`.
    edges : sequence of float, optional
        Where the bins of true people begin, the last being open; by default 0, 1, 2, 5, 10, 20, 50
        and so on, until one is above all.

    Returns
    -------
    pandas.DataFrame
        One row per model and bin that has cells: model, low, high (excluded), cells, mse, mae, bias
        (mean error), people, true_people, relative_error.

    Raises
    ------
    InputError
        As `evaluate`; and if the edges do not ascend from the least truth or below.

    Examples
    --------
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [1, 4, 9], "truth": [0, 5, 7]})
    >>> scores_by_density(table)[["low", "high", "cells", "mae", "bias"]]
       low  high  cells  mae  bias
    0  0.0   1.0      1  1.0   1.0
    1  5.0  10.0      2  1.5   0.5
    """
    tables = on_common_cells(predictions)
    truth = next(iter(tables.values()))["truth"]
    steps = np.asarray(_round_edges(truth.max()) if edges is None else edges, np.float64)
    if not (np.diff(steps) > 0).all() or not len(steps) or steps[0] > truth.min():
        raise InputError(
            f"edges is {list(steps)}; expected numbers that ascend from {truth.min():g} or below"
        )
    bins = np.searchsorted(steps, truth, side="right") - 1
    ends = np.append(steps[1:], np.inf)
    rows = [
        {
            "model": name,
            "low": steps[number],
            "high": ends[number],
            **_errors(table[bins == number]),
        }
        for name, table in tables.items()
        for number in np.unique(bins)
    ]
    return pd.DataFrame(rows)


def write_scores(path: Path_, scores: pd.DataFrame, by_density: pd.DataFrame | None = None) -> Path:
    """Write scores as JSON, whole or not at all; what is not defined is null.

    Parameters
    ----------
    path : path
        A file of that name is replaced, its folder made where it is missing.
    scores : DataFrame
        As from `evaluate`.
    by_density : DataFrame, optional
        As from `scores_by_density`.

    Returns
    -------
    Path
        The file: ``{"scores": {model: {score: number}}, "by_density": [{…}]}``.

    Examples
    --------
    >>> import tempfile
    >>> table = pd.DataFrame({"cell": [1, 2], "prediction": [0, 4], "truth": [0, 5]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_scores(f"{folder}/scores.json", evaluate(table))
    ...     json.loads(path.read_text())["scores"]["estimate"]["mae"]
    0.5
    """
    told = {"scores": _plain(scores.to_dict("index"))}
    told |= {} if by_density is None else {"by_density": _plain(by_density.to_dict("records"))}
    return write_text(path, json.dumps(told, indent=2, allow_nan=False) + "\n")


def _presence(table: pd.DataFrame, threshold: float) -> tuple[pd.Series, float]:
    """Return what says whether a cell is inhabited, and the limit that it must exceed."""
    return (table["presence"], threshold) if "presence" in table else (table["prediction"], 0.0)


def _errors(table: pd.DataFrame) -> dict[str, float]:
    scores = count_scores(table["prediction"], table["truth"])
    bias = (scores.people - scores.true_people) / scores.cells
    named = ("cells", "mse", "mae", "people", "true_people", "relative_error")
    errors = {name: getattr(scores, name) for name in named}
    return errors | {"bias": bias}


def _round_edges(most: float) -> list[float]:
    """0, and then 1, 2 and 5 times the powers of ten, until one is above `most`."""
    powers = range(math.floor(math.log10(max(most, 1))) + 2)
    edges = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [0.0, *edges[: np.searchsorted(edges, most, side="right") + 1]]


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
