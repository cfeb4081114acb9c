"""Predictions scored beside each other, and baselines that they have to beat.

Tables of predictions: one row per cell, from popdask or any other program.

A table has ``cell`` (a code or a number), ``prediction`` and ``truth`` (people), and perhaps
``presence`` (the probability that the cell is inhabited) and ``count`` (people by the regressor
alone, whatever presence says).

Estimates of several models beside each other, scored on the same cells.

Estimates are plain tables (:mod:`popdask.imagery.evaluation`). All models are compared
on the cells that all of them predict: on more of them, or fewer, scores would not be comparable.

What an estimate must beat: the mean, and regressions on brightness, edges and texture.

A network has seen something only if it does better than the number of people in the mean cell, and
than a straight line through a few figures of the cell's picture. Both are fitted on the training
cells and answer as the models do, in two stages: presence, and people where somebody seems to live.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from popdask.errors import InputError
from popdask.imagery.features import picture_features
from popdask.io.paths import Path_, write_text
from popdask.io.tables import read_table
from popdask.metrics.estimates import CountScores, block_intervals, count_scores, presence_scores

COLUMNS = ("cell", "prediction", "truth")
OTHERS = ("presence", "count", "low", "high")  # that a table may have


def prediction_table(
    population: Any, truth: Any, presence: Any = None, *, cell: ArrayLike | None = None
) -> pd.DataFrame:
    """Put estimates and truth into a table, one row per cell that both know.

    Parameters
    ----------
    population, truth : array_like of float
        Estimated and true people per cell, of one shape, as rasters (y, x) or cells (cell,); a cell
        that is NaN in one of them is left out.
    presence : array_like of float, optional
        The probability that a cell is inhabited.
    cell : array_like, optional
        What the cells are called, of the same shape; by default their row-major index.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``prediction``, ``truth`` and, if given, ``presence``.

    Raises
    ------
    InputError
        If the shapes differ.

    Examples
    --------
    >>> prediction_table([[0.5, 3.0]], [[np.nan, 4.0]])
       cell  prediction  truth
    0     1         3.0    4.0
    """
    given = {"prediction": population, "truth": truth}
    given |= {} if presence is None else {"presence": presence}
    shape = np.shape(truth)
    names = np.arange(np.size(truth)).reshape(shape) if cell is None else np.asarray(cell)
    columns: dict[str, np.ndarray] = {"cell": names}
    columns |= {name: np.asarray(values, np.float64) for name, values in given.items()}
    if any(values.shape != shape for values in columns.values()):
        shapes = ", ".join(f"{name} has the shape {each.shape}" for name, each in columns.items())
        raise InputError(f"{shapes}; one shape was expected: give arrays of one grid")
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    return table.dropna(ignore_index=True)


def read_predictions(path: Path_) -> pd.DataFrame:
    r"""Read a table of predictions, from any program.

    Parameters
    ----------
    path : path
        Parquet, where it is called .parquet or .pq, or else CSV, with the columns
        ``cell`` (a code or a number), ``prediction`` and ``truth`` (people), and perhaps
        ``presence`` (a probability), ``count`` (people), ``low`` and ``high`` (the ends of an
        interval of the prediction). Others are ignored.

    Returns
    -------
    pandas.DataFrame
        These columns.

    Raises
    ------
    InputError
        If there is no such file or it cannot be read, a column is missing, a cell comes twice, or a
        number is missing, infinite or, as a truth, negative.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "others.csv")
    ...     _ = path.write_text("cell,prediction,truth\n100m_61397_6775,2.5,3\n")
    ...     read_predictions(path)
                  cell  prediction  truth
    0  100m_61397_6775         2.5      3
    """
    table = read_table(path, "a table of predictions")
    return _checked(table, Path(path).name)


def on_common_cells(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Check tables of predictions, and reduce them to the cells that all of them have.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        One row per cell; by the name of the model where there are several.

    Returns
    -------
    dict of DataFrame
        By model ("estimate" for a single table), indexed by cell, all in the order of the first.

    Raises
    ------
    InputError
        As `read_predictions`; and if two tables have no cell in common, or different truths.

    Examples
    --------
    >>> one = pd.DataFrame({"cell": ["a", "b"], "prediction": [1, 2], "truth": [0, 3]})
    >>> on_common_cells({"one": one, "other": one[1:]})["one"]
          prediction  truth
    cell
    b              2      3
    """
    if isinstance(predictions, pd.DataFrame):
        predictions = {"estimate": predictions}
    if not predictions:
        raise InputError("there are no predictions; at least one table was expected")
    tables = {name: _checked(table, name).set_index("cell") for name, table in predictions.items()}
    first, *others = tables
    common = tables[first].index
    for name in others:
        common = common.intersection(tables[name].index, sort=False)
    if not len(common):
        raise InputError(
            f"{' and '.join(tables)} have no cell in common; the same cells were expected, written "
            "in the same way: compare their column cell"
        )
    tables = {name: table.loc[common] for name, table in tables.items()}
    for name in others:
        _check_truth(first, tables[first]["truth"], name, tables[name]["truth"])
    return tables


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the columns that count of a table that makes sense."""
    if lacking := [column for column in COLUMNS if column not in table]:
        raise InputError(
            f"{name} has no column {' and no '.join(lacking)} but {', '.join(map(str, table))}; "
            "cell, prediction and truth were expected: rename its columns"
        )
    table = table[[*COLUMNS, *(name for name in OTHERS if name in table)]]
    twice = table["cell"].duplicated()
    if twice.any():
        raise InputError(
            f"{name} has the cell {table['cell'][twice].iloc[0]} twice, and {twice.sum()} such "
            "rows; each cell was expected once: drop the double ones"
        )
    for column in table.columns[1:]:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = ~np.isfinite(values) | ((values < 0) & (column == "truth"))
        if wrong.any():
            raise InputError(
                f"{name} has {wrong.sum()} cells whose {column} is not a number of people, the "
                f"first is {table['cell'][wrong].iloc[0]} with {table[column][wrong].iloc[0]}; "
                "finite numbers were expected, 0 or more as truth: leave those cells out"
            )
        if table[column].dtype.kind not in "iuf":  # numbers as text, or decimals of a database
            table = table.assign(**{str(column): values})
    return table


def _check_truth(first: str, one: pd.Series, name: str, other: pd.Series) -> None:
    differ = ~np.isclose(one, other, rtol=1e-6, atol=1e-6)
    if differ.any():
        raise InputError(
            f"{differ.sum()} cells have another truth in {name} than in {first}, the first is "
            f"{one.index[differ][0]} with {other[differ].iloc[0]:g} and {one[differ].iloc[0]:g}; "
            "the same people were expected: score them against one truth"
        )


_CODE = r"_(-?\d+)_(-?\d+)$"  # north and east at the end of a cell's code


def evaluate(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    threshold: float = 0.5,
    block: int | None = None,
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
    block : int, optional
        Cells per side of the squares that a bootstrap draws: scores then have intervals that hold
        90 % of the draws.

    Returns
    -------
    pandas.DataFrame
        One row per model, on the cells that all models predict: the fields of
        :class:`popdask.metrics.PresenceScores` (cells, accuracy, matthews, precision, recall, and
        the four counts of the confusion matrix, f1) and of :class:`popdask.metrics.CountScores`
        (mse, mae, r2, people, true_people, relative_error, rmse, median_error, p90_error, within_1,
        within_2). With `block`, the ends of the intervals as well, such as ``r2_low`` and
        ``r2_high`` (:func:`popdask.metrics.block_intervals`; ``people_low`` and ``people_high`` are
        the true total with the ends of its relative error); NaN where cells are not called by
        their north and east. NaN where a score is not defined. Where a table has ``low`` and
        ``high``, ``coverage`` is the share of the cells whose truth they enclose, and ``width``
        the mean of high − low.

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
        scores |= asdict(count_scores(table["prediction"], table["truth"]))
        scores |= interval_scores(table)
        rows[name] = scores | ({} if block is None else _intervals(table, scores, limit, block))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def interval_scores(table: pd.DataFrame) -> dict[str, float]:
    """How many truths lie within the intervals of a table, and how wide those are."""
    if not {"low", "high"} <= set(table):
        return {}
    held = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    return {"coverage": float(held.mean()), "width": float((table["high"] - table["low"]).mean())}


def worst_cells(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame], count: int = 10
) -> pd.DataFrame:
    """List the cells with the largest errors.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        As for `evaluate`.
    count : int, optional
        Cells of each model, at most.

    Returns
    -------
    pandas.DataFrame
        One row per model and cell, the worst first, of equal errors the first: model, cell,
        prediction, truth, error (prediction − truth, people).

    Raises
    ------
    InputError
        As `evaluate`.

    Examples
    --------
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [0, 4, 9], "truth": [0, 5, 7]})
    >>> worst_cells(table, 2)[["cell", "error"]].values.tolist()
    [[3, 2], [2, -1]]
    """
    rows = []
    for name, table in on_common_cells(predictions).items():
        errors = table.assign(error=table["prediction"] - table["truth"]).reset_index()
        order = np.argsort(-errors["error"].abs().to_numpy(), kind="stable")[:count]
        columns = ["cell", "prediction", "truth", "error"]
        rows.append(errors.loc[order, columns].assign(model=name))
    worst = pd.concat(rows, ignore_index=True)
    return worst[["model", "cell", "prediction", "truth", "error"]]


def regressor_scores(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame], *, threshold: float = 0.5
) -> pd.DataFrame:
    """Score what models count, without their gate: where people truly live, and where it is open.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        As for `evaluate`; those without a column ``count`` are left out.
    threshold : float, optional
        The gate is open where ``presence`` is above it.

    Returns
    -------
    pandas.DataFrame
        One row per model and set of cells: model, of ("inhabited" or "passed"), and the fields of
        :class:`popdask.metrics.CountScores`; no "passed" where there is no presence.

    Raises
    ------
    InputError
        As `evaluate`.

    Examples
    --------
    >>> table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [0, 4, 9], "truth": [0, 5, 7]})
    >>> table = table.assign(count=[3, 4, 9], presence=[0.1, 0.6, 0.4])
    >>> regressor_scores(table)[["of", "cells", "mae"]]
              of  cells  mae
    0  inhabited      2  1.5
    1     passed      1  1.0
    """
    rows = []
    for name, table in on_common_cells(predictions).items():
        if "count" not in table:
            continue
        sets = {"inhabited": table["truth"] > 0}
        sets |= {"passed": table["presence"] > threshold} if "presence" in table else {}
        for of, there in sets.items():
            scores = count_scores(table["count"][there], table["truth"][there])
            rows.append({"model": name, "of": of, **asdict(scores)})
    names = [field.name for field in fields(CountScores)]
    return pd.DataFrame(rows, columns=["model", "of", *names])


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


def _intervals(
    table: pd.DataFrame, scores: Mapping[str, float], limit: float, block: int
) -> dict[str, float]:
    """The ends of the scores' intervals, by name."""
    if block < 1:
        raise InputError(f"block is {block}; expected cells per side, at least 1; correct it")
    places = pd.Series(table.index.astype(str)).str.extract(_CODE).astype(float).to_numpy()
    if np.isnan(places).any():
        blocks: Any = np.zeros(len(table))  # one square, of which nothing is known
    else:
        blocks = np.unique(places // block, axis=0, return_inverse=True)[1].ravel()
    presence = table.get("presence")
    found = block_intervals(
        table["prediction"], table["truth"], blocks, presence=presence, threshold=limit
    )
    total = scores["true_people"]
    found["people"] = tuple(total * (1 + end) for end in found["relative_error"])  # type: ignore[assignment]
    return {
        f"{name}_{end}": value
        for name, ends in found.items()
        for end, value in zip(("low", "high"), ends, strict=True)
    }


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


class Baseline(Protocol):
    """Estimates people from pictures, as a pair of trained models does."""

    def predict(self, images: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give presence, a probability, and people (cell,) of images (cell, band, row, col)."""


@dataclass(frozen=True)
class MeanBaseline:
    """The same for every cell: the mean of the training cells.

    Examples
    --------
    >>> images = np.zeros((4, 1, 16, 16), np.uint8)
    >>> baseline = MeanBaseline.fit(images, np.array([0.0, 0.0, 3.0, 5.0]))
    >>> baseline.presence, baseline.people
    (0.5, 2.0)
    """

    presence: float
    """Share of the training cells that are inhabited."""
    people: float
    """People per training cell."""

    @classmethod
    def fit(cls, images: Any, people: NDArray[np.floating]) -> MeanBaseline:
        """Take the mean of cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Not looked at.
        people : ndarray of float, (cell,)
            Their people.

        Returns
        -------
        MeanBaseline

        Raises
        ------
        InputError
            If there is no cell, or a cell whose people are not known.
        """
        _check(people)
        return cls(float((people > 0).mean()), float(people.mean()))

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer the same for every cell.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Only their number counts.

        Returns
        -------
        presence, people : ndarray of float32, (cell,)
            The share of inhabited cells, and the mean of the people.
        """
        count = len(images)
        return np.full(count, self.presence, np.float32), np.full(count, self.people, np.float32)


@dataclass(frozen=True)
class FeatureBaseline:
    """Logistic and linear regression on :func:`picture_features`.

    The linear one is fitted on inhabited cells and asked where the logistic one sees people.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = np.repeat([0.0, 8.0], 20)
    >>> images = rng.normal(100, 2 + people[:, None, None, None], (40, 1, 16, 16))
    >>> presence, estimate = FeatureBaseline.fit(images, people).predict(images)
    >>> np.array_equal(presence > 0.5, people > 0), estimate.round().max()
    (True, np.float32(8.0))
    """

    presence: Pipeline
    """Standardised features to the probability that somebody lives there."""
    people: Pipeline
    """Standardised features to people."""
    threshold: float = 0.5
    """People are counted where the probability is above it."""

    @classmethod
    def fit(
        cls, images: Any, people: NDArray[np.floating], *, threshold: float = 0.5
    ) -> FeatureBaseline:
        """Fit both regressions on cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Brightness on the scale of the sensor; NumPy or Dask, read in batches of 512 cells.
        people : ndarray of float, (cell,)
            Their people.
        threshold : float, optional
            People are counted where presence is above it.

        Returns
        -------
        FeatureBaseline

        Raises
        ------
        InputError
            If there is no cell, one whose people are not known, or all or none are inhabited.
        """
        _check(people)
        inhabited = people > 0
        if inhabited.all() or not inhabited.any():
            raise InputError(
                f"{inhabited.sum()} of {len(people)} training cells are inhabited, but a baseline "
                "needs some of both kinds: give it empty and inhabited cells"
            )
        features = picture_features(images)
        presence = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        counts = make_pipeline(StandardScaler(), LinearRegression())
        presence.fit(features, inhabited)
        counts.fit(features[inhabited], people[inhabited])
        return cls(presence, counts, threshold)

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Estimate cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            As those that it was fitted on.

        Returns
        -------
        presence, people : ndarray of float32, (cell,)
            The probability that somebody lives there, and people: 0 where it is not above the
            threshold, never negative.
        """
        features = picture_features(images)
        presence = self.presence.predict_proba(features)[:, 1]
        counts = np.clip(self.people.predict(features), 0, None)
        people = np.where(presence > self.threshold, counts, 0)
        return presence.astype(np.float32), people.astype(np.float32)


def fit_baselines(cells: xr.Dataset) -> dict[str, Baseline]:
    """Fit both baselines on the training cells.

    Parameters
    ----------
    cells : Dataset
        ``images`` (cell, band, row, col) and ``people`` (cell); with ``split``, only its training
        cells and those set aside to choose by are used, otherwise all cells with known people.

    Returns
    -------
    dict
        By the name that they have in a table of scores: "mean per cell", "regression".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = np.repeat([0.0, 8.0], 20)
    >>> images = rng.normal(100, 2 + people[:, None, None, None], (40, 1, 16, 16))
    >>> dims = ("cell", "band", "row", "col")
    >>> cells = xr.Dataset({"images": (dims, images), "people": ("cell", people)})
    >>> baselines = fit_baselines(cells)
    >>> list(baselines), baselines["mean per cell"].people
    (['mean per cell', 'regression'], 4.0)
    """
    people = cells["people"].values
    learned = cells["split"].isin((0, 2)) if "split" in cells else np.isfinite(people)
    chosen = np.flatnonzero(learned)
    images, people = cells["images"].isel(cell=chosen).data, people[chosen]
    return {
        "mean per cell": MeanBaseline.fit(images, people),
        "regression": FeatureBaseline.fit(images, people),
    }


def _check(people: NDArray[np.floating]) -> None:
    """Refuse cells that nothing can be learned from."""
    unknown = int((~np.isfinite(people)).sum())
    if not len(people) or unknown:
        raise InputError(
            f"{unknown} of {len(people)} training cells have unknown people, but a baseline learns "
            "from known ones: leave those out, and give at least one"
        )
