"""The search for good settings of a job's models, on the cells that its training has cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from popdask.errors import InputError
from popdask.imagery import tuning
from popdask.imagery.cells import load_tables
from popdask.imagery.models import TrainedModel
from popdask.imagery.tuning import Tuning
from popdask.job import PopulationJob
from popdask.pipelines.population.stages import training_config
from popdask.store import RegionStore
from popdask.store.runs import WORK


def _study(job: PopulationJob, model: str) -> Path:
    """Where a study is kept: in the local folder of the job."""
    job.export_folder.mkdir(parents=True, exist_ok=True)
    return job.export_folder / f"{job.name}_{model}-study.sqlite"


def tune(
    job: PopulationJob,
    model: str,
    trials: int | None = None,
    *,
    epochs: int = 10,
    progress: Callable[[pd.Series], object] | None = None,
) -> Tuning:
    """Search for the settings of a job's model with the lowest validation loss.

    Parameters
    ----------
    job
        The settings; its labelled cells must have been cut, as ``popdask train`` does.
    model
        "presence" or "count".
    trials
        How many settings to try in all, with those of earlier searches; by default 40 for
        presence, 100 for count.
    epochs
        Length of a trial.
    progress
        Is called with a Series for each trial that ended: its row of ``Tuning.trials``.

    Returns
    -------
    Tuning
        The trials, and the best settings. The study is kept with the exports, and goes on there.

    Raises
    ------
    InputError
        If there is no such model or there are no cells, the split is a cross-validation, or the
        counter learns from cells that a model of presence, not trained yet, calls inhabited.

    Notes
    -----
    Trials run on the workers of the current Dask client.
    """
    if model not in ("presence", "count"):
        raise InputError(f"there is no model {model!r}: expected presence or count.")
    if job.cells.folds:
        raise InputError(
            f"[cells] folds is {job.cells.folds}: expected a single split to tune on; set it to 0."
        )
    region = RegionStore(job.output.store)
    try:
        cells = region.group("cells", WORK)
    except KeyError:
        raise InputError(
            f"{region.path} has no labelled cells yet: `popdask train JOB` cuts them."
        ) from None
    settings = getattr(job, model)
    kind = settings.kind if model == "count" else "presence"
    return tuning.tune(
        load_tables(cells),
        kind,
        trials,
        config=training_config(kind, settings),
        epochs=epochs,
        storage=_study(job, model),
        seed=settings.seed,
        gate=_gate(job, model, region),
        device=settings.device,
        progress=progress,
    )


def _gate(job: PopulationJob, model: str, region: RegionStore) -> TrainedModel | None:
    """The model that says which cells the counter learns from, where the job asks for that."""
    if model == "presence" or job.count.learns_from != "predicted" or job.single_stage:
        return None
    name = "presence.safetensors"
    files = region.files(WORK)
    if name not in files:
        raise InputError(
            f"{region.path} has no model of presence yet, from whose cells [count] learns: "
            "`popdask train JOB` trains it."
        )
    return TrainedModel.from_bytes(files[name], name)
