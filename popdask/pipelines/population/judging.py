"""How good the estimates of a run are: on validation cells, and on each mosaic of known people."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from popdask.imagery.evaluation import Baseline, evaluate, fit_baselines, scores_by_density
from popdask.imagery.models import LeakageWarning, TrainedModel, check_leakage
from popdask.pipelines.images import iso, open_image
from popdask.pipelines.population import reading
from popdask.pipelines.population.scoring import Joint, predictions
from popdask.pipelines.population.state import PopulationRun
from popdask.progress import Reporter

#: Predictions, by set of cells and by model: cell, prediction, truth and presence, where known.
Judged = Mapping[str, Mapping[str, pd.DataFrame]]


@dataclass(frozen=True)
class _Judges:
    """The models of one split, and what they have to beat."""

    presence: TrainedModel | None
    count: TrainedModel | None
    cells: xr.Dataset | None = None
    """The labelled cells with their split, where there are any."""
    baselines: Mapping[str, Baseline] | None = None
    """Fitted on the same training cells."""


def judge(run: PopulationRun, reporter: Reporter) -> Judged:
    """Let models and baselines estimate all cells of known people that a run has.

    Parameters
    ----------
    run
        The run, with its estimates stored.
    reporter
        Is told of leakage.

    Returns
    -------
    dict
        ``"validation"``, and the date of each mosaic of which people are known.
    """
    judges = _judges(run)
    told: dict[str, dict[str, pd.DataFrame]] = {}
    if judges[0].cells is not None:
        told["validation"] = _of_validation(run, judges, reporter)
    for time, paths in run.sources.truth.items():
        if time in run.sources.mosaics:
            told[iso(time)[:10]] = _of_mosaic(run, judges[0], time, paths, reporter)
    return told


def score(told: Judged, threshold: float) -> dict[str, pd.DataFrame]:
    """Put predictions and their scores into tables.

    Parameters
    ----------
    told
        As from `judge`.
    threshold
        Cells with a higher probability of presence are called inhabited.

    Returns
    -------
    dict of DataFrame
        ``scores``, ``scores_by_density`` and ``predictions``, each with the set of cells as
        ``where``.
    """
    scores = {where: evaluate(tables, threshold=threshold) for where, tables in told.items()}
    by_density = {where: scores_by_density(tables) for where, tables in told.items()}
    rows = [
        table.assign(where=where, model=name)
        for where, tables in told.items()
        for name, table in tables.items()
    ]
    return {
        "scores": _stacked(scores),
        "scores_by_density": _stacked(by_density),
        "predictions": pd.concat(rows, ignore_index=True),
    }


def _judges(run: PopulationRun) -> list[_Judges]:
    """The models of each split, read once for all sets of cells."""
    models = list(zip(run.models("presence"), run.models("count"), strict=True))
    if "cells" not in run.plan.stages:
        return [_Judges(*pair) for pair in models]
    pairs = zip(models, run.splits(), strict=True)
    return [_Judges(*pair, cells, fit_baselines(cells)) for pair, cells in pairs]


def _of_validation(
    run: PopulationRun, judges: list[_Judges], reporter: Reporter
) -> dict[str, pd.DataFrame]:
    """Predictions of validation cells, each by models and baselines that have not seen it."""
    parts: dict[str, list[pd.DataFrame]] = {}
    settings = run.job.estimate
    for one in judges:
        assert one.cells is not None and one.count is not None
        held_out = one.cells.isel(cell=np.flatnonzero(one.cells["split"].values == 1))
        _tell_leakage(reporter, held_out, "validation", one)
        joint = Joint(one.presence, one.count, settings.threshold, settings.device)
        estimators = {"popdask": joint, **(one.baselines or {})}
        for name, table in predictions(held_out, estimators).items():
            parts.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _of_mosaic(
    run: PopulationRun,
    judges: _Judges,
    time: np.datetime64,
    paths: tuple[str, ...],
    reporter: Reporter,
) -> dict[str, pd.DataFrame]:
    """Predictions of a mosaic's cells of known people: the stored estimates, and the baselines."""
    image = open_image(run.job, run.sources.mosaics[time], run.grid)
    cells = reading.true_cells(run.job, image, paths, run.grid)
    if not run.has_folds:
        _tell_leakage(reporter, cells, iso(time)[:10], judges)
    others = {}
    if judges.baselines is not None and not run.job.cells.folds:
        others = predictions(cells, judges.baselines)
    return {"popdask": _stored(run, time, cells), **others}


def _stored(run: PopulationRun, time: np.datetime64, cells: xr.Dataset) -> pd.DataFrame:
    """The stored estimates of some cells, beside the truth."""
    places = list(zip(cells["north"].values.tolist(), cells["east"].values.tolist(), strict=True))
    corners = np.array([run.grid.corner(*place) for place in places])
    x, y = (xr.DataArray(corners[:, axis] + run.grid.size / 2, dims="cell") for axis in (0, 1))
    near = run.work.dataset().sel(time=time)
    at = near.sel(x=x, y=y, method="nearest", tolerance=run.grid.size / 10).compute()
    table = pd.DataFrame(
        {
            "cell": [run.grid.code(*place) for place in places],
            "truth": cells["people"].values,
            "prediction": at["population"].values.astype(np.float64),
        }
    )
    if "presence" in at:
        table["presence"] = at["presence"].values.astype(np.float64)
    return table.dropna(ignore_index=True)


def _tell_leakage(reporter: Reporter, cells: xr.Dataset, where: str, judges: _Judges) -> None:
    """Tell where models are scored on cells that they were trained on."""
    for model in (judges.presence, judges.count):
        if model is None:
            continue
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", LeakageWarning)
            size = float(cells.attrs["cell_size"])
            check_leakage(model, cells["north"].values, cells["east"].values, cell_size=size)
        for warning in told:
            reporter.note(f"  {where}, {model.kind}: {warning.message}")


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    parts = [table.reset_index().assign(where=where) for where, table in tables.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["where", *(name for name in table if name != "where")]]
