"""Predictions scored beside each other, baselines that they have to beat, and how sure they are.

Tables of predictions: one row per cell, from popdask or any other program.

A table has ``cell`` (a code or a number), ``prediction`` and ``truth`` (people), and perhaps
``presence`` (the probability that the cell is inhabited) and ``count`` (people by the regressor
alone, whatever presence says). All models are compared on the cells that all of them predict: on
more of them, or fewer, scores would not be comparable.

A network has seen something only if it does better than the number of people in the mean cell, and
than a straight line through a few figures of the cell's picture. Both are fitted on the training
cells and answer as the models do, in two stages: presence, and people where somebody seems to live.

Intervals are split-conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018) by
bins of the predicted density, as Mondrian predictors have it: the errors, on cells that no model
has seen, of a bin say how far the truth lies from an estimate of that bin. An error counts relative
to the density, so that a zone of another size, or a cell at the dense end of its bin, is not told
the errors of others. Cells of one place err alike, so sums over a zone are surer than their cells,
but much less so than if cells erred by themselves: the intervals of zones are learned from the
errors of whole zones, never added up from those of cells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from popdask.errors import InputError
from popdask.io.paths import Path_, write_text
from popdask.io.tables import read_table
from popdask.metrics.estimates import CountScores, block_intervals, count_scores, presence_scores

if TYPE_CHECKING:
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.pipeline import Pipeline

COLUMNS = ("cell", "prediction", "truth")
OTHERS = ("presence", "count", "low", "high")  # that a table may have
_CODE = r"_(-?\d+)_(-?\d+)$"  # north and east at the end of a cell's code
OFFSET = 0.1  # of the mean density: keeps errors of empty places from being infinite
ROOM = 8  # times the least number of errors that a bin should have: fewer were no surer, and wider
REACH = 4  # times the cells of the largest size learned: the step between two sizes
GROUPS = 4  # that squares are dealt out to where there are no folds
SAME_SIZE = 0.05  # of a cell's side: degrees of one country differ as much


def prediction_table(
    population: Any, truth: Any, presence: Any = None, *, cell: ArrayLike | None = None
) -> pd.DataFrame:
    """Put estimates and truth into a table, one row per cell that both know."""
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
    """Read a table of predictions, from any program."""
    table = read_table(path, "a table of predictions")
    return _checked(table, Path(path).name)


def on_common_cells(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Check tables of predictions, and reduce them to the cells that all of them have."""
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
    """List the cells with the largest errors."""
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
    """Score counts without their gate: where people truly live, and where it is open."""
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
    """Write scores as JSON, whole or not at all; what is not defined is null."""
    document: dict[str, Any] = {"scores": _plain(scores).to_dict("index")}
    if by_density is not None:
        document["by_density"] = _plain(by_density).to_dict("records")
    return write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


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


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with None for numbers that JSON does not know."""
    known = table.replace([np.inf, -np.inf], np.nan).astype(object)
    return known.where(known.notna(), None)


class Baseline(Protocol):
    """Estimates people from pictures, as a pair of trained models does."""

    def predict(self, images: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return presence, a probability, and people (cell,) of images (cell, band, row, col)."""


@dataclass(frozen=True)
class MeanBaseline:
    """The same for every cell: the mean of the training cells."""

    presence: float
    """Share of the training cells that are inhabited."""
    people: float
    """People per training cell."""

    @classmethod
    def fit(cls, images: Any, people: NDArray[np.floating]) -> MeanBaseline:
        """Take the mean of cells."""
        _check(people)
        return cls(float((people > 0).mean()), float(people.mean()))

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer the same for every cell."""
        count = len(images)
        return np.full(count, self.presence, np.float32), np.full(count, self.people, np.float32)


@dataclass(frozen=True)
class FeatureBaseline:
    """Logistic and linear regression on :func:`picture_features`."""

    presence: Pipeline | DummyClassifier
    """Standardised features to the probability that somebody lives there; one for all cells where
    all that were learned from, or none, were inhabited."""
    people: Pipeline | DummyRegressor
    """Standardised features to people."""
    threshold: float = 0.5
    """People are counted where the probability is above it."""

    @classmethod
    def fit(
        cls, images: Any, people: NDArray[np.floating], *, threshold: float = 0.5
    ) -> FeatureBaseline:
        """Fit both regressions on cells."""
        _check(people)
        # Those who read intervals alone need neither torch nor scikit-learn.
        from sklearn.dummy import DummyClassifier, DummyRegressor
        from sklearn.linear_model import LinearRegression, LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from popdask.imagery.features import picture_features

        features, inhabited = picture_features(images), people > 0
        presence: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        counts: Any = make_pipeline(StandardScaler(), LinearRegression())
        if len(np.unique(inhabited)) == 1:
            presence = DummyClassifier()
        presence.fit(features, inhabited)
        if inhabited.any():
            counts.fit(features[inhabited], people[inhabited])
        else:
            counts = DummyRegressor(strategy="constant", constant=0.0).fit(features, people)
        return cls(presence, counts, threshold)

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Estimate cells."""
        from popdask.imagery.features import picture_features

        features = picture_features(images)
        presence = self.presence.predict_proba(features) @ self.presence.classes_
        counts = np.clip(self.people.predict(features), 0, None)
        people = np.where(presence > self.threshold, counts, 0)
        return presence.astype(np.float32), people.astype(np.float32)


