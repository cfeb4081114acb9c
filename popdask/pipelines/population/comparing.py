"""Estimates scored side by side: those of a job's last run, and tables from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from popdask import figures
from popdask.errors import InputError
from popdask.imagery.evaluation import evaluate, scores_by_density, write_scores
from popdask.imagery.predictions import read_predictions
from popdask.job import PopulationJob
from popdask.store import RegionStore


def compare(
    jobs: Sequence[PopulationJob], tables: Sequence[Path], folder: Path | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Score estimates against known people, on the cells that all of them have.

    Parameters
    ----------
    jobs
        Jobs with a finished run that was evaluated; for each set of cells of known people, its
        models and baselines are compared.
    tables
        Tables of (cell, prediction, truth), compared with each other, and with every set of cells
        of the jobs.
    folder
        Where JSON and figures go; without it, the export folder of the first job, if there is one.

    Returns
    -------
    scores : DataFrame
        One row per set of cells and model.
    written : list of Path
        ``scores_<set>.json`` and the figures of each set.

    Raises
    ------
    InputError
        If there is nothing to compare, a job has no evaluation, or a table is wrong.
    """
    others = {path.stem: read_predictions(path) for path in tables}
    sets = {
        f"{job.name}_{where}" if len(jobs) > 1 else str(where): estimates
        for job in jobs
        for where, estimates in _of_job(job).items()
    }
    sets = {where: {**estimates, **others} for where, estimates in sets.items()}
    sets = sets or ({"tables": others} if others else {})
    if not sets:
        raise InputError("there is nothing to evaluate: give a job file or a table of predictions.")
    if folder is None and jobs:
        folder = jobs[0].export_folder / "evaluation"
    scores, written = [], []
    for where, estimates in sets.items():
        found = evaluate(estimates)
        scores.append(found.reset_index().assign(where=where))
        if folder is not None:
            written += _write(folder, where, estimates, found)
    return pd.concat(scores, ignore_index=True), written


def _of_job(job: PopulationJob) -> dict[str, dict[str, pd.DataFrame]]:
    """The predictions of a job's last run, by set of cells and model."""
    region = RegionStore(job.output.store)
    try:
        table = region.table("predictions")
    except KeyError:
        raise InputError(
            f"{region.path} has no predictions of known people: give [cells] counts or [truth], "
            "and run the job."
        ) from None
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for (where, model), rows in table.groupby(["where", "model"], sort=False):
        rows = rows.drop(columns=["where", "model"]).dropna(axis="columns", how="all")
        found.setdefault(str(where), {})[str(model)] = rows
    return found


def _write(
    folder: Path, where: str, estimates: dict[str, pd.DataFrame], scores: pd.DataFrame
) -> list[Path]:
    by_density = scores_by_density(estimates)
    written = [write_scores(folder / f"scores_{where}.json", scores, by_density)]
    pictures = {
        f"scores_{where}": figures.scores_figure(scores),
        f"confusion_{where}": figures.confusion_figure(scores),
        f"density_{where}": figures.density_figure(by_density),
    }
    for model, table in estimates.items():
        name = f"agreement_{where}_{model.replace(' ', '-')}"
        pictures[name] = figures.agreement_figure(table, title=model)
    for name, figure in pictures.items():
        written.append(figures.save_figure(figure, folder / f"{name}.png"))
    return written
