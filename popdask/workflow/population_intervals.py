"""Intervals of a population job: learned where its models are judged, laid onto its estimates.

The errors are those of validation cells, each estimated by models that have not seen it. What the
intervals are worth is measured in the same way: those of a fold (without folds, of a part of the
validation squares) are learned from the errors of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.config.jobs import Intervals
from popdask.imagery.evaluation import interval_scores
from popdask.imagery.grid import CellGrid
from popdask.imagery.intervals import (
    ConformalIntervals,
    held_out_intervals,
    interval_rasters,
    least_cases,
    sums_by_square,
)
from popdask.store.content import table_bytes
from popdask.workflow.plan import StagePlan
from popdask.workflow.population_inputs import PopulationRun
from popdask.workflow.progress import Reporter

Judged = Mapping[str, Mapping[str, pd.DataFrame]]


def add_intervals(
    run: PopulationRun, scored: Judged, reporter: Reporter
) -> tuple[Judged, dict[str, pd.DataFrame]]:
    """Give the estimates of judged cells intervals, and tables of what was learned and measured."""
    settings = run.job.intervals
    if settings is None:
        return scored, {}
    own = scored["validation"]["popdask"]
    learned, held = _learned(own, settings)
    tables = {"cells": (learned.table(), _coverage(held))}
    squares = sums_by_square(_placed(own, run.grid), settings.square)
    if _enough(squares, settings):
        of_squares, held_squares = _learned(squares, settings)
        tables["squares"] = (of_squares.table(), _coverage(held_squares))
    else:
        reporter.note(_too_few(squares, settings))
    for of, (_, coverage) in tables.items():
        least, most = coverage["coverage"][1:].min(), coverage["coverage"][1:].max()
        reporter.note(
            f"  intervals of {of}: {settings.level:.0%} wanted, {coverage['coverage'][0]:.1%} of "
            f"{coverage['cases'][0]:,} held ({least:.1%} to {most:.1%} in each part)"
        )
    judged = {
        where: {**models, "popdask": _with_ends(models["popdask"], learned)}
        for where, models in scored.items()
    }
    judged["validation"]["popdask"] = held
    parts: list[list[pd.DataFrame]] = [
        [pair[number].assign(of=of) for of, pair in tables.items()] for number in (0, 1)
    ]
    names = ("intervals", "coverage")
    return judged, dict(zip(names, (pd.concat(p, ignore_index=True) for p in parts), strict=True))


def lay_intervals(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    """Store the ends of every cell's interval, and squares of cells with theirs."""
    settings = run.job.intervals
    assert settings is not None
    learned = dict(list(run.work.table("intervals").groupby("of")))
    population = run.work.dataset()["population"]
    if "squares" in learned:
        of_squares = ConformalIntervals.of_table(learned["squares"])
        frames = [
            _squares(now, run.grid, settings.square, of_squares).assign(time=now["time"].values)
            for now in population
        ]
        files = {"squares.parquet": table_bytes(pd.concat(frames, ignore_index=True))}
    else:
        files = {}  # and none of an earlier run
    run.work.write_files("squares", files, {"frames": {}, "of": stage.name})
    arrays = interval_rasters(population, ConformalIntervals.of_table(learned["cells"]))
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def _learned(table: pd.DataFrame, settings: Intervals) -> tuple[ConformalIntervals, pd.DataFrame]:
    """Intervals learned from all rows, and the rows with those learned from other groups."""
    rules: dict[str, Any] = settings.model_dump(include={"level", "bins"})
    said, true, group = (table[name].to_numpy() for name in ("prediction", "truth", "group"))
    cells: Any = table["cells"].to_numpy() if "cells" in table else 1
    low, high = held_out_intervals(said, true, group, cells, **rules)
    return ConformalIntervals.fit(said, true, cells, **rules), table.assign(low=low, high=high)


def _coverage(held: pd.DataFrame) -> pd.DataFrame:
    """How many truths the intervals hold: of all, and of each group."""
    groups = [("all", held), *held.groupby("group")]
    return pd.DataFrame(
        [{"group": str(name), "cases": len(rows), **interval_scores(rows)} for name, rows in groups]
    )


def _with_ends(table: pd.DataFrame, learned: ConformalIntervals) -> pd.DataFrame:
    low, high = learned.predict(table["prediction"].to_numpy())
    return table.assign(low=low, high=high)


def _placed(table: pd.DataFrame, grid: CellGrid) -> pd.DataFrame:
    """Predictions with north and east of their cells."""
    places = np.array([grid.parse(code) for code in table["cell"]], np.int64).reshape(-1, 2)
    return table.assign(north=places[:, 0], east=places[:, 1])


def _enough(squares: pd.DataFrame, settings: Intervals) -> bool:
    """Whether there are squares enough beside those of each group."""
    most = squares["group"].value_counts().max() if len(squares) else 0
    return len(squares) - most >= least_cases(settings.level)


def _too_few(squares: pd.DataFrame, settings: Intervals) -> str:
    return (
        f"  no intervals of squares of {settings.square} × {settings.square} cells: "
        f"{len(squares)} squares have known people, and intervals of {settings.level:.0%} need "
        f"{least_cases(settings.level)} beside those of each fold: make [intervals] square smaller"
    )


def _squares(
    population: xr.DataArray, grid: CellGrid, square: int, learned: ConformalIntervals
) -> pd.DataFrame:
    """The squares of one frame (y, x): corner, cells with data, people and their interval."""
    values = population.values.astype(np.float64)
    norths = np.floor((population["y"].values - grid.origin[1]) / grid.size).astype(np.int64)
    easts = np.floor((population["x"].values - grid.origin[0]) / grid.size).astype(np.int64)
    rows, columns = norths // square, easts // square
    people, cells = (
        _sums(part, rows, columns) for part in (np.nan_to_num(values), ~np.isnan(values))
    )
    row, column = np.nonzero(cells)
    people, cells = people[row, column], cells[row, column].astype(np.int64)
    low, high = learned.predict(people, cells)
    side = grid.size * square
    return pd.DataFrame(
        {
            "x": grid.origin[0] + side * np.unique(columns)[column],
            "y": grid.origin[1] + side * np.unique(rows)[row],
            "side": side,
            "cells": cells,
            "people": people,
            "low": low,
            "high": high,
        }
    )


def _sums(
    values: NDArray, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sums over squares, ascending along both axes, of a frame that is held as a whole."""
    down, right = (np.unique(axis, return_inverse=True)[1] for axis in (rows, columns))
    sums = np.zeros((down.max() + 1, right.max() + 1))
    np.add.at(sums, (down[:, None], right[None, :]), values.astype(np.float64))
    return sums