def fit_baselines(cells: xr.Dataset) -> dict[str, Baseline]:
    """Fit both baselines on the training cells."""
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


@dataclass(frozen=True, eq=False)
class ConformalIntervals:
    """Intervals of people in cells, or in zones of them."""

    level: float
    """Share of the truths that the intervals are to hold."""
    offset: float
    """Added to the density that errors are relative to, people per cell."""
    edges: NDArray[np.float64]
    """Predicted densities at which the bins meet, people per cell, (bins − 1,)."""
    low: NDArray[np.float64]
    """Lower ends as relative errors, (bins,); −∞ where nobody is among what is likely."""
    high: NDArray[np.float64]
    """Upper ends as relative errors, (bins,)."""
    cases: NDArray[np.int64]
    """Errors that each bin was learned from, (bins,)."""

    @classmethod
    def fit(
        cls, estimate: Any, truth: Any, cells: Any = 1, *, level: float = 0.9, bins: int = 10
    ) -> ConformalIntervals:
        """Learn intervals from estimates of known cells or zones that no model has seen."""
        said, true, size = np.broadcast_arrays(
            *(np.asarray(array, np.float64) for array in (estimate, truth, cells))
        )
        least = least_cases(level)
        if bins < 1:
            raise InputError(f"bins is {bins}; expected at least 1, such as 10; correct it")
        if len(said) < least:
            raise InputError(
                f"there are errors of {len(said)} places; expected at least {least} for intervals "
                f"of {level:.0%}: give more known places, smaller zones, or a lower level"
            )
        density, missed = said / size, (true - said) / size
        offset = max(OFFSET * float(density.mean()), 1e-9)
        edges = _edges(density, min(bins, max(1, len(said) // (ROOM * least))), least)
        which = np.searchsorted(edges, density, side="right")
        errors = missed / (density + offset)
        ends = [
            _ends(errors[which == number], density[which == number], offset, level)
            for number in range(len(edges) + 1)
        ]
        low, high = np.array(ends).T
        return cls(level, offset, edges, low, high, np.bincount(which, minlength=len(ends)))

    def predict(
        self, estimate: Any, cells: Any = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the intervals of estimates."""
        said, size = np.asarray(estimate, np.float64), np.asarray(cells, np.float64)
        density = said / size
        which = np.searchsorted(self.edges, np.nan_to_num(density), side="right")
        scale = (density + self.offset) * size
        likely = np.isfinite(self.low)[which]
        low = np.where(likely, said + np.where(likely, self.low[which], 0.0) * scale, 0.0)
        low = np.where(np.isnan(said), np.nan, np.clip(low, 0.0, said))
        return low, np.maximum(said + self.high[which] * scale, said)

    def table(self) -> pd.DataFrame:
        """Return one row per bin: from (people per cell), low, high, cases, level and offset."""
        return pd.DataFrame(
            {
                "from": np.concatenate([[0.0], self.edges]),
                "low": self.low,
                "high": self.high,
                "cases": self.cases,
                "level": self.level,
                "offset": self.offset,
            }
        )

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> ConformalIntervals:
        """Take up again what `table` gave."""
        columns = {name: table[name].to_numpy() for name in ("low", "high", "cases")}
        level, offset = (float(table[name].iloc[0]) for name in ("level", "offset"))
        return cls(level, offset, table["from"].to_numpy()[1:], **columns)


def least_cases(level: float) -> int:
    """Say how many errors two-sided intervals of a level need at least: 19 for 90 %."""
    if not 0 < level < 1:
        raise InputError(
            f"level is {level}; expected a share between 0 and 1, such as 0.9; correct it"
        )
    return math.ceil(round(2 / (1 - level), 6)) - 1


def intervals_by_size(
    people: Any, cells: Any, learned: Mapping[int, ConformalIntervals]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals of zones by those learned of the nearest size; NaN where no size is near."""
    people, cells = np.asarray(people, np.float64), np.asarray(cells)
    sizes = np.array(sorted(learned))
    middles = np.sqrt(sizes[1:] * sizes[:-1])  # halfway between two sizes, as factors
    which = np.searchsorted(middles, cells)
    low, high = np.full((2, len(people)), np.nan)
    for number, size in enumerate(sizes.tolist()):
        here = (which == number) & (cells > 0) & (cells <= REACH * sizes[-1])
        low[here], high[here] = learned[size].predict(people[here], cells[here])
    return low, high


def learned_by_size(table: pd.DataFrame) -> dict[int, ConformalIntervals]:
    """Take up a run's intervals again, by the cells of the squares that they were learned from."""
    sizes = table["size"].astype(int)
    return {size: ConformalIntervals.of_table(table[sizes == size]) for size in sizes.unique()}


def read_intervals(path: Path_, cell_m: float) -> dict[int, ConformalIntervals]:
    """Read the intervals that a population job exports, for frames with cells of this side."""
    table = read_table(path, "a table of intervals that a population job exports")
    wanted = {"size", "from", "low", "high", "cases", "level", "offset", "cell_size"}
    if missing := sorted(wanted - set(table)):
        raise InputError(
            f"[input] intervals, {path}, lacks the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; expected the table NAME_intervals.parquet that a population "
            "job with [intervals] exports; give that table, or run that job again"
        )
    learned_m = float(table["cell_size"].mean())
    if not abs(cell_m / learned_m - 1) <= SAME_SIZE:
        raise InputError(
            f"[input] intervals, {path}, were learned on cells of {learned_m:,.1f} m, and the "
            f"frames have cells of {cell_m:,.1f} m; expected cells of one size; give the intervals "
            "of a job with cells as those of the frames, or bring the frames onto its cells"
        )
    return learned_by_size(table)


def interval_rasters(population: xr.DataArray, intervals: ConformalIntervals) -> xr.Dataset:
    """Return the ends of cells' intervals as rasters."""
    words = {"population_low": "lower", "population_high": "upper"}
    found = {}
    for number, (name, end) in enumerate(words.items()):
        ends = xr.apply_ufunc(
            lambda values, number=number: intervals.predict(values)[number].astype(np.float32),
            population,
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        long_name = (
            f"{end} end of the interval that holds the people of {intervals.level:.0%} of cells"
        )
        found[name] = ends.assign_attrs(units="people per cell", long_name=long_name)
    return xr.Dataset(found)


def held_out_intervals(
    estimate: NDArray, truth: NDArray, groups: NDArray, cells: Any = 1, **settings: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals (n,) of each place, learned from the errors of the other groups of places."""
    size = np.broadcast_to(np.asarray(cells), estimate.shape)
    low, high = np.empty((2, *estimate.shape))
    for group in np.unique(groups):
        here = groups == group
        learned = ConformalIntervals.fit(estimate[~here], truth[~here], size[~here], **settings)
        low[here], high[here] = learned.predict(estimate[here], size[here])
    return low, high


def sums_by_square(table: pd.DataFrame, square: int) -> pd.DataFrame:
    """Add up predictions by squares of so many cells a side: prediction, truth, cells, group."""
    places = [table["north"] // square, table["east"] // square]
    named = {
        "prediction": ("prediction", "sum"),
        "truth": ("truth", "sum"),
        "cells": ("truth", "size"),
        "group": ("group", "first"),
        "groups": ("group", "nunique"),
    }
    # A square of several groups is left out: some of its models have seen a part of it.
    sums = table.groupby(places).agg(**named).reset_index()
    return sums[sums["groups"] == 1].drop(columns="groups").reset_index(drop=True)


def deal_squares(north: NDArray, east: NDArray, block: int, seed: int = 0) -> NDArray[np.int64]:
    """Deal the squares of a split out to a few groups, for want of folds; one number per cell."""
    places = np.stack([np.asarray(north), np.asarray(east)]) // block
    squares = np.unique(places, axis=1, return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(squares.max() + 1)
    groups: NDArray[np.int64] = order[squares] % GROUPS
    return groups


def _edges(density: NDArray[np.float64], bins: int, least: int) -> NDArray[np.float64]:
    """Edges of bins of as many cases each, joined where ties leave one with too few."""
    edges = np.unique(np.quantile(density, np.arange(1, bins) / bins))
    while len(edges):
        which = np.searchsorted(edges, density, side="right")
        few = np.flatnonzero(np.bincount(which, minlength=len(edges) + 1) < least)
        if not len(few):
            break
        edges = np.delete(edges, max(int(few[0]) - 1, 0))
    return edges


def _ends(
    errors: NDArray[np.float64], density: NDArray[np.float64], offset: float, level: float
) -> tuple[float, float]:
    """The ends of a bin's interval, from the errors of its cases."""
    # Each tail gets half of what is left out; where nobody is the lower end, the upper gets all.
    ranked, count, out = np.sort(errors), len(errors) + 1, 1 - level
    low = ranked[max(math.floor(round(count * out / 2, 6)), 1) - 1]
    middle = float(np.median(density))
    if middle + low * (middle + offset) > 0:
        return float(low), float(ranked[math.ceil(round(count * (1 - out / 2), 6)) - 1])
    return -math.inf, float(ranked[math.ceil(round(count * level, 6)) - 1])


def sums_of_zones(table: pd.DataFrame, zone: NDArray[np.int32]) -> pd.DataFrame:
    """Add up predictions (cell,) by zone, where no people of single cells are known."""
    sums = table.assign(zone=zone)[zone >= 0].groupby("zone")[["truth", "prediction"]].sum()
    return sums.reset_index().assign(cell=lambda t: "zone " + t.pop("zone").astype(str))
